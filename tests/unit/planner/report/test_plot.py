"""The latencies of simulated requests as a picture."""

import pytest

pytest.importorskip("matplotlib", reason="plots need matplotlib")

from matplotlib.figure import Figure

from extproc.planner.report.plot import _draw, draw_simulation
from extproc.planner.simulation.records import Records
from extproc.planner.simulation.rules import RuleName, make_rule
from extproc.planner.simulation.run import Conduct, simulate
from tests.support.small_fleets import TWO, incoming


def records(rows: list[tuple[float, int, int]]) -> Records:
    return simulate(TWO, incoming(rows), make_rule(RuleName.ORACLE, TWO, 0), Conduct())


ANSWERED = records([(0.1, 10, 5)] * 20)
HALF = records([(0.1, 10, 5), (0.1, 300, 5)] * 10)


def curve(of: Records):
    axes = Figure().subplots()
    _draw(axes, {"rule": of}, lambda each: each.ttft_s)
    return axes.lines[0]


def test_the_picture_is_a_png(tmp_path):
    draw_simulation({"dualpool": ANSWERED, "oracle": HALF}, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_a_curve_rises_to_all_requests():
    assert curve(ANSWERED).get_ydata()[-1] == 1
    assert sorted(curve(ANSWERED).get_xdata()) == curve(ANSWERED).get_xdata().tolist()


def test_requests_without_an_answer_keep_a_curve_below_1():
    assert curve(HALF).get_ydata()[-1] == 0.5


def test_each_rule_has_a_curve():
    axes = Figure().subplots()
    _draw(axes, {"a": ANSWERED, "b": HALF}, lambda each: each.tpot_s)
    assert [line.get_label() for line in axes.lines] == ["a", "b"]
