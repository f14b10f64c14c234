"""One pool's formulas against the engine that they describe."""

from dataclasses import replace

import numpy as np
import pytest

from extproc.planner.sizing.pool_model import LoadedPool, PoolModel, requests_of
from extproc.planner.traffic.lengths import equally_weighted, poisson, weighted
from extproc.simulator.engine import Engine, EventKind, Sequence
from extproc.simulator.engine.profiles import NAMED
from tests.support.planning_cases import A100, AZURE_LENGTHS, LMSYS_LENGTHS

NS = 1e9


H100 = NAMED["h100-llama8b"]


def model_of(workload, slots, profile=A100):
    batched = profile.max_num_batched_tokens
    return PoolModel(requests=requests_of(workload, profile, batched), profile=profile, slots=slots)


def served(workload, slots, rate, n, instances=1, profile=A100):
    """Run n arrivals through engines, each to the one with the fewest; TTFT, TPOT, span in s."""
    config = profile.engine(65_536, slots, profile.max_num_batched_tokens)
    engines = [Engine(config, profile.pace) for _ in range(instances)]
    times = {kind: {} for kind in EventKind}
    arrivals = []
    for arrival in poisson(workload, rate, n, seed=3).arrivals():
        at_ns = int(arrival.at_s * NS)
        for engine in engines:
            note(times, engine.advance(at_ns))
        least = min(engines, key=lambda engine: engine.running + engine.waiting)
        sequence = Sequence(arrival.length.prompt, arrival.length.output)
        least.submit(sequence)
        arrivals.append((at_ns, sequence))
    for engine in engines:
        note(times, engine.advance())
    first, last = times[EventKind.FIRST_TOKEN], times[EventKind.FINISHED]
    ttft = np.array([first[s] - at for at, s in arrivals[n // 5 :]]) / NS
    tpot = np.array(
        [(last[s] - first[s]) / (s.output_tokens - 1) for _, s in arrivals if s.output_tokens > 1]
    )
    return ttft, tpot[n // 5 :] / NS, (max(last.values()) - arrivals[0][0]) / NS


def note(times, events):
    for event in events:
        times[event.kind][event.sequence] = event.at_ns


@pytest.mark.parametrize("slots", [16, 128])
def test_a_saturated_engine_serves_what_the_model_says(slots):
    _, _, span_s = served(AZURE_LENGTHS, slots, 1e6, 3000)
    assert model_of(AZURE_LENGTHS, slots).rate_per_s == pytest.approx(3000 / span_s, rel=0.05)


@pytest.mark.parametrize("workload", [AZURE_LENGTHS, LMSYS_LENGTHS], ids=lambda w: w.name)
@pytest.mark.parametrize(("slots", "utilisation"), [(16, 0.6), (128, 0.6), (128, 0.8)])
def test_the_percentiles_are_those_of_engines_or_somewhat_above(workload, slots, utilisation):
    model = model_of(workload, slots)
    rate = 4 * utilisation * model.rate_per_s
    ttft, tpot, _ = served(workload, slots, rate, 6000, instances=4)
    pool = LoadedPool(model=model, instances=4, rate_per_s=rate)
    assert 0.95 < pool.ttft_p99_s / np.percentile(ttft, 99) < 2.2
    assert 0.95 < pool.tpot_p99_s / np.percentile(tpot, 99) < 1.7


@pytest.mark.parametrize("slots", [16, 64, 128])
def test_a_saturated_gpu_that_overlaps_serves_what_the_model_says(slots):
    _, _, span_s = served(AZURE_LENGTHS, slots, 1e6, 2000, profile=H100)
    model = model_of(AZURE_LENGTHS, slots, H100)
    assert model.rate_per_s == pytest.approx(2000 / span_s, rel=0.05)


@pytest.mark.parametrize(("slots", "utilisation"), [(16, 0.6), (128, 0.6), (128, 0.8)])
def test_the_percentiles_of_asynchronous_engines_are_not_underrated(slots, utilisation):
    model = model_of(AZURE_LENGTHS, slots, H100)
    rate = 4 * utilisation * model.rate_per_s
    ttft, tpot, _ = served(AZURE_LENGTHS, slots, rate, 3000, instances=4, profile=H100)
    pool = LoadedPool(model=model, instances=4, rate_per_s=rate)
    assert 0.95 < pool.ttft_p99_s / np.percentile(ttft, 99) < 2.2
    assert 0.95 < pool.tpot_p99_s / np.percentile(tpot, 99) < 1.7


def test_one_token_for_one_token_takes_one_iteration():
    tokens = np.array([1], dtype=np.int64)
    model = model_of(equally_weighted("one", tokens, tokens), 1)
    assert model.service_s == pytest.approx(0.008, rel=1e-4)


def test_a_pool_that_cannot_keep_up_has_no_first_token():
    model = model_of(LMSYS_LENGTHS, 16)
    pool = LoadedPool(model=model, instances=1, rate_per_s=2 * model.rate_per_s)
    assert pool.ttft_p99_s == np.inf
    assert pool.late(1e9) == 1


def test_fewer_are_late_for_a_later_limit():
    model = model_of(LMSYS_LENGTHS, 16)
    pool = LoadedPool(model=model, instances=2, rate_per_s=1.6 * model.rate_per_s)
    late = [pool.late(limit_s) for limit_s in (0.0, 0.05, 0.2, 1, 10)]
    assert late == sorted(late, reverse=True)
    assert late[0] == pytest.approx(1)


def test_the_percentile_is_where_one_in_a_hundred_is_late():
    model = model_of(LMSYS_LENGTHS, 16)
    pool = LoadedPool(model=model, instances=3, rate_per_s=2.4 * model.rate_per_s)
    assert pool.late(pool.ttft_p99_s) <= 0.01 < pool.late(pool.ttft_p99_s * 0.98)


# Three requests of half, a third and a sixth of the traffic; an iteration prefills 1,000 tokens.
THREE = weighted(
    "three", np.array([500, 2500, 100]), np.array([10, 100, 1]), np.array([3.0, 2.0, 1.0])
)
PACE = replace(
    A100.pace,
    weights_ms=10.0,
    sequence_ms=0.5,
    kv_token_ms=0.001,
    chunk_tokens=500,
    prefill_token_ms=0.01,
    prefill_pair_ms=0.0,
)
MINE = replace(A100, pace=PACE, overhead_s=0.0)
WORK = requests_of(THREE, MINE, 1000)


def pool(slots: int = 8, **pace: float) -> PoolModel:
    profile = replace(MINE, pace=replace(PACE, **pace))
    return PoolModel(requests=requests_of(THREE, profile, 1000), profile=profile, slots=slots)


def test_requests_are_sorted_by_total():
    assert WORK.total.tolist() == [101, 510, 2600]
    assert WORK.weights.tolist() == pytest.approx([1 / 6, 1 / 2, 1 / 3])


def test_a_prefill_takes_whole_iterations():
    assert WORK.steps.tolist() == [1, 1, 3]
    assert WORK.flow_steps.tolist() == pytest.approx([0.1, 0.5, 2.5])


def test_the_last_step_of_a_prefill_gives_the_first_token():
    assert WORK.iterations.tolist() == [1, 10, 102]


def test_a_prefill_alone_reads_the_weights_once_per_chunk():
    # 1, 1 and 5 chunks of 10 ms, and 0.01 ms per token.
    assert WORK.own_s.tolist() == pytest.approx([0.011, 0.015, 0.075])


def test_prompts_that_share_iterations_pay_for_the_weights_by_the_token():
    assert WORK.flow_s.tolist() == pytest.approx([0.003, 0.015, 0.075])


def test_a_prefill_adds_its_computation_and_the_chunks_beyond_its_steps():
    assert WORK.extra_s.tolist() == pytest.approx([0.001, 0.005, 0.045])


def test_attention_adds_time_by_the_pair_of_tokens():
    pairs = requests_of(THREE, replace(MINE, pace=replace(PACE, prefill_pair_ms=1e-5)), 1000)
    added = (pairs.own_s - WORK.own_s).tolist()
    assert added == pytest.approx([5e-5, 1.25e-3, 3.125e-2])


def test_a_decoding_sequence_holds_its_prompt_and_half_of_its_output():
    assert WORK.held.tolist() == [1 * 100.5, 10 * 505, 100 * 2550]


def test_the_square_of_what_is_held_is_that_of_a_ramp():
    prompt, output = 500, 10
    exact = output * (prompt**2 + prompt * output + output**2 / 3)
    assert WORK.held_squared[1] == pytest.approx(exact)


def test_a_part_of_the_requests_lies_between_two_shares():
    assert WORK.between(0, 1 / 6).total.tolist() == [101]
    assert WORK.between(1 / 6, 1).total.tolist() == [510, 2600]
    assert WORK.between(0, 1).total.tolist() == [101, 510, 2600]


def test_a_share_within_one_row_has_that_row():
    assert WORK.between(0.3, 0.4).total.tolist() == [510]
    assert WORK.between(0.999, 1.0).total.tolist() == [2600]


def test_means_are_weighted_within_a_part():
    part = WORK.rows(1, 3)
    assert part.share == pytest.approx(5 / 6)
    assert part.mean(part.total) == pytest.approx((3 * 510 + 2 * 2600) / 5)


def test_each_running_sequence_adds_itself_and_its_kv_entries():
    held, output = WORK.mean(WORK.held), WORK.mean(WORK.output)
    assert pool().sequences_s(8) == pytest.approx(8 * (0.5e-3 + 1e-6 * held / output))


def test_an_idle_instance_decodes_at_the_pace_of_its_weights():
    assert pool().token_s(0) == pytest.approx(0.010)


def test_prefills_of_others_slow_a_sequence_down():
    model = pool()
    prefills = 8 / model.iterations * WORK.mean(WORK.extra_s)
    assert model.token_s(8) == pytest.approx(0.010 + model.sequences_s(8) + prefills)


def test_a_faster_accelerator_serves_proportionally_more():
    assert pool(speed=2.0).rate_per_s == pytest.approx(2 * pool().rate_per_s)


def test_a_slot_is_held_for_all_iterations():
    model = pool()
    assert model.service_s == pytest.approx(model.iterations * model.token_s(8))
    assert model.rate_per_s == pytest.approx(8 / model.service_s)


def test_the_variation_of_the_service_is_that_of_the_iterations():
    mean = WORK.mean(WORK.iterations)
    assert pool().scv == pytest.approx(WORK.mean(WORK.iterations**2) / mean**2 - 1)


def test_the_p99_of_tpot_lies_above_the_mean():
    assert pool().tpot_p99_s(8) > pool().token_s(8)
    assert pool().tpot_p99_s(0) == pool().token_s(0)


def test_more_load_runs_more_sequences_up_to_the_slots():
    model = pool()
    running = [model.running_p99(rate) for rate in (0.1, 1.0, 2.0, 1e4)]
    assert running == sorted(running)
    assert running[-1] == model.slots


def test_requests_may_be_late_on_an_idle_instance():
    assert pool().alone_late(0.06) == pytest.approx(1 / 3)  # 10 + 75 ms for the longest
    assert pool().alone_late(1.0) == 0


def test_utilisation_is_load_over_the_rate_of_all_instances():
    model = pool()
    loaded = LoadedPool(model=model, instances=3, rate_per_s=1.5 * model.rate_per_s)
    assert loaded.utilisation == pytest.approx(0.5)


def test_overhead_outside_the_engine_delays_the_first_token():
    model = pool()
    late = PoolModel(requests=WORK, profile=replace(MINE, overhead_s=0.5), slots=8)
    plain, slow = (LoadedPool(model=m, instances=9, rate_per_s=0.1) for m in (model, late))
    assert slow.ttft_p99_s - plain.ttft_p99_s == pytest.approx(0.5, rel=0.02)
