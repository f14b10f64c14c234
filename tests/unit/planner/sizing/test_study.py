"""All answers to a question at once."""

import pytest

from extproc.planner.sizing.question import Objectives, SlotRule
from extproc.planner.sizing.study import examine
from tests.support.planning_cases import LONG_PROMPTS, ask


def test_a_study_has_a_plan_for_each_number_of_pools():
    done = examine(ask(), max_pools=3)
    assert [len(plan.pools) for plan in done.splits] == [2, 3]
    assert done.plan.gpus == min(plan.gpus for plan in (done.one_pool, *done.splits))


def test_a_given_threshold_is_kept_even_where_it_does_not_pay():
    done = examine(ask(rate_per_s=2), thresholds=(8192,))
    assert done.plan.thresholds == done.split.thresholds == (8192,)
    assert done.plan.gpus > done.one_pool.gpus


def test_one_pool_alone_has_no_curve():
    done = examine(ask(), max_pools=1)
    assert done.split == done.plan
    assert done.curve == done.drift == done.errors == ()


def test_the_best_split_is_studied_even_where_one_pool_is_bought():
    done = examine(ask(rate_per_s=2))
    assert done.plan.thresholds == ()
    assert len(done.split.pools) == 2


@pytest.mark.parametrize("rate", [2, 200])
def test_the_plan_is_never_worse_than_one_pool(rate):
    done = examine(ask(rate_per_s=rate))
    assert done.plan.gpus <= done.one_pool.gpus


def test_without_a_cap_on_the_load_no_more_gpus_are_needed():
    done = examine(ask())
    assert done.uncapped.meets
    assert done.uncapped.gpus < done.plan.gpus
    assert done.uncapped.pools[0].utilisation > done.question.objectives.utilisation


@pytest.mark.parametrize("thresholds", [(), (4096,)])
def test_a_looser_ttft_above_the_smallest_pool_needs_fewer_gpus(thresholds):
    done = examine(
        ask(LONG_PROMPTS, 20, objectives=Objectives(ttft_p99_s=0.5)), thresholds=thresholds
    )
    assert done.plan.meets
    assert done.looser.meets
    assert done.looser.thresholds == done.plan.thresholds
    assert done.looser.gpus < done.plan.gpus


def test_where_the_load_decides_a_looser_ttft_changes_nothing():
    done = examine(ask())
    assert done.looser == done.plan


def test_the_rivals_are_vllms_default_the_lengths_and_the_papers():
    done = examine(ask())
    plans = (done.by_default, done.by_lengths, done.by_window)
    assert [plan.pools[0].max_num_seqs for plan in plans] == [252, 227, 16]
    assert done.one_pool.gpus < done.by_window.gpus


def test_every_split_is_compared_with_the_best_of_one_pool():
    done = examine(ask(slot_rule=SlotRule.WINDOW))
    assert {plan.against for plan in (*done.splits, *done.curve)} == {done.one_pool}
