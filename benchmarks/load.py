"""The client: reads streams with timed chunks, and posts bodies of a given size."""

import asyncio
import random
import time
from dataclasses import dataclass

import aiohttp

from benchmarks.bodies import encode_chat
from benchmarks.rig import BenchmarkError
from benchmarks.upstream import END, STAMP, USAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """Concurrent streams, chunks per stream and ms between them; posts of each body."""

    streams: int = 8
    chunks: int = 500
    gap_ms: float = 5.0
    posts: int = 100


async def read_streams(
    session: aiohttp.ClientSession, url: str, plan: StreamPlan, *, states_usage: bool
) -> list[float]:
    """Read all streams concurrently; return the delays of all chunks in milliseconds.

    Raises BenchmarkError if a stream lacks a chunk, its end or its usage, or has usage that its
    client did not request.
    """
    draw = random.Random(0)  # noqa: S311 - nothing secret
    body = _stream_body(states_usage=states_usage)
    # Otherwise all streams would write their chunks at the same time.
    starts = [draw.random() * plan.gap_ms / 1000 for _ in range(plan.streams)]
    answers = [_read_stream(session, url, plan, body, start) for start in starts]
    delays = []
    for events in await asyncio.gather(*answers):
        _check(events, plan.chunks, states_usage=states_usage)
        delays += [delay for event, at in events if (delay := _delay(event, at)) is not None]
    if len(delays) != plan.streams * plan.chunks:
        raise BenchmarkError(f"{len(delays)} chunks of {plan.streams * plan.chunks} arrived")
    return delays


async def post_bodies(
    session: aiohttp.ClientSession, url: str, body: bytes, count: int
) -> list[float]:
    """Post a body `count` times; return the milliseconds to the end of each answer.

    Raises BenchmarkError if one is not answered with 200.
    """
    times = []
    for _ in range(count):
        start = time.monotonic_ns()
        async with session.post(url, data=body, headers=_JSON) as answer:
            await answer.read()
        times.append((time.monotonic_ns() - start) / 1e6)
        if answer.status != 200:
            raise BenchmarkError(f"a body of {len(body)} bytes was answered with {answer.status}")
    return times


_JSON = {"content-type": "application/json"}


def _stream_body(*, states_usage: bool) -> bytes:
    stated: dict[str, object] = {"stream_options": {"include_usage": True}} if states_usage else {}
    text = "Write five hundred words about owls."
    return encode_chat(text, stream=True, **stated)


async def _read_stream(
    session: aiohttp.ClientSession, url: str, plan: StreamPlan, body: bytes, start_s: float
) -> list[tuple[bytes, int]]:
    """Return each event with the time.monotonic_ns() at which it was read."""
    await asyncio.sleep(start_s)
    headers = _JSON | {"x-chunks": str(plan.chunks), "x-gap-ms": str(plan.gap_ms)}
    events, held = [], b""
    async with session.post(url, data=body, headers=headers) as answer:
        async for data in answer.content.iter_any():
            now = time.monotonic_ns()
            *whole, held = (held + data).split(b"\n\n")
            events += [(event, now) for event in whole]
    return events


def _delay(event: bytes, at: int) -> float | None:
    found = STAMP.search(event)
    return (at - int(found[1])) / 1e6 if found else None


def _check(events: list[tuple[bytes, int]], chunks: int, *, states_usage: bool) -> None:
    # A chunk with the role comes first; the finish reason and [DONE] come last.
    expected = chunks + 3 + states_usage
    if len(events) != expected or events[-1][0] != END:
        raise BenchmarkError(f"a stream of {expected} events came as {len(events)}")
    if any(USAGE in event for event, _ in events) != states_usage:
        raise BenchmarkError("requested usage is missing, or there is usage that was not requested")
