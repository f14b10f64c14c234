"""The papers' simulated figures, on small fleets."""

import numpy as np
import pytest

from extproc.papers import fleets
from extproc.papers.fleets import planners_section, reliability_section, simulate_fleet
from extproc.planner.simulation.rules import RuleName
from extproc.planner.traffic.lengths import equally_weighted
from tests.support.small_fleets import TWO

LENGTHS = equally_weighted("mixed", np.array([10, 200]), np.array([5, 5]))


def test_a_fleet_that_keeps_up_answers_at_once():
    figures = simulate_fleet(TWO, LENGTHS, 5.0, 400, RuleName.ORACLE)
    assert (figures.preemptions, figures.ttft_p99_s) == (0, pytest.approx(0.1, abs=0.1))
    assert figures.ttft_p50_s <= figures.ttft_p99_s <= figures.worst_pool_p99_s


def test_a_fleet_that_is_overloaded_answers_late():
    slow, fast = (simulate_fleet(TWO, LENGTHS, rate, 400, RuleName.ORACLE) for rate in (500.0, 5.0))
    assert slow.ttft_p99_s > 10 * fast.ttft_p99_s


@pytest.fixture
def few(monkeypatch):
    """Simulate 200 requests in place of 10,000 and 20,000."""
    real = fleets.simulate_fleet
    monkeypatch.setattr(
        fleets, "simulate_fleet", lambda f, w, rate, _, rule: real(f, w, rate, 200, rule)
    )


@pytest.mark.usefixtures("few")
def test_the_reliability_section_has_the_papers_figures_beside_ours():
    rows = reliability_section().rows
    assert [row.paper for row in rows] == ["47.3 -> 8.7"] * 2 + [".42 -> .28", "1.82 -> 1.71"]
    assert rows[0].ours == "0.0 -> 0.0"


@pytest.mark.usefixtures("few")
def test_without_the_authors_tool_our_plans_stand_alone():
    rows = planners_section(None).rows
    assert {row.paper for row in rows} == {"not installed"}
    assert all(row.ours.endswith("meets") for row in rows if "simulator" in row.what)


@pytest.mark.usefixtures("few")
def test_with_the_authors_tool_both_plans_run_in_both_simulators(tmp_path):
    tool = tmp_path / "vllm-sr-sim"
    tool.write_text(
        "#!/bin/sh\nkind=$1\nwhile [ \"$1\" != --out ]; do shift; done\n"
        "[ $kind = optimize ] && echo '[{\"n_s\": 9, \"n_l\": 27}]' > \"$2\"\n"
        "[ $kind = simulate ] && echo '{\"long_p99_ttft_ms\": 930.0}' > \"$2\"\ntrue\n"
    )  # fmt: skip
    tool.chmod(0o755)
    rows = planners_section(tool).rows
    assert rows[0].paper == "9 + 27, $697K"
    assert [row.paper for row in rows if "their simulator" in row.what] == ["0.93, fails"] * 2
