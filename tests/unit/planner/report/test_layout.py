"""The reports' tables in terminals."""

import pytest

from extproc.output import report_console
from extproc.planner.report.layout import make_table

FIGURES = ("17,810,832", "293 ms", "100.00%")


@pytest.fixture(params=[30, 50, 80])
def terminal(request, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal for rich
    monkeypatch.setenv("COLUMNS", str(request.param))


def printed(capsys):
    table = make_table("", "fleet of pools", "$ a year", "P99 TTFT of the pool", "share")
    table.add_row("one pool, by the default of vLLM", *FIGURES)
    report_console().print(table)
    return capsys.readouterr().out


@pytest.mark.usefixtures("terminal")
def test_no_figure_is_folded_in_a_narrow_terminal(capsys):
    out = printed(capsys)
    assert all(figure in out for figure in FIGURES)


def test_a_table_is_on_one_line_outside_a_terminal(capsys):
    assert "one pool, by the default of vLLM  17,810,832" in printed(capsys)


@pytest.mark.usefixtures("terminal")
def test_a_list_of_figures_is_folded_between_them(capsys):
    table = make_table("", "pools", "load")
    table.add_row("two", ", ".join(["17,810,832"] * 9))
    report_console().print(table)
    assert capsys.readouterr().out.count("17,810,832") == 9
