import json

import pytest
from rich.table import Table

from extproc.output import STDOUT, report_console, wide_console, write_json


def test_json_is_written_to_a_file(tmp_path):
    write_json(tmp_path / "a.json", '{"a": 1}')
    assert (tmp_path / "a.json").read_text() == '{"a": 1}\n'


def test_a_hyphen_is_standard_output(capsys):
    write_json(STDOUT, '{"a": 1}\n')
    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_sentences_are_wrapped_at_the_given_width_outside_a_terminal():
    assert report_console(200).width == 200


def wide_table() -> Table:
    table = Table(box=None)
    for name in ("left", "right"):
        table.add_column(name, no_wrap=True)
    table.add_row("1" * 100, "2" * 100)
    return table


@pytest.mark.parametrize("console", [report_console, wide_console])
def test_a_table_is_as_wide_as_its_cells_outside_a_terminal(console, capsys):
    console().print(wide_table())
    assert capsys.readouterr().out.splitlines()[1].split() == ["1" * 100, "2" * 100]


def test_a_wide_table_is_not_cut_off_in_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal for rich
    monkeypatch.setenv("COLUMNS", "80")
    wide_console().print(wide_table())
    assert capsys.readouterr().out.splitlines()[1].split() == ["1" * 100, "2" * 100]


def test_a_column_with_a_limit_wraps_outside_a_terminal(capsys):
    table = Table(box=None, show_header=False)
    table.add_column(max_width=5)
    table.add_row("words that wrap")
    report_console(100).print(table)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "words",
        "that",
        "wrap",
    ]


def test_lines_that_are_piped_end_without_spaces(capsys):
    table = Table(box=None)
    table.add_row("a", "b")
    table.add_row("a", "longer")
    report_console(40).print("first", table)
    assert capsys.readouterr().out.splitlines() == ["first", "", " a  b", " a  longer"]


def test_standard_error_gets_the_same(capsys):
    report_console(stderr=True).print("told")
    assert capsys.readouterr() == ("", "told\n")
