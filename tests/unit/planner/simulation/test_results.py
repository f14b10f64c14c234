"""What a run comes to."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.planner.simulation.records import Records
from extproc.planner.simulation.results import (
    Interval,
    interval,
    percentile,
    student,
    summarise,
    warmup,
)
from extproc.planner.simulation.rules import RuleName, make_rule
from extproc.planner.simulation.run import Conduct, simulate
from tests.support.small_fleets import TWO, incoming


def records(
    rows: list[tuple[float, int, int]], name: RuleName = RuleName.ORACLE, max_tokens: int = 0
) -> Records:
    return simulate(TWO, incoming(rows, max_tokens), make_rule(name, TWO, 0), Conduct())


def test_a_percentile_is_one_of_the_values():
    assert percentile(np.array([1.0, 2.0, 3.0, 4.0]), 50) == 2.0
    assert percentile(np.array([1.0, math.inf]), 99) == math.inf
    assert math.isnan(percentile(np.array([math.nan]), 50))


def test_what_was_rejected_counts_as_infinite():
    mixed = records([(0.1, 10, 5)] * 9 + [(0.1, 300, 5)])
    fleet = summarise(mixed, 0).fleet
    assert (fleet.rejected, fleet.ttft_p99_s) == (0.1, math.inf)
    assert fleet.ttft_p50_s < 1


def test_pools_add_up_to_the_fleet():
    result = summarise(records([(0.1, 10, 5), (0.1, 200, 5)] * 20), 0)
    assert sum(pool.requests for pool in result.pools) == result.fleet.requests == 40
    total = sum(pool.throughput for pool in result.pools)
    assert total == pytest.approx(result.fleet.throughput)


def test_arrivals_of_the_warm_up_are_left_out():
    result = summarise(records([(1, 10, 5)] * 20), 9.5)
    assert (result.fleet.requests, result.span_s) == (10, 19)


def test_the_warm_up_is_twice_an_answer_a_tenth_to_half_of_the_span():
    assert warmup(records([(1, 10, 5)] * 21)) == 2.0
    assert warmup(records([(0.001, 10, 50)] * 21)) == pytest.approx(0.01)


def test_a_warm_up_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="leaves out every arrival"):
        summarise(records([(1, 10, 5)] * 3), 60)


def test_misroutes_are_judged_as_in_service():
    # The stated limit is what a pool promises, though the answer takes less of it.
    input_alone = records([(1, 10, 5)] * 10, RuleName.INPUT_LENGTH, max_tokens=60)
    assert summarise(input_alone, 0).fleet.misrouted == 1.0
    oracle = records([(1, 10, 5)] * 10)
    assert summarise(oracle, 0).fleet.misrouted == 0.0


@given(st.lists(st.tuples(st.just(0.05), st.integers(1, 250), st.integers(1, 90)), min_size=2))
def test_shares_and_utilisation_lie_between_0_and_1(rows):
    fleet = summarise(records(rows, RuleName.RANDOM), 0).fleet
    fates = (fleet.failed_over, fleet.clamped, fleet.rejected, fleet.unfinished)
    for share in (*fates, fleet.misrouted, fleet.over_routed, sum(fates)):
        assert 0 <= share <= 1
    assert fleet.utilisation >= 0


@pytest.mark.parametrize(("freedom", "t"), [(1, 12.706), (9, 2.262), (10, 2.228), (30, 2.042)])
def test_student_s_t_is_that_of_the_tables(freedom, t):
    assert student(freedom) == pytest.approx(t, abs=0.0015)


def test_an_interval_is_that_of_student():
    found = interval([1.0, 2.0, 3.0])
    assert (found.mean, found.half) == (2.0, pytest.approx(4.303 / math.sqrt(3)))


def test_one_seed_has_no_interval():
    assert interval([1.0]) == Interval(1.0, math.inf)
    assert interval([1.0, math.inf]).mean == math.inf
