"""Section streams: many streams that have sent their headers and wait, and then send their bodies.

Streams go to the server itself: an Envoy would hold as many requests open.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from statistics import quantiles
from typing import Final

import aiohttp
from rich.table import Table

from benchmarks.bodies import KIB, text_body
from benchmarks.messages import RequestMessages, request_messages
from benchmarks.peer import PeerConnection, connect, in_turn
from benchmarks.recorded import recorded_answers
from benchmarks.requests import NONE, SERVERS, servers
from benchmarks.rig import Null, Rig, Service, rss_kib
from benchmarks.run import Plan, Result, Tools, new_table, rotated, spread
from extproc.progress import Show

_PER_CONNECTION: Final = 500
_BATCH: Final = 50
_AT_ONCE: Final = 16
_SETTLE_S: Final = 0.3
_METHOD: Final = """\
Median [lowest, highest] of {rounds} rounds, each with a new process. Opened: HEADERS and the first
message, {batch} at a time, all answered before the next. Decision: from sending a body of 1 KB to
its answer, {at_once} at a time; the client, in Python, is part of it.
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """One server with one number of streams in one round."""

    opened_s: float
    idle_mib: float
    stream_kib: float
    refused: int
    p50_ms: float
    p99_ms: float


_Held = Sequence[tuple[PeerConnection, int]]


async def measure(plan: Plan, tools: Tools, show: Show) -> Result:
    """Measure each server with each number of streams."""
    counts = (10,) if plan.quick else (10, 100, 1000, 10_000)
    request = request_messages(text_body(KIB).data)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        answers = stack.enter_context(recorded_answers())
        chosen = [name for name in plan.servers or SERVERS if name not in {NONE, "ngh2"}]
        known = servers(chosen, tools, answers)
        found: dict[int, dict[str, list[Figures]]] = {
            count: {name: [] for name in known} for count in counts
        }
        show.begin("streams", plan.rounds * len(counts) * len(known))
        for number in range(plan.rounds):
            for count in counts:
                for name in rotated(tuple(known), number):
                    figures = await _measure(session, tools, known[name], request, count)
                    found[count][name].append(figures)
                    show.advance()
    text = _METHOD.format(rounds=plan.rounds, batch=_BATCH, at_once=_AT_ONCE)
    return Result((_table(found), text), found)


async def _measure(
    session: aiohttp.ClientSession,
    tools: Tools,
    server: Service | Null,
    request: RequestMessages,
    count: int,
) -> Figures:
    async with Rig(session, server, pool=tools.pool) as rig:
        idle, start = rss_kib(rig.server.pid), time.monotonic()
        peers = await _open(rig.grpc_port, request, count)
        opened_s = time.monotonic() - start
        await asyncio.sleep(_SETTLE_S)
        held_kib = rss_kib(rig.server.pid) - idle
        refused = sum(len(peer.refused) for peer in peers)
        times = await _decide(_open_streams(peers, count), request.body)
        for peer in peers:
            peer.abort()
    cuts = quantiles(times, n=100, method="inclusive")
    return Figures(opened_s, idle / 1024, held_kib / count, refused, cuts[49], cuts[98])


async def _open(port: int, request: RequestMessages, count: int) -> list[PeerConnection]:
    peers = []
    for start in range(0, count, _PER_CONNECTION):
        peer = await connect(port)
        peers.append(peer)
        size = min(_PER_CONNECTION, count - start)
        for first in range(0, size, _BATCH):
            numbers = range(2 * first + 1, 2 * min(first + _BATCH, size) + 1, 2)
            answers = [peer.answered(number) for number in numbers]
            peer.open(numbers, request.head)
            await asyncio.gather(*answers)
    return peers


def _open_streams(peers: Sequence[PeerConnection], count: int) -> _Held:
    places = (divmod(index, _PER_CONNECTION) for index in range(count))
    streams = ((peers[connection], 2 * index + 1) for connection, index in places)
    return [(peer, number) for peer, number in streams if number not in peer.refused]


async def _decide(held: _Held, body: bytes) -> list[float]:
    """Return the milliseconds from each body to its answer."""
    times: list[float] = []

    async def send(peer: PeerConnection, number: int) -> None:
        start, answer = time.monotonic(), peer.answered(number)
        peer.send(number, body)
        await answer
        times.append((time.monotonic() - start) * 1000)

    await in_turn([partial(send, peer, number) for peer, number in held], _AT_ONCE)
    return times


def _table(found: Mapping[int, Mapping[str, Sequence[Figures]]]) -> Table:
    columns = ("opened s", "KiB per stream", "refused", "decision P50 ms", "P99 ms")
    table = new_table("Streams held, then answered", "", columns)
    for count, servers_ in found.items():
        for name, rounds in servers_.items():
            table.add_row(
                f"{count:,} {name}",
                spread([each.opened_s for each in rounds], ".2f"),
                spread([each.stream_kib for each in rounds], ".1f"),
                str(max(each.refused for each in rounds)),
                spread([each.p50_ms for each in rounds], ".2f"),
                spread([each.p99_ms for each in rounds], ".2f"),
            )
        table.add_section()
    return table
