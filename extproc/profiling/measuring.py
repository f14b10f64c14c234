"""Measures a running vLLM from outside: time to first token, and time per iteration under load.

Invariant: while a probe decodes, all sequences started beside it still run and none was preempted;
so the time between its tokens is that of an iteration with all of them. What cannot be measured is
left out with its reason; it never costs what was measured before.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Final

from extproc.planner.traffic.lengths import Length
from extproc.profiling.fitting import Decode, FirstToken, Measurement
from extproc.profiling.vllm import Facts, Streamed, Vllm, VllmError
from extproc.progress import Show

_SHORT: Final = 16  # prompt tokens of sequences whose context is negligible
_MOST_TOKENS, _LEAST_TOKENS = 48, 8  # output tokens of a probe
_ROUNDS: Final = 5  # over all points, so that drift of the machine does not tilt the fit
_FEW_ROUNDS: Final = 2  # for loads whose prompts alone take seconds
_LARGE: Final = 50_000  # prompt tokens of such a load
_FIRST_TOKENS: Final = 7
_ROOM: Final = 3  # probes that fit into the answer of a sequence beside them, at least
_FAILURES: Final = 2  # of a load that was never measured, before it is given up
_MOST_CONTEXT: Final = 500_000  # tokens; filling a larger KV cache would take minutes
_PILOT: Final = 1024  # prompt tokens by which the duration is estimated
_MOST_ANSWER: Final = 512  # output tokens while max_num_seqs is found; 0.25 s at 0.5 ms each
_POLL_S: Final = 0.05
_STEADY_S: Final = 1.0  # without one more running sequence: as many as will run
_START_S: Final = 60


class ProbeError(VllmError):
    """One probe was no measurement of its load; the next one may be."""


@dataclass(frozen=True, slots=True)
class Point:
    """A load at which an iteration is measured: a number of sequences and their prompt tokens.

    tokens: output tokens of the probe, which is one of the sequences. beside: output tokens of the
    others, as many as fit: they run from before the probe's prefill to its last token.
    """

    sequences: int
    prompt_tokens: int
    tokens: int
    beside: int

    def __str__(self) -> str:
        return f"{self.sequences} sequences of {self.prompt_tokens} prompt tokens"


@dataclass(frozen=True, slots=True)
class Measured:
    """All measurements of a server; max_num_seqs is at most the number that was tried.

    missing: a sentence for each planned measurement that could not be made.
    """

    measurements: tuple[Measurement, ...]
    max_num_seqs: int
    missing: tuple[str, ...] = ()


class _Load:
    """The probes of one point over all rounds."""

    def __init__(self, point: Point) -> None:
        self.point = point
        self.probes: list[Decode] = []
        self._faults: list[str] = []

    async def probe(self, vllm: Vllm) -> None:
        """Add a probe, a shorter one after a failure, unless the load was given up."""
        if not self.probes and len(self._faults) >= _FAILURES:
            return
        shorter = replace(self.point, tokens=max(_LEAST_TOKENS, self.point.tokens // 2))
        try:
            self.probes.append(await _decode(vllm, shorter if self._faults else self.point))
        except ProbeError as error:
            self._faults.append(str(error))

    def missing(self) -> list[str]:
        """Say why there is no probe; empty if there is one or none was tried."""
        return [] if self.probes else self._faults[-1:]


async def measure(vllm: Vllm, most: int, show: Show) -> Measured:
    """Measure with up to `most` concurrent sequences; says how long it will take.

    Raises VllmError if nothing could be measured.
    """
    await _first_token(vllm, _SHORT)
    show.say("Finding max_num_seqs")
    seqs = await find_max_num_seqs(vllm, most)
    loads = [_Load(point) for point in decode_points(vllm.facts, seqs)]
    prefills: list[Measurement] = []
    ended: list[str] = []
    try:
        await _measure_all(vllm, prefills, loads, show)
    except VllmError as error:
        ended = [f"the measurement ended early: {error}"]
    decodes = [_mean(load.probes) for load in loads if load.probes]
    if not prefills and not decodes:
        raise VllmError(*ended)
    missing = [reason for load in loads for reason in load.missing()]
    return Measured((*prefills, *decodes), seqs, (*missing, *ended))


async def _measure_all(
    vllm: Vllm, prefills: list[Measurement], loads: list[_Load], show: Show
) -> None:
    prompts = prompt_sizes(vllm.facts)
    probes = [load for number in range(_ROUNDS) for load in loads if number < rounds_of(load.point)]
    takes_s = await _estimate_s(vllm, prompts, [load.point for load in probes])
    show.begin(f"Measuring, about {sum(takes_s):.0f} s", takes_s)
    for prompt_tokens in prompts:
        prefills.append(await _prefill(vllm, prompt_tokens))
        show.advance()
    for load in probes:
        await load.probe(vllm)
        show.advance()


def rounds_of(point: Point) -> int:
    """Return how often a load is probed."""
    return _FEW_ROUNDS if point.sequences * point.prompt_tokens > _LARGE else _ROUNDS


async def _estimate_s(vllm: Vllm, prompts: Sequence[int], probes: Sequence[Point]) -> list[float]:
    """Return the seconds that each measurement will take, by the prefill of one prompt."""
    pilot = min(_PILOT, prompts[-1])
    each_s = await _first_token(vllm, _SHORT) / 1e3
    token_s = await _first_token(vllm, pilot) / 1e3 / pilot
    prefills = [_FIRST_TOKENS * (token_s * prompt + each_s) for prompt in prompts]
    # Three requests beside the tokens of a probe, each of which takes about as long as the first.
    decodes = [
        token_s * point.sequences * point.prompt_tokens + each_s * (point.tokens + 3)
        for point in probes
    ]
    return prefills + decodes


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
    # Each filling with few and with many sequences: entries and sequences that always grow together
    # could not be told apart (fitting). So a fourth of the sequences must hold the fuller one.
    longest = 0.75 * facts.max_model_len
    full = min(facts.kv_tokens, _MOST_CONTEXT)
    tokens = min(full, max(1, max_num_seqs // 4) * longest / 0.7)
    for share, times in ((0.35, (1, 3)), (0.7, (1, 2, 4))):
        fewest = max(1, math.ceil(share * tokens / longest))
        points += [_point(facts, k * fewest, int(share * tokens / k / fewest)) for k in times]
    # As many as will run in the largest pool, with as much in the KV cache as there is at the peak.
    many = max_num_seqs // 2
    if many > (fewest if tokens < full else 4 * fewest):
        points.append(_point(facts, many, int(min(longest, 0.7 * full / many))))
    return tuple(p for p in points if p.tokens >= _LEAST_TOKENS and p.sequences <= max_num_seqs)


def _doubling(most: int) -> Iterator[int]:
    n = 1
    while n < most:
        yield n
        n *= 2


def _point(facts: Facts, sequences: int, prompt_tokens: int) -> Point:
    room = min(facts.kv_tokens // sequences - facts.block_size, facts.max_model_len) - prompt_tokens
    return Point(sequences, prompt_tokens, min(_MOST_TOKENS, room // _ROOM), room)


async def find_max_num_seqs(vllm: Vllm, most: int) -> int:
    """Send `most` requests at once; return how many ran, which a full KV cache limits too."""
    length = Length(_SHORT, _longest_answer(vllm.facts, most))
    tasks = [asyncio.create_task(vllm.complete(length, Streamed())) for _ in range(most)]
    seen, rose_s = 0, time.monotonic()
    try:
        while not all(task.done() for task in tasks):
            await asyncio.sleep(_POLL_S)
            running = int(await vllm.metric("vllm:num_requests_running"))
            if running > seen:
                seen, rose_s = running, time.monotonic()
            elif seen and time.monotonic() - rose_s > _STEADY_S:
                break
    finally:
        await _stop(tasks)
    return max(1, seen)


def _longest_answer(facts: Facts, sequences: int) -> int:
    """Return output tokens that keep a fast server busy, without filling its KV cache."""
    share = min(facts.kv_tokens // sequences - facts.block_size, facts.max_model_len) - _SHORT
    return max(facts.block_size, min(share, _MOST_ANSWER))


async def _prefill(vllm: Vllm, prompt_tokens: int) -> FirstToken:
    times = [await _first_token(vllm, prompt_tokens) for _ in range(_FIRST_TOKENS)]
    return FirstToken(prompt_tokens=prompt_tokens, measured_ms=median(times))


async def _first_token(vllm: Vllm, prompt_tokens: int) -> float:
    streamed = Streamed()
    await vllm.complete(Length(prompt_tokens, 1), streamed)
    return (streamed.first_s - streamed.sent_s) * 1e3


async def _decode(vllm: Vllm, point: Point) -> Decode:
    """Return a probe. Raises ProbeError if it does not measure the load."""
    preemptions = await vllm.metric("vllm:num_preemptions_total")
    async with _running_beside(vllm, point) as beside:
        probe = await _probe(vllm, point, beside)
        ended = any(one.over for one in beside)
    if await vllm.metric("vllm:num_preemptions_total") > preemptions:
        raise ProbeError(f"the server preempted at {point}; it must have no other traffic")
    if ended:
        raise ProbeError(f"answers ended before the probe at {point}; is there other traffic?")
    return probe


def _mean(probes: Sequence[Decode]) -> Decode:
    # With noisy times a fit of relative errors follows the shortest, so it is given means.
    return Decode(
        sequences=probes[0].sequences,
        kv_tokens=fmean(probe.kv_tokens for probe in probes),
        measured_ms=fmean(probe.measured_ms for probe in probes),
    )


async def _probe(vllm: Vllm, point: Point, beside: list[Streamed]) -> Decode:
    """Decode one more sequence beside the running ones. Raises ProbeError if it took no time."""
    streamed = Streamed()
    await vllm.complete(Length(point.prompt_tokens, point.tokens), streamed)
    if streamed.last_s == streamed.first_s:
        raise ProbeError(f"all tokens of the probe arrived at once at {point}")
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
    """Keep all but one sequence decoding. Raises ProbeError if one of them does not start."""
    beside = [Streamed() for _ in range(point.sequences - 1)]
    length = Length(point.prompt_tokens, point.beside)
    tasks = [asyncio.create_task(vllm.complete(length, one)) for one in beside]
    try:
        try:
            await asyncio.wait_for(asyncio.gather(*(b.begun.wait() for b in beside)), _START_S)
        except TimeoutError:
            for task in tasks:
                if task.done():
                    task.result()  # raises the cause
            raise ProbeError(f"not all sequences started within {_START_S} s at {point}") from None
        yield beside
    finally:
        await _stop(tasks)
    await _first_token(vllm, _SHORT)  # by then the server has aborted them


async def _stop(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
