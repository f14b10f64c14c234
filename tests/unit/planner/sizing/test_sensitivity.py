"""What a plan stands: drift, and estimators that err."""

from dataclasses import replace

import pytest

from extproc.planner.sizing.estimators import CALIBRATED
from extproc.planner.sizing.question import Objectives
from extproc.planner.sizing.search import Planner
from extproc.planner.sizing.sensitivity import capacities, drift, misjudged, shifted
from tests.support.planning_cases import LMSYS_LENGTHS, ask

QUESTION = ask()
PLAN = Planner(QUESTION).at((4096,))


def test_a_shift_changes_the_share_by_as_much():
    alpha = LMSYS_LENGTHS.share_within(4096)
    assert shifted(LMSYS_LENGTHS, 4096, -0.05).share_within(4096) == pytest.approx(alpha - 0.05)


def test_longer_requests_overload_the_long_pool_as_it_was_bought():
    change = next(change for change in drift(QUESTION, PLAN) if change.name == "-5%")
    assert change.held.pools[1].utilisation > 1
    assert not change.held.meets
    assert change.resized.gpus > PLAN.gpus


def test_shifts_that_leave_nothing_on_one_side_are_left_out():
    assert [change.name for change in drift(QUESTION, PLAN, (-0.99, -0.5, 0.5))] == ["-50%"]


def test_the_better_the_estimator_the_fewer_gpus():
    gpus = {change.name: change.resized.gpus for change in misjudged(QUESTION, PLAN)}
    assert PLAN.gpus == gpus["perfect"] <= gpus["calibrated"] < gpus["paper"]


def test_what_holds_is_not_bought_again():
    # With a perfect estimator the long pool's own max_num_seqs would ask for one instance more.
    question = ask(estimator=CALIBRATED, objectives=Objectives(ttft_p99_s=0.5))
    plan = Planner(question).at((320,))
    perfect, *_ = misjudged(question, plan)
    assert perfect.held.meets
    assert perfect.resized.gpus <= plan.gpus


def test_a_tenth_less_capacity_needs_more_gpus():
    plan = Planner(QUESTION).one_pool
    assert plan.pools[0].utilisation < 0.8
    assert capacities(QUESTION, plan) == ()
    full = Planner(QUESTION).under(replace(plan, pools=(replace(plan.pools[0], instances=10),)))
    less, more = capacities(QUESTION, full)
    assert (less.name, more.name) == ("-10%", "+10%")
    assert less.held.pools[0].utilisation == pytest.approx(full.pools[0].utilisation / 0.9)
    assert less.resized.gpus > more.resized.gpus


def test_one_pool_has_nothing_to_drift_or_misjudge():
    alone = Planner(QUESTION).homogeneous()
    assert drift(QUESTION, alone) == misjudged(QUESTION, alone) == ()
