"""The papers' figures beside ours, as far as they need no simulation."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from extproc.papers.compare import print_section, raw_traces_section, run_paper
from extproc.papers.sections import (
    Section,
    closed_form_section,
    curve_section,
    golden_section,
    mi300x_section,
    table_2_section,
    table_5_section,
    traces_section,
)
from tests.support.paths import SHARED

DATA = SHARED / "data"


def ours(section: Section) -> dict[str, str]:
    return {row.what: row.ours for row in section.rows}


def test_the_closed_form_gives_the_papers_cases_exactly():
    for row in closed_form_section().rows:
        assert row.ours.replace("%", " %") == row.paper


def test_every_row_of_the_authors_planner_is_reproduced():
    for row in golden_section().rows:
        assert row.ours == row.paper, row.what


def test_the_totals_of_table_2_are_reproduced_with_what_is_stated():
    figures = ours(table_2_section())
    assert figures["Azure: 358 -> 208, all rates as published"] == "alpha 0.558: 208"
    assert figures["Azure: alpha 0.80 as published"] == "1.47 req/s: 208"
    assert figures["LMSYS: alpha 0.68 as published"] == "1.73 req/s: 246"


def test_the_mi300x_case_is_reproduced():
    figures = ours(mi300x_section())
    assert figures["KV cache of a GPU, bytes a token"] == "133.4 GB, 24064"
    assert figures["sequences at 8K and at 32K"] == "676, 169"
    assert figures["GPUs"] == "1576 -> 1096 (30.5%)"
    assert figures["saved a year of 8760 h"] == "$15.43M"


def test_the_ratios_of_table_5_are_within_what_the_rule_learns():
    for row in table_5_section().rows:
        low, high = (float(part) for part in row.why.split(";")[0].split(": ")[1].split(" to "))
        assert low <= float(row.paper.split()[0]) <= high


def test_the_public_distributions_leave_next_to_nothing_over_8192():
    figures = list(ours(traces_section()).values())
    assert figures[0].startswith("1.0000")
    assert figures[1].startswith("0.9965")


def test_the_curve_has_a_share_of_the_best_for_each_workload():
    rows = [row for row in curve_section().rows if row.what.startswith("B ")]
    assert len(rows) == 8
    assert all(row.ours.count("%") == 2 for row in rows)


def test_a_section_prints_its_rows_and_its_note():
    out = io.StringIO()
    print_section(Console(file=out, width=120), table_2_section())
    assert "alpha 0.558: 208" in out.getvalue()
    assert "Either reproduces" in out.getvalue()


@pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not there")
def test_the_raw_azure_trace_is_within_8192_tokens():
    section = raw_traces_section([DATA / "azure_llm_2023_conv.csv"])
    assert ours(section)["azure_llm_2023_conv: alpha at 8192; instances"].startswith("0.9999; ")


def test_a_trace_that_is_not_there_is_one_line_and_exit_code_2(capsys):
    assert run_paper([Path("nowhere.csv")], None, fast=True) == 2
    assert "nowhere.csv" in capsys.readouterr().err
