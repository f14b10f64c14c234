"""Section metrics: how long /metrics keeps decisions waiting, with a thousand categories."""

import asyncio
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Final

import aiohttp
from rich.table import Table

from benchmarks.bodies import KIB, text_body
from benchmarks.engine import Engine
from benchmarks.messages import answer_messages, request_messages
from benchmarks.peer import PeerConnection, connect, in_turn
from benchmarks.rig import Rig, Service
from benchmarks.run import Plan, Result, Tools, new_table, spread
from benchmarks.turns import Stops, measure_stops
from extproc.config.settings import Settings, Transport
from extproc.progress import Show

_HEADER: Final = "x-task"
_CATEGORIES: Final = 1000
_PAGES: Final = 5
_QUIET_S: Final = 1.0
_PER_CONNECTION: Final = 500
_METHOD: Final = """\
Median [lowest, highest] of the rounds: the longest time of a decision, one request after another
from a client in Python, without and beside {pages} reads of /metrics; and the median of these.
On a busy machine these are times of its scheduler. So the second table has the CPU time between two
turns of an event loop that always has work, of its own thread and of the whole process: the longest
of each page, and of as many pauses, in the median.
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """Milliseconds of one transport in one round: the longest decisions, and a page."""

    quiet: float
    beside: float
    page: float


async def measure(plan: Plan, tools: Tools, show: Show) -> Result:
    """Measure both transports."""
    found: dict[str, list[Figures]] = {}
    transports = (Transport.GRPC, Transport.H2)
    show.begin("metrics", plan.rounds * (len(transports) + 1))
    more = {"categories": {"header": _HEADER, "max": 1023}}
    async with aiohttp.ClientSession() as session:
        for transport in transports:
            async with Rig(session, Service(transport), pool=tools.pool, more=more) as rig:
                await _teach(rig.grpc_port, Settings.model_validate(more), quick=plan.quick)
                for _ in range(plan.rounds):
                    figures = await _measure(session, rig)
                    found.setdefault(str(transport), []).append(figures)
                    show.advance()
    stops = list[tuple[Stops, Stops]]()
    for _ in range(plan.rounds):
        count = _categories(quick=plan.quick)
        stops.append(await measure_stops(Settings.model_validate(more), _HEADER, count))
        show.advance()
    tables = (_table(found), _stops_table(stops), _METHOD.format(pages=_PAGES))
    return Result(tables, {"transports": found, "stops": stops})


def _categories(*, quick: bool) -> int:
    return 100 if quick else _CATEGORIES


async def _teach(port: int, settings: Settings, *, quick: bool) -> None:
    """Have the service decide a request of each category and learn its answer."""
    engine, body = Engine(settings), text_body(KIB)
    calls = []
    for index in range(_categories(quick=quick)):
        if index % _PER_CONNECTION == 0:
            peer = await connect(port)
        request = request_messages(body.data, {_HEADER: f"task-{index}"})
        answer = answer_messages(engine.decide(request), body.prompt_tokens)
        number = 4 * (index % _PER_CONNECTION) + 1
        calls.append(partial(_decide, peer, number, (request.head, request.body)))
        calls.append(partial(_observe, peer, number + 2, answer))
    # Streams of a connection must be opened in their order.
    await in_turn(calls, 1)


async def _decide(peer: PeerConnection, number: int, messages: Sequence[bytes]) -> None:
    first = peer.answered(number)
    peer.open([number], messages[0])
    await first
    last = peer.answered(number)
    peer.send(number, messages[1])
    await last


async def _observe(peer: PeerConnection, number: int, messages: Sequence[bytes]) -> None:
    end = peer.answered(number)
    peer.open([number], messages[0])
    for message in messages[1:]:
        peer.send(number, message)
    await end


async def _measure(session: aiohttp.ClientSession, rig: Rig) -> Figures:
    peer, pages = await connect(rig.grpc_port), list[float]()
    numbers = iter(range(1, 1 << 30, 2))
    quiet = await _longest(peer, numbers, asyncio.sleep(_QUIET_S))
    beside = await _longest(peer, numbers, _read_pages(session, rig, pages))
    peer.abort()
    return Figures(quiet, beside, median(pages))


async def _longest(peer: PeerConnection, numbers: Iterator[int], until: Awaitable[None]) -> float:
    """Decide requests one after another as long as `until` takes; return the longest time in ms."""
    request, longest = request_messages(text_body(KIB).data), 0.0
    waiting = asyncio.ensure_future(until)
    while not waiting.done():
        start = time.monotonic()
        await _decide(peer, next(numbers), (request.head, request.body))
        longest = max(longest, time.monotonic() - start)
    await waiting
    return longest * 1000


async def _read_pages(session: aiohttp.ClientSession, rig: Rig, pages: list[float]) -> None:
    for _ in range(_PAGES):
        start = time.monotonic()
        async with session.get(f"{rig.http_url}/metrics") as answer:
            await answer.read()
        pages.append((time.monotonic() - start) * 1000)


def _table(found: Mapping[str, Sequence[Figures]]) -> Table:
    table = new_table("Longest decision, ms", "", ("quiet", "beside /metrics", "a page, ms"))
    for name, rounds in found.items():
        table.add_row(
            name,
            spread([each.quiet for each in rounds], ".1f"),
            spread([each.beside for each in rounds], ".1f"),
            spread([each.page for each in rounds], ".0f"),
        )
    return table


def _stops_table(rounds: Sequence[tuple[Stops, Stops]]) -> Table:
    table = new_table("Longest stop of the event loop, ms of CPU", "", ("quiet", "beside /metrics"))
    for name in ("loop", "process"):
        quiet = [getattr(each[0], name) for each in rounds]
        beside = [getattr(each[1], name) for each in rounds]
        table.add_row(name, spread(quiet, ".1f"), spread(beside, ".1f"))
    return table
