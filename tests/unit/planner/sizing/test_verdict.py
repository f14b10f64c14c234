"""Each reason why a split pays, or does not, has its sentence."""

from dataclasses import replace

import pytest

from extproc.planner.sizing.plans import Plan
from extproc.planner.sizing.verdict import judge
from tests.support.planning_cases import ALONE_PLAN, LONG_PLAN, SHORT_PLAN, SPLIT_PLAN


def split(short: dict | None = None, long: dict | None = None, **change) -> Plan:
    pools = replace(SHORT_PLAN, **short or {}), replace(LONG_PLAN, **long or {})
    return replace(SPLIT_PLAN, pools=pools, **change)


NEARLY = split({"gpus": 72}, {"gpus": 240})  # saves 8 of 320 GPUs


def test_one_pool_has_no_verdict():
    assert judge(ALONE_PLAN, None) == ""


def test_a_split_that_saves_says_how_much():
    assert judge(SPLIT_PLAN, None) == "Splitting saves 168 of 320 GPUs (52.5%)."


@pytest.mark.parametrize("gpus", [248, 400])
def test_a_split_that_saves_nothing_does_not_pay(gpus):
    text = judge(split(long={"gpus": gpus}), None)
    assert text.startswith(f"Splitting does not pay: {72 + gpus} GPUs against 320.")


def test_a_split_alone_may_meet_the_objectives():
    alone = replace(ALONE_PLAN, pools=(replace(ALONE_PLAN.pools[0], meets=False),))
    text = judge(replace(SPLIT_PLAN, against=alone), None)
    assert text.startswith("Only the split fleet meets the objectives, with 152 GPUs.")


def test_pools_that_miss_the_objectives_are_named():
    text = judge(split({"meets": False}, {"meets": False}), None)
    assert "Pool short and long misses the objectives: no number of GPUs changes that." in text


def test_requests_over_every_window_are_mentioned():
    text = judge(replace(SPLIT_PLAN, over_window=0.0123), None)
    assert "1.230% of the requests exceed every window and are left out." in text


def test_a_good_saving_needs_no_reasons():
    assert judge(split({"max_num_seqs": 1, "share": 0.01}), None).count(".") == 2


@pytest.mark.parametrize(
    ("short", "sentence"),
    [
        ({"max_num_seqs": 16}, "runs no more sequences per instance (16) than one pool does (16)"),
        ({"mu_per_instance": 2.8}, "serves hardly more requests per second."),
        ({"mu_per_instance": 2.95}, "the long pool loses what the short pool gains."),
        ({"share": 0.03}, "Only 3.0% of the requests fit the short pool."),
    ],
)
def test_a_small_saving_is_explained(short, sentence):
    plan = replace(NEARLY, pools=(replace(NEARLY.pools[0], **short), NEARLY.pools[1]))
    assert sentence in judge(plan, None)


def test_a_small_load_rounds_up_in_each_pool():
    text = judge(replace(NEARLY, rate_per_s=5), None)
    assert "The load needs 1.8 instances: each pool rounds up to whole ones." in text


def test_a_large_load_does_not():
    assert "rounds up" not in judge(NEARLY, None)


REPACKED = replace(ALONE_PLAN, pools=(replace(ALONE_PLAN.pools[0], max_num_seqs=227, gpus=88),))


def test_one_pool_by_actual_lengths_is_the_fair_comparison():
    text = judge(SPLIT_PLAN, REPACKED)
    assert "One pool with max_num_seqs 227" in text
    assert "needs 88 GPUs" in text


@pytest.mark.parametrize(
    "change", [{"meets": False}, {"gpus": 160}], ids=["misses", "more than 5 % dearer"]
)
def test_it_is_not_mentioned_if_it_is_no_alternative(change):
    repacked = replace(REPACKED, pools=(replace(REPACKED.pools[0], **change),))
    assert "One pool with" not in judge(SPLIT_PLAN, repacked)
