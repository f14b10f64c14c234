"""How near a simulated fleet is to its capacity."""

import math

import pytest

from extproc.planner.proof.capacity import load_of, with_capacity
from extproc.planner.simulation.rules import RuleName, make_rule
from extproc.planner.simulation.run import Conduct, simulate
from tests.support.small_fleets import TWO, incoming


def load(gap_s: float, times: float = 1.0) -> float:
    fleet = with_capacity(TWO, times)
    rule = make_rule(RuleName.ORACLE, fleet, 0)
    return load_of(simulate(fleet, incoming([(gap_s, 20, 20)] * 400), rule, Conduct()))


def test_the_load_is_in_proportion_to_the_rate():
    assert load(0.05) == pytest.approx(2 * load(0.1))


def test_it_is_in_inverse_proportion_to_the_capacity():
    assert load(0.05, 0.9) == pytest.approx(load(0.05) / 0.9)


def test_requests_that_arrive_at_once_are_an_infinite_load():
    assert math.isinf(load(0.0))


def test_requests_without_an_answer_are_no_load():
    fleet = TWO
    rule = make_rule(RuleName.ORACLE, fleet, 0)
    refused = simulate(fleet, incoming([(1.0, 300, 20)] * 5), rule, Conduct())
    assert load_of(refused) == 0
