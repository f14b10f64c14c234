"""Measures a running vLLM from outside: time to first token, and time per iteration under load.

Invariant: while a probe decodes, all sequences started beside it still run and none was preempted;
so the time between its tokens is that of an iteration with all of them.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import starmap
from statistics import fmean, median
from typing import Final

from extproc.planner.traffic.lengths import Length
from extproc.profiling.fitting import Decode, FirstToken, Measurement
from extproc.profiling.vllm import Facts, Streamed, Vllm, VllmError
from extproc.progress import Show

_SHORT: Final = 16  # prompt tokens of sequences whose context is negligible
_MOST_TOKENS, _LEAST_TOKENS = 48, 8  # output tokens of a probe
_ROUNDS: Final = 5  # over all points, so that drift of the machine does not tilt the fit
_FIRST_TOKENS: Final = 7
_ROOM: Final = 3  # probes that fit into the answer of a sequence beside them
_MOST_CONTEXT: Final = 100_000  # tokens; filling a large KV cache would take minutes
_POLL_S: Final = 0.1
_START_S: Final = 60


@dataclass(frozen=True, slots=True)
class Point:
    """A load at which an iteration is measured: a number of sequences and their prompt tokens.

    tokens: output tokens of the probe, which is one of the sequences.
    """

    sequences: int
    prompt_tokens: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Measured:
    """All measurements of a server; max_num_seqs is at most the number that was tried."""

    measurements: tuple[Measurement, ...]
    max_num_seqs: int


async def measure(vllm: Vllm, most: int, show: Show) -> Measured:
    """Measure with up to `most` concurrent sequences; takes about a minute. Raises VllmError."""
    await _first_token(vllm, _SHORT)
    show.say("Finding max_num_seqs")
    seqs = await find_max_num_seqs(vllm, most)
    prompts, points = prompt_sizes(vllm.facts), decode_points(vllm.facts, seqs)
    show.begin("Measuring", len(prompts) + _ROUNDS * len(points))
    prefills: list[Measurement] = []
    for prompt_tokens in prompts:
        prefills.append(await _prefill(vllm, prompt_tokens))
        show.advance()
    probes: dict[Point, list[Decode]] = {point: [] for point in points}
    for point in _ROUNDS * points:
        probes[point] += await _decode(vllm, point)
        show.advance()
    return Measured((*prefills, *starmap(_mean, probes.items())), seqs)


def prompt_sizes(facts: Facts) -> tuple[int, ...]:
    """Return the prompt lengths to measure: 2^k and 1.5 x 2^k, up to the largest that fits."""
    most = min(facts.max_model_len, facts.kv_tokens) - 2
    sizes = {_SHORT * 2**k * part // 2 for k in range(20) for part in (2, 3)}
    return (*sorted(size for size in sizes if size < most), most)


def decode_points(facts: Facts, max_num_seqs: int) -> tuple[Point, ...]:
    """Return the loads to measure: sequences of short context, then of long context.

    Loads that do not fit into the KV cache are left out.
    """
    points = [_point(facts, n, _SHORT) for n in (*_doubling(max_num_seqs), max_num_seqs)]
    tokens = min(facts.kv_tokens, _MOST_CONTEXT)
    for share, times in ((0.35, (1, 3)), (0.7, (1, 2, 4))):
        fewest = max(1, math.ceil(share * tokens / (0.75 * facts.max_model_len)))
        points += [_point(facts, k * fewest, int(share * tokens / k / fewest)) for k in times]
    return tuple(p for p in points if p.tokens >= _LEAST_TOKENS and p.sequences <= max_num_seqs)


def _doubling(most: int) -> Iterator[int]:
    n = 1
    while n < most:
        yield n
        n *= 2


def _point(facts: Facts, sequences: int, prompt_tokens: int) -> Point:
    room = min(facts.kv_tokens // sequences - facts.block_size, facts.max_model_len) - prompt_tokens
    return Point(sequences, prompt_tokens, min(_MOST_TOKENS, room // _ROOM))


async def find_max_num_seqs(vllm: Vllm, most: int) -> int:
    """Send `most` requests at once; return how many ran, which a full KV cache limits too."""
    short = Length(_SHORT, vllm.facts.block_size)
    tasks = [asyncio.create_task(vllm.complete(short, Streamed())) for _ in range(most)]
    seen = 0
    try:
        while not all(task.done() for task in tasks):
            await asyncio.sleep(_POLL_S)
            seen = max(seen, int(await vllm.metric("vllm:num_requests_running")))
    finally:
        await _stop(tasks)
    return max(1, seen)


async def _prefill(vllm: Vllm, prompt_tokens: int) -> FirstToken:
    times = [await _first_token(vllm, prompt_tokens) for _ in range(_FIRST_TOKENS)]
    return FirstToken(prompt_tokens=prompt_tokens, measured_ms=median(times))


async def _first_token(vllm: Vllm, prompt_tokens: int) -> float:
    streamed = Streamed()
    await vllm.complete(Length(prompt_tokens, 1), streamed)
    return (streamed.first_s - streamed.sent_s) * 1e3


async def _decode(vllm: Vllm, point: Point) -> list[Decode]:
    """Return a probe; empty if a sequence beside it ended too early."""
    preemptions = await vllm.metric("vllm:num_preemptions_total")
    async with _running_beside(vllm, point) as beside:
        probe = await _probe(vllm, point, beside)
        ended = any(one.over for one in beside)
    if await vllm.metric("vllm:num_preemptions_total") > preemptions:
        raise VllmError(f"the server preempted at {point}; it must have no other traffic")
    return [] if ended else [probe]


def _mean(point: Point, probes: Sequence[Decode]) -> Decode:
    if not probes:
        raise VllmError(f"answers ended early in every round at {point}; is there other traffic?")
    # With noisy times a fit of relative errors follows the shortest, so it is given means.
    return Decode(
        sequences=probes[0].sequences,
        kv_tokens=fmean(probe.kv_tokens for probe in probes),
        measured_ms=fmean(probe.measured_ms for probe in probes),
    )


async def _probe(vllm: Vllm, point: Point, beside: list[Streamed]) -> Decode:
    """Decode one more sequence beside the running ones."""
    streamed = Streamed()
    await vllm.complete(Length(point.prompt_tokens, point.tokens), streamed)
    iteration_s = (streamed.last_s - streamed.first_s) / (point.tokens - 1)
    # A chunk may hold several tokens, but every sequence gains one token per iteration.
    generated = sum(streamed.last_s - one.first_s for one in beside) / iteration_s + point.tokens
    return Decode(
        sequences=point.sequences,
        # The mean iteration is half of the probe's tokens ago.
        kv_tokens=point.sequences * (point.prompt_tokens - point.tokens / 2) + generated,
        measured_ms=iteration_s * 1e3,
    )


@asynccontextmanager
async def _running_beside(vllm: Vllm, point: Point) -> AsyncIterator[list[Streamed]]:
    """Keep all but one sequence decoding. Raises VllmError if one of them does not start."""
    beside = [Streamed() for _ in range(point.sequences - 1)]
    length = Length(point.prompt_tokens, _ROOM * point.tokens)
    tasks = [asyncio.create_task(vllm.complete(length, one)) for one in beside]
    try:
        try:
            await asyncio.wait_for(asyncio.gather(*(b.begun.wait() for b in beside)), _START_S)
        except TimeoutError:
            for task in tasks:
                if task.done():
                    task.result()  # raises the cause
            raise VllmError(f"not all sequences started within {_START_S} s at {point}") from None
        yield beside
    finally:
        await _stop(tasks)
    await _first_token(vllm, _SHORT)  # by then the server has aborted them


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
