"""The engine in real time, with iterations of 20 ms so that the order of events is certain."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from extproc.simulator.engine import Engine, EngineConfig, NeverFitsError, Profile, Sequence
from extproc.simulator.pool.metrics import PoolMetrics
from extproc.simulator.pool.pace import PacedEngine, Ticket

CONFIG = EngineConfig(
    max_model_len=256, max_num_seqs=2, max_num_batched_tokens=64, num_blocks=32, block_size=16
)
STEP_S = 0.02
STEADY = Profile(weights_ms=1000 * STEP_S, sequence_ms=0.0, chunk_tokens=64)


class Running:
    """A paced engine, and what it counts."""

    def __init__(self, config: EngineConfig = CONFIG) -> None:
        self.engine = Engine(config, STEADY)
        self.metrics = PoolMetrics("m", config)
        self.paced = PacedEngine(self.engine, self.metrics)

    def sample(self, name: str, **labels: str) -> float:
        every = {"model_name": "m", "engine": "0"} | labels
        return self.metrics.registry.get_sample_value(f"vllm:{name}", every) or 0.0


def ticket(prompt: int = 10, output: int = 3, finish: str = "length") -> Ticket:
    return Ticket(Sequence(prompt, output), finish, asyncio.Event())


@contextlib.asynccontextmanager
async def started(config: EngineConfig = CONFIG) -> AsyncIterator[Running]:
    running = Running(config)
    task = asyncio.create_task(running.paced.run())
    try:
        yield running
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def play(scene: Callable[[Running], Awaitable[object]], config: EngineConfig = CONFIG) -> object:
    async def run() -> object:
        async with started(config) as running:
            return await asyncio.wait_for(scene(running), 60)

    return asyncio.run(run())


async def finish(*tickets: Ticket) -> None:
    for each in tickets:
        while not each.over:
            await each.changed.wait()
            each.changed.clear()


def test_a_sequence_gets_all_its_tokens():
    async def scene(running: Running) -> tuple[int, bool]:
        one = ticket()
        with running.paced.admit([one]):
            await finish(one)
        return one.tokens, one.over

    assert play(scene) == (3, True)


def test_no_token_comes_before_its_iteration_has_ended():
    async def scene(running: Running) -> float:
        loop, one = asyncio.get_running_loop(), ticket(output=4)
        start = loop.time()
        with running.paced.admit([one]):
            await finish(one)
        return loop.time() - start

    assert play(scene) >= 4 * STEP_S * 0.99


def test_every_iteration_wakes_the_reader():
    async def scene(running: Running) -> list[int]:
        one, seen = ticket(output=4), []
        with running.paced.admit([one]):
            while not one.over:
                await one.changed.wait()
                one.changed.clear()
                seen.append(one.tokens)
        return seen

    assert play(scene) == [1, 2, 3, 4]


def test_what_is_left_is_aborted_with_its_request():
    async def scene(running: Running) -> tuple[int, int]:
        one = ticket(output=200)
        with running.paced.admit([one]):
            await one.changed.wait()
        return running.engine.running, running.engine.free_blocks

    assert play(scene) == (0, CONFIG.num_blocks)


def test_a_request_that_fails_is_aborted_too():
    async def scene(running: Running) -> int:
        with pytest.raises(RuntimeError), running.paced.admit([ticket(output=200)]):
            raise RuntimeError
        return running.engine.running + running.engine.waiting

    assert play(scene) == 0


def test_if_one_sequence_never_fits_none_of_its_request_stays():
    async def scene(running: Running) -> int:
        with pytest.raises(NeverFitsError), running.paced.admit([ticket(), ticket(prompt=256)]):
            pass
        return running.engine.running + running.engine.waiting

    assert play(scene) == 0


def test_more_sequences_than_slots_take_turns():
    async def scene(running: Running) -> tuple[bool, float]:
        tickets = [ticket(output=3) for _ in range(3)]
        with running.paced.admit(tickets):
            await tickets[0].changed.wait()
            waits = running.engine.waiting
            await finish(*tickets)
        return waits, running.sample("request_queue_time_seconds_sum")

    waits, queued_s = play(scene)
    assert waits == 1
    assert queued_s >= STEP_S


def test_an_idle_engine_does_not_owe_the_time_that_passed():
    async def scene(running: Running) -> float:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(5 * STEP_S)
        one = ticket(output=1)
        start = loop.time()
        with running.paced.admit([one]):
            await finish(one)
        return loop.time() - start

    assert play(scene) >= STEP_S * 0.99


def test_tokens_and_the_end_of_a_request_are_counted():
    async def scene(running: Running) -> dict[str, float]:
        one = ticket(prompt=10, output=3, finish="stop")
        with running.paced.admit([one]):
            await finish(one)
        return {
            "prompt": running.sample("prompt_tokens_total"),
            "generation": running.sample("generation_tokens_total"),
            "stopped": running.sample("request_success_total", finished_reason="stop"),
            "cut": running.sample("request_success_total", finished_reason="length"),
            "first": running.sample("time_to_first_token_seconds_count"),
            "between": running.sample("inter_token_latency_seconds_count"),
        }

    assert play(scene) == {
        "prompt": 10,
        "generation": 3,
        "stopped": 1,
        "cut": 0,
        "first": 1,
        "between": 2,
    }


def test_an_aborted_request_is_no_success():
    async def scene(running: Running) -> tuple[float, float]:
        one = ticket(output=200)
        with running.paced.admit([one]):
            await one.changed.wait()
        reasons = ("stop", "length")
        ended = [running.sample("request_success_total", finished_reason=r) for r in reasons]
        return sum(ended), running.sample("generation_tokens_total")

    ended, generated = play(scene)
    assert ended == 0
    assert generated >= 1


def test_the_time_per_token_is_that_of_an_iteration():
    async def scene(running: Running) -> float:
        one = ticket(output=4)
        with running.paced.admit([one]):
            await finish(one)
        return running.sample("request_time_per_output_token_seconds_sum")

    assert play(scene) == pytest.approx(STEP_S, rel=1e-6)


def test_one_token_has_no_time_per_token():
    async def scene(running: Running) -> tuple[float, float]:
        one = ticket(output=1)
        with running.paced.admit([one]):
            await finish(one)
        return (
            running.sample("request_time_per_output_token_seconds_sum"),
            running.sample("inter_token_latency_seconds_count"),
        )

    assert play(scene) == (0, 0)


def test_a_preemption_is_counted_for_its_sequence():
    # Two sequences of 60 tokens need 8 blocks; there are 6.
    small = EngineConfig(
        max_model_len=64, max_num_seqs=2, max_num_batched_tokens=64, num_blocks=6, block_size=16
    )

    async def scene(running: Running) -> tuple[list[int], float]:
        tickets = [ticket(prompt=30, output=30) for _ in range(2)]
        with running.paced.admit(tickets):
            await finish(*tickets)
        return [each.preemptions for each in tickets], running.sample("num_preemptions_total")

    assert play(scene, small) == ([0, 1], 1)
