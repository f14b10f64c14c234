"""One pool's formulas against the engine that they describe."""

import numpy as np
import pytest

from extproc.planner.sizing.pool_model import LoadedPool, PoolModel, requests_of
from extproc.planner.traffic.lengths import equally_weighted, poisson
from extproc.simulator.engine import Engine, EventKind, Sequence
from tests.support.planning_cases import A100, AZURE_LENGTHS, LMSYS_LENGTHS

BATCHED = 2048
NS = 1e9


def model_of(workload, slots, profile=A100):
    return PoolModel(requests=requests_of(workload, profile, BATCHED), profile=profile, slots=slots)


def served(workload, slots, rate, n, instances=1):
    """Run n arrivals through engines, each to the one with the fewest; TTFT, TPOT, span in s."""
    engines = [Engine(A100.engine(65_536, slots, BATCHED), A100.pace) for _ in range(instances)]
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
