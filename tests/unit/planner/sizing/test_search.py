"""Plans: how many, where split, at what price, and why not."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.planner.sizing.estimators import CALIBRATED, measured
from extproc.planner.sizing.question import Objectives, PlanError, SlotRule
from extproc.planner.sizing.search import Planner, plan
from extproc.planner.traffic.lengths import equally_weighted, merged
from tests.support.planning_cases import A100, AZURE_LENGTHS, LMSYS_LENGTHS, ask


def same(prompt, output):
    return equally_weighted(
        "same", np.array([prompt], dtype=np.int64), np.array([output], dtype=np.int64)
    )


def verdict(question, threshold):
    planner = Planner(question)
    return planner.judged(planner.at((threshold,))).verdict


def test_the_best_plan_is_that_of_the_cheapest_threshold():
    planner = Planner(ask())
    cheapest = min(each.gpus for each in planner.curve() if each.meets)
    assert planner.best_of(2).gpus == cheapest


def test_three_pools_are_the_cheapest_of_all_pairs_of_thresholds():
    planner = Planner(ask(rate_per_s=2000))
    some = planner.candidates[8::8]
    plans = [planner.at(pair) for pair in combinations(some, 2)]
    assert planner.best_of(3).gpus <= min(each.gpus for each in plans if each.meets)


def test_more_pools_are_taken_only_if_they_save():
    planner = Planner(ask())
    by_count = [planner.best_of(count).gpus for count in (1, 2, 3)]
    assert planner.best(3).gpus == min(by_count)
    assert len(planner.best(3).pools) == 1 + by_count.index(min(by_count))


def test_the_slots_are_what_the_kv_cache_holds_at_full_length():
    short, long = Planner(ask(slot_rule=SlotRule.WINDOW)).at((8192,)).pools
    assert (short.max_num_seqs, long.max_num_seqs) == (128, 16)
    assert (short.max_model_len, long.max_model_len) == (8192, 65_536)


def test_each_pool_has_its_own_rate():
    planner = Planner(ask())
    short, long = planner.at((8192,)).pools
    assert long.mu_per_instance < planner.homogeneous().pools[0].mu_per_instance
    assert short.mu_per_instance > 10 * long.mu_per_instance


def test_a_tight_tpot_objective_takes_slots_away():
    strict = Planner(ask(objectives=Objectives(tpot_p99_s=0.02))).at((4096,)).pools[0]
    assert strict.max_num_seqs < 256
    assert strict.tpot_p99_s <= 0.02
    assert strict.meets


def test_the_shares_are_those_of_the_workload():
    short, long = Planner(ask()).at((8192,)).pools
    assert short.share == pytest.approx(LMSYS_LENGTHS.share_within(8192))
    assert short.share + long.share == pytest.approx(1)


def test_an_estimator_that_errs_loads_both_pools():
    exact = Planner(ask()).at((8192,)).pools
    errs = Planner(ask(estimator=measured(0.01, 0.02))).at((8192,)).pools
    assert errs[0].share == pytest.approx(min(1, exact[0].share + 0.01))
    assert errs[1].share == pytest.approx(exact[1].share + 0.02)


@pytest.mark.parametrize("thresholds", [(), (320,), (768, 8192)])
def test_each_request_is_sent_to_one_pool(thresholds):
    pools = Planner(ask(estimator=CALIBRATED)).at(thresholds).pools
    assert sum(pool.sent for pool in pools) == pytest.approx(1)


def test_over_routed_requests_are_sent_to_the_larger_pool_and_misrouted_ones_to_the_smaller():
    exact = Planner(ask()).at((8192,)).pools
    errs = Planner(ask(estimator=measured(0.01, 0.03))).at((8192,)).pools
    assert errs[0].sent == pytest.approx(exact[0].sent - 0.02)


def test_the_utilisation_stays_below_its_cap():
    plans = Planner(ask(rate_per_s=3000, objectives=Objectives(utilisation=0.7))).curve()
    assert max(pool.utilisation for each in plans for pool in each.pools) <= 0.7 + 1e-9


def test_dollars_are_gpus_times_price_times_hours():
    made = plan(ask(hours_per_year=8640))
    assert made.usd_per_year == pytest.approx(made.gpus * 2.21 * 8640)


def test_the_closed_form_needs_fewer_instances():
    made = Planner(ask(rate_per_s=1000)).at((8192,))
    assert made.closed_form < made.instances


def test_a_small_load_is_not_worth_two_pools_and_says_so():
    made = plan(ask(rate_per_s=2))
    assert len(made.pools) == 1
    assert made.verdict.startswith("Do not split: max_num_seqs 256 (vLLM's default; ")
    assert "each pool rounds up" in made.verdict


def test_one_length_is_not_worth_two_pools_and_says_so():
    assert "Only 0.0% of the requests fit the short pool." in verdict(
        ask(same(40_000, 1000), rate_per_s=20), 8192
    )


def test_a_split_that_only_saves_reserved_memory_is_advised_against():
    planner = Planner(ask(AZURE_LENGTHS, rate_per_s=1000, slot_rule=SlotRule.WINDOW))
    assert planner.best_of(2).saving > 0.5  # against the papers' rival
    made = planner.best(2)
    assert made == replace(planner.one_pool, verdict=made.verdict)
    assert made.verdict.startswith("Do not split")


def test_one_pool_is_the_better_of_vllms_default_and_the_actual_lengths():
    planner = Planner(ask(objectives=Objectives(tpot_p99_s=0.03)))
    rivals = planner.as_started, planner.packed(SlotRule.OCCUPANCY)
    assert planner.one_pool.gpus == min(plan.gpus for plan in rivals if plan.meets)
    assert all(plan.meets for plan in rivals)


def test_vllms_default_cannot_hold_a_time_per_token_below_that_of_the_weights():
    planner = Planner(ask(objectives=Objectives(tpot_p99_s=0.005)))
    assert not planner.as_started.meets


def test_slots_by_occupancy_leave_a_split_little_to_save():
    made = plan(ask(AZURE_LENGTHS, rate_per_s=1000, slot_rule=SlotRule.OCCUPANCY))
    assert made.saving < 0.05
    assert made.verdict


def test_an_objective_that_no_fleet_holds_is_not_held():
    question = ask(objectives=Objectives(ttft_p99_s=0.01))
    assert not Planner(question).at((8192,)).meets
    assert "no number of GPUs changes that" in verdict(question, 8192)


def test_requests_over_every_window_are_left_out_and_said():
    mixed = merged([same(1000, 100), same(90_000, 100)], [0.9, 0.1])
    made = Planner(ask(mixed)).at((4096,))
    assert made.over_window == pytest.approx(0.1)
    assert made.rate_per_s == pytest.approx(180)
    assert "a largest window of 90100 tokens holds all" in verdict(ask(mixed), 4096)


def test_a_window_over_the_kv_cache_is_refused():
    with pytest.raises(PlanError, match="not one sequence of 2000000"):
        plan(ask(window=2_000_000))


def test_a_window_below_every_request_is_refused():
    with pytest.raises(PlanError, match="no request fits a window of 16 tokens"):
        plan(ask(window=16))


@pytest.mark.parametrize("thresholds", [(8192, 4096), (0,), (65_536,), (8192, 8192)])
def test_thresholds_out_of_order_are_refused(thresholds):
    with pytest.raises(PlanError, match=r"--threshold: .* allowed: rising"):
        Planner(ask()).at(thresholds)


@given(st.floats(1, 5000), st.floats(1, 5000), st.sampled_from([512, 4096, 16_384]))
@settings(max_examples=25, deadline=None)
def test_more_requests_never_take_fewer_instances(one, other, threshold):
    few, many = (Planner(ask(rate_per_s=rate)).at((threshold,)) for rate in sorted((one, other)))
    for less, more in zip(few.pools, many.pools, strict=True):
        assert less.instances <= more.instances


@given(st.floats(0.1, 3000), st.sampled_from([512, 4096, 16_384]))
@settings(max_examples=25, deadline=None)
def test_a_plan_that_holds_holds_under_its_own_traffic(rate, threshold):
    planner = Planner(ask(rate_per_s=rate, estimator=CALIBRATED))
    made = planner.at((threshold,))
    assert planner.under(made).pools == made.pools


@given(st.floats(10, 3000))
@settings(max_examples=20, deadline=None)
def test_one_instance_less_would_not_hold(rate):
    planner = Planner(ask(rate_per_s=rate))
    made = planner.homogeneous()
    pool = made.pools[0]
    if pool.instances > 1:
        fewer = replace(pool, instances=pool.instances - 1)
        assert not planner.under(replace(made, pools=(fewer,))).meets


def test_the_price_is_the_profiles():
    cheap = replace(A100, price_per_gpu_h=1.0)
    assert plan(ask(profile=cheap)).price_per_gpu_h == 1.0
