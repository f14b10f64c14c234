"""The same arrivals through a server and through the simulator."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from extproc.planner.simulation.fleet import PoolSpec
from extproc.planner.traffic.lengths import from_cdf, poisson
from extproc.planner.traffic.published import AZURE_2023, scaled
from extproc.profiling.replaying import (
    InstanceTimes,
    deal,
    figures_of,
    pick,
    replay,
    simulated,
    split,
)
from extproc.profiling.vllm import VllmError, connect, new_session
from extproc.progress import showing
from extproc.simulator.engine.instance import Profile
from tests.support.pool_client import serving, settings

TRACE = poisson(from_cdf("small", scaled(AZURE_2023, 32)), rate=60, n=60, seed=3)
PACE = Profile(weights_ms=4.0, sequence_ms=0.5, chunk_tokens=512)
POOL = settings(window=512, profile=PACE, blocks=16)
SPEC = PoolSpec(name="it", engine=POOL.engine, profile=PACE, instances=1, threshold=512)


def test_each_instance_gets_every_second_arrival():
    first, second = deal(TRACE, 2)
    assert len(first) + len(second) == len(TRACE)
    assert first.at_s[1] == TRACE.at_s[2]
    assert second.prompt[0] == TRACE.prompt[1]


def test_a_split_keeps_every_arrival_once():
    short, long = split(TRACE, 64)
    assert (short.prompt + short.output).max() <= 64 < (long.prompt + long.output).min()
    assert sorted([*short.at_s, *long.at_s]) == TRACE.at_s.tolist()


def test_the_simulator_answers_every_arrival():
    seen = simulated(TRACE, SPEC)
    assert seen.ttft_s.size == len(TRACE)
    assert seen.tokens == TRACE.output.sum()
    assert np.isfinite(seen.ttft_s).all()


def test_the_overhead_delays_answers_and_not_their_tokens():
    slow = PoolSpec(
        name="it", engine=POOL.engine, profile=PACE, instances=1, threshold=512, overhead_s=0.5
    )
    assert simulated(TRACE, slow).ttft_s == pytest.approx(simulated(TRACE, SPEC).ttft_s + 0.5)
    assert simulated(TRACE, slow).tpot_s == pytest.approx(simulated(TRACE, SPEC).tpot_s)


def test_figures_are_of_all_instances_together():
    both = figures_of([simulated(part, SPEC) for part in deal(TRACE, 2)])
    alone = figures_of([simulated(TRACE, SPEC)])
    assert both.preemptions <= alone.preemptions
    assert both.ttft_p99_ms < alone.ttft_p99_ms


async def _replay() -> InstanceTimes:
    async with serving(POOL) as client, new_session() as session:
        vllm = await connect(session, str(client.make_url("/")))
        with showing(Console(quiet=True)) as show:
            show.begin("Replaying", 30)
            return await replay(vllm, pick(TRACE, np.arange(30)), show)


def test_a_server_answers_every_arrival_at_its_time():
    seen = asyncio.run(_replay())
    assert seen.ttft_s.size == 30
    assert seen.end_s > TRACE.at_s[29]
    assert seen.ttft_s.min() > 0


async def _refuse() -> None:
    async with serving(settings(window=64)) as client, new_session() as session:
        vllm = await connect(session, str(client.make_url("/")))
        with showing(Console(quiet=True)) as show:
            show.begin("Replaying", 30)
            await replay(vllm, pick(TRACE, np.arange(30)), show)


def test_a_server_that_refuses_an_arrival_is_an_error():
    with pytest.raises(VllmError, match="400"):
        asyncio.run(_refuse())


def times(*ttft_s: float, tpot_s: tuple[float, ...] = (0.01,), end_s: float = 2.0) -> InstanceTimes:
    return InstanceTimes(
        ttft_s=np.array(ttft_s), tpot_s=np.array(tpot_s), end_s=end_s, tokens=100, preemptions=3
    )


def test_figures_are_in_milliseconds():
    figures = figures_of([times(0.1, 0.3, tpot_s=(0.02, 0.04))])
    assert figures.ttft_p50_ms == pytest.approx(200)
    assert figures.ttft_p99_ms == pytest.approx(298)
    assert figures.tpot_p50_ms == pytest.approx(30)
    assert figures.tpot_p99_ms == pytest.approx(39.8)


def test_the_throughput_is_of_all_tokens_until_the_last_instance_ends():
    figures = figures_of([times(0.1, end_s=2.0), times(0.1, end_s=4.0)])
    assert figures.output_tokens_per_s == 200 / 4.0
    assert figures.preemptions == 6


def test_picked_arrivals_keep_their_times_and_lengths():
    rows = np.array([3, 7])
    picked = pick(TRACE, rows)
    assert picked.at_s.tolist() == TRACE.at_s[rows].tolist()
    assert picked.prompt.tolist() == TRACE.prompt[rows].tolist()
    assert picked.output.tolist() == TRACE.output[rows].tolist()


@pytest.mark.parametrize("instances", [1, 3, 7])
def test_dealing_loses_no_arrival_and_is_even(instances):
    parts = deal(TRACE, instances)
    assert sorted(at_s for part in parts for at_s in part.at_s) == TRACE.at_s.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_an_answer_of_one_token_has_no_time_per_token():
    one = replace(TRACE, output=np.ones_like(TRACE.output))
    assert simulated(one, SPEC).tpot_s.size == 0
