"""Each reason why a split pays, or does not, has its sentence."""

from dataclasses import replace

import pytest

from extproc.planner.sizing import verdict
from extproc.planner.sizing.plans import Plan
from extproc.planner.sizing.question import Objectives
from tests.support.planning_cases import (
    A100,
    ALONE_PLAN,
    LMSYS_LENGTHS,
    LONG_PLAN,
    SHORT_PLAN,
    SPLIT_PLAN,
    ask,
)

FAILS = {"meets": False, "ttft_p99_s": 14.71}


STARTED = replace(ALONE_PLAN, pools=(replace(ALONE_PLAN.pools[0], max_num_seqs=250),))


def judge(plan: Plan, as_started: Plan = STARTED, **question) -> str:
    return verdict.judge(plan, ask(**question), as_started)


def split(short: dict | None = None, long: dict | None = None, **change) -> Plan:
    pools = replace(SHORT_PLAN, **short or {}), replace(LONG_PLAN, **long or {})
    return replace(SPLIT_PLAN, pools=pools, **change)


def alone(**change) -> Plan:
    return replace(ALONE_PLAN, pools=(replace(ALONE_PLAN.pools[0], **change),))


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


@pytest.mark.parametrize(
    ("seqs", "words"),
    [(256, "(vLLM's default)"), (250, "(vLLM's default; the KV cache holds 250)")],
)
def test_one_pool_as_servers_start_needs_no_setting(seqs, words):
    started = alone(max_num_seqs=seqs)
    text = judge(split(long={"gpus": 400}, against=started), started)
    assert text.startswith(f"Do not split: max_num_seqs 256 {words} will do. One pool holds")


def test_a_measured_server_has_its_own_number_of_sequences():
    profile = replace(A100, max_num_seqs=128, measured_sequences=128)
    started = alone(max_num_seqs=128)
    text = judge(split(long={"gpus": 400}, against=started), started, profile=profile)
    assert text.startswith("Do not split: max_num_seqs 128 (as measured) will do.")


def test_what_was_not_measured_is_marked():
    text = judge(split(long={"gpus": 400}), profile=replace(A100, measured_sequences=8))
    assert text.startswith("Do not split: set --max-num-seqs 16 (extrapolated: 8 were measured).")


@pytest.mark.parametrize("against", [ALONE_PLAN, alone(meets=False)])
@pytest.mark.parametrize("gpus", [80, 400])
def test_no_cost_is_said_without_a_price(gpus, against):
    against = replace(against, price_per_gpu_h=0.0)
    assert "$" not in judge(split(long={"gpus": gpus}, against=against, price_per_gpu_h=0.0))


def test_a_split_alone_may_meet_the_objectives():
    text = judge(replace(SPLIT_PLAN, against=alone(meets=False)))
    assert "only the split fleet holds the objectives, with 152 GPUs" in text
    assert "What would change that" not in text


@pytest.mark.parametrize(
    ("pools", "says"),
    [
        (
            {"short": FAILS},
            "Pool short misses the objectives at any size: P99 TTFT 14.7 s against 2 s.",
        ),
        (
            {"short": FAILS, "long": {"meets": False, "tpot_p99_s": 0.1, "utilisation": 0.9}},
            "P99 TTFT 14.7 s against 2 s. Pool long misses the objectives at any size: P99 TPOT "
            "0.1 s against 0.08 s, load 90.0% against 85.0%.",
        ),
        ({"long": {"meets": False, "ttft_p99_s": 1234.5}}, "P99 TTFT 1234 s against 2 s."),
    ],
)
def test_a_split_that_fails_announces_no_saving(pools, says):
    text = judge(split(**pools))
    assert text.startswith("Do not split: ")
    assert "no split holds them." in text
    assert says in text
    assert "less" not in text


def test_a_pool_above_the_smallest_has_its_own_objectives():
    text = judge(split(long=FAILS), long_objectives=Objectives(ttft_p99_s=10))
    assert "Pool long misses the objectives at any size: P99 TTFT 14.7 s against 10 s." in text


def test_where_no_fleet_holds_ways_out_are_named():
    text = judge(split(FAILS, against=alone(meets=False)))
    assert "Ways out: other objectives, for long requests alone by --slo-long-ttft-ms" in text
    assert "--tails" in text
    assert "--long-prefill-token-threshold" in text
    assert text.startswith("No fleet holds the objectives, split (152 GPUs) or not (320 GPUs)")
    assert "What would change that" not in text


def test_one_gpu_is_no_plural():
    assert "with 1 GPU, $" in judge(replace(SPLIT_PLAN, against=alone(gpus=1)))


def test_requests_over_every_window_are_mentioned():
    text = judge(replace(SPLIT_PLAN, over_window=0.0123))
    assert (
        "1.230% of the requests exceed every window and are left out: a largest window of "
        f"{LMSYS_LENGTHS.total.max():.0f} tokens holds all (--window)." in text
    )


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


def test_a_pool_that_the_ttft_sizes_is_no_matter_of_throughput_or_of_rounding():
    pools = replace(NEARLY.pools[0], mu_per_instance=2.95), replace(LONG_PLAN, utilisation=0.05)
    text = judge(replace(NEARLY, pools=(pools[0], replace(pools[1], gpus=240)), rate_per_s=5))
    assert "P99 TTFT objective decides the size of pool long: 10 instances, loaded 5%." in text
    assert "rounds up" not in text
    assert "By throughput alone" not in text


def test_a_load_that_rounds_to_none_is_not_called_0():
    text = judge(replace(NEARLY, rate_per_s=0.1))
    assert "The load needs less than 0.1 instances" in text


def test_a_large_load_does_not():
    assert "rounds up" not in judge(NEARLY)
