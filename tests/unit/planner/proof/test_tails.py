"""Tails by class: the same arrivals, objectives of each class, the least instances."""

import math
import pickle

import numpy as np
import pytest

from extproc.planner.proof import tails
from extproc.planner.proof.tails import ClassFigures, Contest, Shape, smallest, study
from extproc.planner.sizing.question import Objectives
from extproc.planner.traffic.lengths import poisson, weighted
from tests.support.planning_cases import A100, ask

MIXED = weighted("mixed", np.array([300, 30_000]), np.array([50, 50]), np.array([0.9, 0.1]))
GOALS = Objectives(ttft_p99_s=0.5, tpot_p99_s=0.2), Objectives(ttft_p99_s=20, tpot_p99_s=0.2)


def question(**changes):
    goals = {"objectives": GOALS[0], "long_objectives": GOALS[1], "rate_per_s": 10.0}
    return ask(MIXED, **(goals | changes))


@pytest.mark.parametrize(
    ("ttft", "tpot", "holds"),
    [(0.5, 0.2, True), (0.6, 0.2, False), (0.5, 0.3, False), (math.nan, math.nan, True)],
)
def test_a_class_holds_its_objectives_if_both_percentiles_do(ttft, tpot, holds):
    assert ClassFigures(0.1, ttft, 0.1, tpot).hold(GOALS[0]) is holds


@pytest.mark.parametrize("start", [(1, 1), (3, 5), (9, 20)])
def test_the_smallest_counts_are_found_from_any_start(start):
    def held(counts):
        return counts[0] >= 3, counts[1] >= 4

    assert smallest(held, start, (20, 20)) == (3, 4)


def test_counts_out_of_reach_are_none():
    assert smallest(lambda counts: (counts[0] >= 9,), (2,), (8,)) is None


def test_a_pool_that_needs_what_the_other_lost_gets_it_back():
    assert smallest(lambda n: (n[0] >= 2, n[1] + n[0] // 3 >= 3), (4, 4), (9, 9)) == (2, 3)


def test_pools_that_only_hold_together_may_be_out_of_reach():
    assert smallest(lambda n: (n[0] >= 2, n[0] >= 3 or n[1] >= 99), (3, 3), (9, 9)) is None


def test_the_classes_are_those_of_the_true_lengths():
    shape = Shape(
        name="all",
        profile=A100,
        max_model_len=65_536,
        max_num_seqs=64,
        threshold=65_536,
        max_num_batched_tokens=2048,
    )
    row = Contest(poisson(MIXED, 2, 200, 0), 8192, GOALS).run("one", [shape], [4])
    assert row.long.ttft_p50_s > 10 * row.short.ttft_p50_s
    assert (row.gpus, row.usd_per_h) == (32, pytest.approx(32 * 2.21))


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tails, "SHARES", (0.05,))
        return study(question(), 8192, 400)


def test_one_pool_and_the_split_get_as_many_gpus(found):
    assert len({row.gpus for row in found.equal}) == 1
    assert [len(row.shapes) for row in found.equal] == [1, 1, 1, 2]
    assert found.equal[-2].shapes[0].long_prefill_token_threshold in tails.CHUNKS


def test_short_requests_do_not_wait_for_long_ones_whose_prefill_is_limited(found):
    one, *_, chunked, _ = found.equal
    assert chunked.short.ttft_p99_s < one.short.ttft_p99_s / 2


def test_a_pool_is_too_small_if_most_of_the_late_requests_of_a_class_are_its():
    shapes = [
        Shape(
            name=name,
            profile=A100,
            max_model_len=window,
            max_num_seqs=64,
            threshold=window,
            max_num_batched_tokens=2048,
        )
        for name, window in (("short", 8192), ("long", 65_536))
    ]
    strict = Objectives(ttft_p99_s=0.001)
    for goals, good in (((GOALS[0], strict), (True, False)), ((strict, GOALS[1]), (False, True))):
        contest = Contest(poisson(MIXED, 2, 200, 0), 8192, goals)
        assert contest._suffices(contest._simulate(shapes, [4, 4])) == good


def test_a_contest_is_sent_without_its_arrivals():
    contest = Contest(poisson(MIXED, 2, 200, 0), 8192, GOALS)
    before = len(pickle.dumps(contest))
    assert len(contest._arrivals) == 200
    assert len(pickle.dumps(contest)) == before


def test_the_least_fleets_hold_both_classes(found):
    for row in found.least:
        assert row.short.hold(GOALS[0])
        assert row.long.hold(GOALS[1])
    assert found.least_of(2) in found.least
    assert found.least_of(3) is None


def test_a_split_keeps_short_requests_from_waiting_behind_long_ones(found):
    one, split = found.equal[0], found.equal[-1]
    assert split.short.ttft_p99_s < one.short.ttft_p99_s


def test_the_curve_has_a_point_for_each_share(found):
    assert [point.share for point in found.curve] == [0.05]
    assert found.share == pytest.approx(0.1)


def test_without_objectives_of_its_own_the_long_class_has_the_same():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tails, "SHARES", ())
        done = study(question(long_objectives=None), 8192, 200)
    assert done.goals == (GOALS[0], GOALS[0])
