"""How many sequences and instances one pool needs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.planner.sizing.pool_model import requests_of
from extproc.planner.sizing.pool_sizing import (
    PoolLoad,
    _first,
    _last,
    choose_slots,
    describe,
    loaded,
    occupancy_slots,
    size_pool,
)
from extproc.planner.sizing.question import Objectives, PlanError, Question, SlotRule
from extproc.planner.traffic.lengths import equally_weighted
from tests.support.planning_cases import A100, ask


def load(question: Question | None = None, window: int = 8192, rate: float = 100.0) -> PoolLoad:
    question = question or ask()
    requests = requests_of(question.workload, A100, question.max_num_batched_tokens)
    return PoolLoad(
        question=question,
        objectives=question.objectives,
        requests=requests,
        window=window,
        sent=1.0,
        share=1.0,
        rate_per_s=rate,
    )


def same(prompt: int, output: int):
    return equally_weighted("same", np.array([prompt]), np.array([output]))


def test_at_full_length_the_kv_cache_sets_the_slots():
    papers = ask(slot_rule=SlotRule.WINDOW)
    assert choose_slots(load(papers)) == 1_048_576 // 8192
    assert choose_slots(load(papers, window=65_536)) == 16


def test_by_actual_lengths_more_sequences_fit():
    by_occupancy = load(ask(slot_rule=SlotRule.OCCUPANCY), window=65_536)
    assert choose_slots(by_occupancy) > 16


def test_max_num_seqs_is_an_upper_bound():
    assert choose_slots(load(ask(max_num_seqs=20))) == 20


def test_half_of_an_iteration_is_left_for_prefills():
    assert choose_slots(load(ask(max_num_batched_tokens=100))) == 50


def test_a_tight_tpot_objective_leaves_at_least_one_slot():
    assert choose_slots(load(ask(objectives=Objectives(tpot_p99_s=1e-6)))) == 1


def test_a_window_over_the_kv_cache_is_rejected():
    with pytest.raises(PlanError, match="holds 1048576 tokens, not one sequence of 2000000"):
        choose_slots(load(window=2_000_000))


def test_equal_lengths_fill_the_kv_cache_to_the_last_sequence():
    # While it decodes, a sequence holds 100 entries and on average half of its output.
    requests = requests_of(same(100, 2), A100, 2048)
    assert occupancy_slots(requests, 101 * 50 + 1) == pytest.approx(50, abs=1)


def test_a_kv_cache_too_small_for_one_sequence_holds_none():
    assert occupancy_slots(requests_of(same(1000, 2), A100, 2048), 500) == 0


def test_lengths_that_vary_leave_room_for_the_longest():
    varied = equally_weighted("varied", np.array([10, 1990]), np.array([10, 10]))
    kv_tokens = 100_000
    equal = occupancy_slots(requests_of(same(1000, 10), A100, 2048), kv_tokens)
    assert occupancy_slots(requests_of(varied, A100, 2048), kv_tokens) < equal


def test_the_smallest_pool_that_meets_the_objectives_is_chosen():
    sized = size_pool(load(rate=500.0))
    fewer = loaded(sized.load, sized.pool.model.slots, sized.pool.instances - 1)
    assert sized.meets
    assert not fewer.meets


def test_a_pool_without_load_has_one_instance():
    assert size_pool(load(rate=1e-6)).pool.instances == 1


def test_a_prefill_slower_than_the_objective_is_not_mended_by_instances():
    slow = load(ask(same(60_000, 10), objectives=Objectives(ttft_p99_s=0.01)), window=65_536)
    sized = size_pool(slow)
    assert not sized.meets
    assert sized.pool.utilisation <= 0.85


def test_a_pool_over_its_utilisation_misses_the_objectives():
    sized = size_pool(load())
    full = loaded(replace(sized.load, rate_per_s=1e6), sized.pool.model.slots, 1)
    assert not full.meets


def test_gpus_are_those_of_every_instance():
    sized = size_pool(load(rate=500.0))
    assert sized.gpus == sized.pool.instances * A100.gpus


def test_a_pool_is_described_by_its_window_and_load():
    sized = size_pool(load(rate=500.0))
    plan = describe(sized, "short")
    assert (plan.name, plan.max_model_len, plan.threshold) == ("short", 8192, 8192)
    assert (plan.instances, plan.gpus, plan.meets) == (sized.pool.instances, sized.gpus, True)
    assert plan.mu_per_instance == sized.pool.model.rate_per_s
    assert plan.utilisation == pytest.approx(500 / plan.mu_per_instance / plan.instances)


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_the_first_that_holds_is_found(least, edge):
    assert _first(lambda n: n >= edge, least) == max(least, edge)


@given(st.integers(1, 10_000), st.integers(0, 20_000))
def test_the_last_that_holds_is_found(most, edge):
    assert _last(lambda n: n <= edge, most) == max(1, min(most, edge))
