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
    assert judge(ALONE_PLAN) == ""


def test_a_split_that_saves_says_where_and_how_much():
    assert judge(SPLIT_PLAN) == (
        "Split at 8192: 152 GPUs, $30,400 a year, where one pool with max_num_seqs 16 takes 320: "
        "52.5% less."
    )


@pytest.mark.parametrize("gpus", [248, 400])
def test_a_split_that_saves_nothing_is_advised_against(gpus):
    text = judge(split(long={"gpus": gpus}))
    assert text.startswith("Do not split: set --max-num-seqs 16. One pool holds the objectives")
    assert f"the best split takes {72 + gpus}." in text
    assert "What would change that: cheaper GPUs for the short requests" in text


def alone(**change) -> Plan:
    return replace(ALONE_PLAN, pools=(replace(ALONE_PLAN.pools[0], **change),))


def test_a_split_alone_may_meet_the_objectives():
    text = judge(replace(SPLIT_PLAN, against=alone(meets=False)))
    assert "only the split fleet holds the objectives, with 152 GPUs" in text
    assert "What would change that" not in text


@pytest.mark.parametrize(
    ("pools", "says"),
    [
        ({"short": {"meets": False}}, "Pool short misses the objectives at any size."),
        (
            {"short": {"meets": False}, "long": {"meets": False}},
            "Pools short and long miss the objectives at any size.",
        ),
    ],
)
def test_a_split_that_fails_announces_no_saving(pools, says):
    text = judge(split(**pools))
    assert text.startswith("Do not split: ")
    assert "no split holds them." in text
    assert says in text
    assert "less" not in text


def test_where_no_fleet_holds_nothing_is_advised():
    text = judge(split({"meets": False}, against=alone(meets=False)))
    assert text.startswith("No fleet holds the objectives, split (152 GPUs) or not (320 GPUs)")
    assert "What would change that" not in text


def test_requests_over_every_window_are_mentioned():
    text = judge(replace(SPLIT_PLAN, over_window=0.0123))
    assert "1.230% of the requests exceed every window and are left out." in text


def test_a_good_saving_needs_no_reasons():
    plan = split({"max_num_seqs": 1, "share": 0.01})
    assert judge(plan) == judge(SPLIT_PLAN)


@pytest.mark.parametrize(
    ("short", "sentence"),
    [
        ({"max_num_seqs": 16}, "runs no more sequences per instance (16) than one pool does (16)"),
        ({"mu_per_instance": 2.8}, "serves hardly more requests per second."),
        ({"mu_per_instance": 2.95}, "the long pool loses what the short pool gains."),
        ({"sent": 0.03}, "Only 3.0% of the requests fit the short pool."),
    ],
)
def test_a_small_saving_is_explained(short, sentence):
    plan = replace(NEARLY, pools=(replace(NEARLY.pools[0], **short), NEARLY.pools[1]))
    assert sentence in judge(plan)


def test_a_small_load_rounds_up_in_each_pool():
    text = judge(replace(NEARLY, rate_per_s=5))
    assert "The load needs 1.8 instances: each pool rounds up to whole ones." in text


def test_a_large_load_does_not():
    assert "rounds up" not in judge(NEARLY)
