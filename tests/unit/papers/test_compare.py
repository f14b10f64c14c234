"""`make paper` without its simulations."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from extproc.papers.compare import print_section, raw_traces_section, run_paper
from extproc.papers.sections import table_2_section
from tests.support.paths import SHARED

DATA = SHARED / "data"


def test_a_section_prints_its_rows_and_its_note():
    out = io.StringIO()
    print_section(Console(file=out, width=120), table_2_section())
    assert "alpha 0.558: 208" in out.getvalue()
    assert "Either reproduces" in out.getvalue()


def test_each_trace_has_a_row_and_all_together(tmp_path):
    for name, tokens in (("a", 100), ("b", 9000)):
        rows = f"{tokens},10\n" * 20
        (tmp_path / f"{name}.csv").write_text(f"prompt_tokens,completion_tokens\n{rows}")
    rows = raw_traces_section([tmp_path / "a.csv", tmp_path / "b.csv"]).rows
    assert [row.what.split(":")[0] for row in rows] == ["a", "b", "a + b"]
    assert [row.ours.split(";")[0] for row in rows] == ["1.0000", "0.0000", "0.5000"]


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not there")
def test_the_raw_azure_trace_is_within_8192_tokens():
    (row,) = raw_traces_section([DATA / "azure_llm_2023_conv.csv"]).rows
    assert row.ours.startswith("0.9999; ")


def test_a_trace_that_is_not_there_is_one_line_and_exit_code_2(capsys):
    assert run_paper([Path("nowhere.csv")], None, fast=True) == 2
    assert "nowhere.csv" in capsys.readouterr().err
