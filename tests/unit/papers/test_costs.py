"""What both planners cost, as commands."""

import sys
from pathlib import Path

import pytest

from extproc.papers import costs
from extproc.papers.costs import Cost, costs_section
from extproc.papers.sr_sim import SrSimError


@pytest.fixture
def commands(monkeypatch):
    """Note the commands in place of running them."""
    ran = []
    monkeypatch.setattr(costs, "_cost", lambda argv: ran.append(argv) or Cost(2.0, 30.0))
    return ran


@pytest.mark.usefixtures("commands")
def test_both_are_asked_the_same():
    section = costs_section(Path("vllm-sr-sim"), requests=100, most=1000)
    assert [row.what for row in section.rows[:4]] == [
        "Azure: plan",
        "  simulate 100 requests, rule oracle",
        "  simulate 100 requests, rule dualpool",
        "  simulate 100 requests, rule dualpool, with the repeats",
    ]
    assert {(row.paper, row.ours) for row in section.rows[:4]} == {("2.00 s, 30 MiB",) * 2}


def test_the_simulated_split_is_that_of_their_plan(commands):
    costs_section(Path("vllm-sr-sim"), requests=100, most=1000)
    theirs = next(argv for argv in commands if "simulate" in argv and "--n-s" in argv)
    ours = next(argv for argv in commands if "simulate" in argv and "--instances" in argv)
    assert theirs[theirs.index("--n-s") + 1 :][::2][:2] == ("9", "27")
    assert ours[ours.index("--instances") + 1] == "9,27"


@pytest.mark.usefixtures("commands")
def test_without_their_tool_ours_stands_alone():
    rows = costs_section(None, requests=100, most=1000).rows
    assert {row.paper for row in rows} == {"not installed", "-"}


def test_the_cost_of_a_command_is_that_of_the_process():
    code = "x = bytearray(50 << 20)\nfor _ in range(10**6): pass"
    cost = costs._cost((sys.executable, "-c", code))
    assert cost.cpu_s > 0.01
    assert cost.memory_mib > 50


@pytest.mark.parametrize("argv", [("/nowhere",), (sys.executable, "-c", "raise SystemExit(2)")])
def test_a_command_that_does_not_run_is_named(argv):
    with pytest.raises(SrSimError, match=argv[0]):
        costs._cost(argv)
