"""Simulated fleets as tables and as JSON."""

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from extproc.planner.report.simulated import Compared, Simulation, print_simulation, to_json
from extproc.planner.simulation.results import Result, SimulatedFigures
from tests.support.small_fleets import TWO

FIGURES = SimulatedFigures(
    name="fleet",
    instances=4,
    gpus=4,
    requests=1000,
    throughput=12.34,
    ttft_p50_s=0.25,
    ttft_p99_s=1.5,
    tpot_p50_s=0.0155,
    tpot_p99_s=math.inf,
    preemptions=3.0,
    reused=0.125,
    utilisation=0.5,
    failed_over=0.01,
    clamped=0.02,
    rejected=0.03,
    unfinished=0.04,
    misrouted=0.005,
    over_routed=0.015,
)
RESULT = Result(
    pools=(
        replace(FIGURES, name="short", requests=900),
        replace(FIGURES, name="long", requests=100, ttft_p50_s=math.nan),
    ),
    fleet=FIGURES,
    warmup_s=5.0,
    span_s=60.0,
    answer_s=1.0,
)


def simulation(*results: Result, **change: object) -> Simulation:
    values = {
        "source": "trace.csv",
        "requests": 1200,
        "rate": 19.96,
        "poisson": True,
        "stated": 0.85,
        "notes": ("f: only totals",),
        "compared": (Compared("dualpool", TWO, results or (RESULT,)),),
    } | change
    return Simulation(**values)


def test_a_fleet_near_its_capacity_is_shown_with_less_and_with_more():
    slow = replace(RESULT, fleet=replace(FIGURES, ttft_p99_s=9.0, tpot_p99_s=0.08))
    shown = simulation(compared=(Compared("dualpool", TWO, (RESULT,), 0.91, (slow, RESULT)),))
    text = " ".join(printed(shown).split())
    assert "dualpool 91% 0.25 / 9.00, 80.0 0.25 / 1.50, never 0.25 / 1.50, never" in text
    document = json.loads(to_json(shown))
    assert document["capacity"]["dualpool"]["-10%"]["fleet"]["ttft_p99_s"] == 9.0


def printed(shown: Simulation) -> str:
    out = io.StringIO()
    print_simulation(shown, Console(file=out, width=200))
    return out.getvalue()


def row(head: str, text: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(head))
    return line.removeprefix(head).split()


def test_the_arrivals_and_the_pools_come_first():
    text = printed(simulation())
    assert text.startswith("1200 requests of trace.csv, 20.0 per second, Poisson.\n")
    assert "short 2 x 4 sequences of 64 tokens, up to 64, long 2 x 4 sequences of 256" in text


def test_a_replay_has_the_times_of_its_trace():
    assert "at the times of the trace" in printed(simulation(poisson=False))


@pytest.mark.parametrize(
    ("head", "cell"),
    [
        ("GPUs", "4"),
        ("answers/s", "12.3"),
        ("TTFT P50 s", "0.25"),
        ("TPOT P50 ms", "15.5"),
        ("TPOT P99 ms", "never"),
        ("prompt tokens cached %", "12.5"),
        ("rejected or unfinished %", "7.00"),
        ("misrouted %", "0.50"),
        ("over-routed %", "1.50"),
    ],
)
def test_a_rule_has_its_figures_in_its_units(head, cell):
    assert row(head, printed(simulation())) == [cell]


def test_each_rule_has_a_column():
    both = (Compared("dualpool", TWO, (RESULT,)), Compared("oracle", TWO, (RESULT,)))
    text = printed(simulation(compared=both))
    assert row("answers/s", text) == ["12.3", "12.3"]
    assert "The pools of dualpool, mean over the seeds" in text


def test_each_pool_of_the_first_rule_has_a_column():
    text = printed(simulation())
    assert row("requests  ", text) == ["900", "100"]
    assert row("slots used %", text) == ["50.0", "50.0"]


def test_an_unknown_figure_is_a_dash():
    pools = printed(simulation()).split("The pools of")[1]
    assert row("TTFT P50 s", pools) == ["0.25", "-"]


def test_several_seeds_have_an_interval():
    other = replace(RESULT, fleet=replace(FIGURES, throughput=14.34))
    text = printed(simulation(RESULT, other))
    assert row("answers/s", text) == ["13.3", "±12.7"]
    assert "± is half of the 95 % interval" in text


def test_equal_seeds_need_no_interval():
    assert row("answers/s", printed(simulation(RESULT, RESULT))) == ["12.3"]


def test_assumptions_and_notes_end_the_report():
    text = printed(simulation())
    assert "over 1 seed(s)" in text
    assert "after 5 s of 60 s" in text
    assert "The texts are generated; 85% of the requests state an output limit." in text
    assert text.rstrip().endswith("Note: f: only totals.")


def test_json_has_every_figure_of_every_seed():
    document = json.loads(to_json(simulation(RESULT, RESULT)))
    assert (document["simulated"], document["arrivals"]) == (True, "poisson")
    assert (document["requests"], document["requests_per_s"]) == (1200, 19.96)
    first, _ = document["rules"]["dualpool"]
    assert first["fleet"]["over_routed"] == 0.015
    assert [pool["name"] for pool in first["pools"]] == ["short", "long"]


def test_json_has_null_for_what_never_happened():
    (run,) = json.loads(to_json(simulation()))["rules"]["dualpool"]
    assert run["fleet"]["tpot_p99_s"] is None
    assert run["pools"][1]["ttft_p50_s"] is None


def test_json_names_a_replay():
    assert json.loads(to_json(simulation(poisson=False)))["arrivals"] == "replayed"
