"""What clients saw of simulated requests."""

import math
from dataclasses import replace

import numpy as np
import pytest

from extproc.planner.simulation.fleet import FleetSpec
from extproc.planner.simulation.records import Fate, Records
from tests.support.small_fleets import TWO

SHORT, LONG = TWO.pools


def records(fleet: FleetSpec = TWO, **columns: list[float]) -> Records:
    """Two answers of 5 and 1 tokens, by default, and a request that never got one."""
    values = {
        "at_s": [0.0, 1.0, 2.0],
        "admitted_s": [0.1, 1.1, math.inf],
        "first_s": [0.5, 1.2, math.inf],
        "end_s": [2.5, 1.2, math.inf],
        "prompt": [10, 20, 30],
        "needed": [15, 21, 35],
        "tokens": [5, 1, 0],
        "reused": [0, 4, 0],
        "pool": [0, 1, 1],
        "chosen": [0, 0, 1],
        "fate": [Fate.COMPLETED, Fate.FAILED_OVER, Fate.UNFINISHED],
        "preemptions": [2, 0, 0],
    } | columns
    return Records(fleet=fleet, **{name: np.array(column) for name, column in values.items()})


def test_there_are_as_many_records_as_arrivals():
    assert len(records()) == 3


def test_the_first_token_is_timed_from_the_arrival():
    assert records().ttft_s.tolist() == pytest.approx([0.5, 0.2, math.inf])


def test_each_pool_adds_its_own_overhead_to_the_first_token():
    fleet = FleetSpec((replace(SHORT, overhead_s=0.3), replace(LONG, overhead_s=1.0)))
    assert records(fleet).ttft_s.tolist() == pytest.approx([0.8, 1.2, math.inf])


def test_later_tokens_are_timed_from_the_first():
    assert records().tpot_s[0] == pytest.approx(2.0 / 4)


def test_an_answer_of_one_token_has_no_time_per_token():
    assert math.isnan(records().tpot_s[1])


def test_what_was_not_answered_never_has_a_next_token():
    assert records().tpot_s[2] == math.inf


def test_overhead_does_not_change_the_time_per_token():
    slow = FleetSpec((replace(SHORT, overhead_s=9.0), LONG))
    assert records(slow).tpot_s[0] == records().tpot_s[0]


def test_timings_name_the_pool_that_answered_and_the_fate():
    timings = records().timings()
    assert [timing.pool for timing in timings] == ["short", "long", "long"]
    assert [timing.fate for timing in timings] == [
        Fate.COMPLETED,
        Fate.FAILED_OVER,
        Fate.UNFINISHED,
    ]


def test_timings_have_0_for_the_time_per_token_of_one_token():
    assert [timing.tpot_s for timing in records().timings()] == pytest.approx([0.5, 0.0, math.inf])


def test_timings_count_tokens_and_preemptions():
    first, second, third = records().timings()
    assert (first.output_tokens, second.output_tokens, third.output_tokens) == (5, 1, 0)
    assert (first.preemptions, second.preemptions) == (2, 0)


def test_every_fate_is_told_apart():
    assert [fate.name for fate in Fate] == [
        "UNFINISHED",
        "COMPLETED",
        "FAILED_OVER",
        "CLAMPED",
        "REJECTED",
    ]
