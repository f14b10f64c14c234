"""The arithmetic of a plan."""

from dataclasses import replace

import pytest

from extproc.planner.sizing.plans import count_gpus
from tests.support.planning_cases import ALONE_PLAN, LONG_PLAN, SHORT_PLAN, SPLIT_PLAN


def test_instances_and_gpus_are_those_of_all_pools():
    assert (SPLIT_PLAN.instances, SPLIT_PLAN.gpus) == (19, 152)


def test_a_year_costs_its_hours():
    assert SPLIT_PLAN.usd_per_year == 152 * 2.0 * 100


def test_the_saving_is_a_share_of_the_homogeneous_gpus():
    assert SPLIT_PLAN.saving == pytest.approx(1 - 152 / 320)


def test_a_split_that_needs_more_gpus_has_a_negative_saving():
    dear = replace(SPLIT_PLAN, pools=(replace(SHORT_PLAN, gpus=400), LONG_PLAN))
    assert dear.saving == pytest.approx(1 - 480 / 320)


def test_the_homogeneous_fleet_saves_nothing():
    assert ALONE_PLAN.saving == 0.0


def test_a_plan_meets_the_objectives_if_every_pool_does():
    assert SPLIT_PLAN.meets
    broken = replace(SPLIT_PLAN, pools=(SHORT_PLAN, replace(LONG_PLAN, meets=False)))
    assert (broken.meets, broken.failing) == (False, 1)


def test_the_largest_pool_has_no_threshold_of_its_own():
    assert SPLIT_PLAN.thresholds == (8192,)
    assert ALONE_PLAN.thresholds == ()


@pytest.mark.parametrize(
    ("utilisation", "instances", "beyond"),
    [(0.05, 25, True), (0.84, 25, False), (0.425, 2, True), (0.43, 2, False), (0.01, 1, False)],
)
def test_a_pool_is_beyond_its_load_if_one_instance_fewer_could_carry_it(
    utilisation, instances, beyond
):
    pool = replace(LONG_PLAN, utilisation=utilisation, instances=instances)
    assert pool.beyond_load(0.85) is beyond


@pytest.mark.parametrize(("number", "text"), [(1, "1 GPU"), (2, "2 GPUs")])
def test_gpus_are_counted_in_words(number, text):
    assert count_gpus(number) == text


def test_the_closed_form_divides_each_pools_load_by_its_rate():
    assert SPLIT_PLAN.closed_form == 8 + 8  # 80 / 11.2 and 20 / 2.8, rounded up
    assert ALONE_PLAN.closed_form == 36


def test_a_plan_has_no_verdict_until_it_is_judged():
    assert SPLIT_PLAN.verdict == ALONE_PLAN.verdict == ""
