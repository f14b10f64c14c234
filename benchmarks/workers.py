"""Section workers: the service's CPU per request with 1, 2 and 4 workers.

No Envoy: each worker gets a steady load on a connection of its own.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from rich.table import Table

from benchmarks.bodies import make_body
from benchmarks.engine import Engine
from benchmarks.messages import RequestMessages, answer_messages, request_messages
from benchmarks.peer import PeerConnection, connect
from benchmarks.rig import BenchmarkError, Rig, Service, cpu_s
from benchmarks.run import Plan, Result, Tools, new_table, ratios, rotated, spread
from extproc.config.settings import Settings, Transport
from extproc.progress import Show

_WORKERS: Final = (1, 2, 4)
_RATE: Final = 200  # requests a second and worker
_OBSERVED: Final = 10  # one in so many; of a calibrated category the service has fewer observed
_BODIES: Final = 300
_BYTES_PER_TOKEN: Final = 4.0
_TICK_S: Final = 0.02
_WARM_S: Final = 2.0
_SETTLE_S: Final = 0.3
_DECIDED_S: Final = 20.0
_POLL_S: Final = 0.5
_METHOD: Final = """\
Median [lowest, highest] of the rounds. All processes of the service together. Each worker gets
{rate} requests of about 1 KB a second, of which one in {observed} is observed.
"""


@dataclass(frozen=True, slots=True)
class _Exchange:
    """The messages about one request and its answer."""

    request: RequestMessages
    answer: tuple[bytes, ...]


async def measure(plan: Plan, tools: Tools, show: Show) -> Result:
    """Measure each number of workers."""
    exchanges = _exchanges()
    seconds = 1.0 if plan.quick else 8.0
    found: dict[int, list[float]] = {workers: [] for workers in _WORKERS}
    show.begin("workers", plan.rounds * len(_WORKERS))
    async with aiohttp.ClientSession() as session:
        for number in range(plan.rounds):
            for workers in rotated(_WORKERS, number):
                cost = await _measure(session, tools, exchanges, workers, seconds)
                found[workers].append(cost)
                show.advance()
    return Result((_table(found), _METHOD.format(rate=_RATE, observed=_OBSERVED)), found)


async def _measure(
    session: aiohttp.ClientSession,
    tools: Tools,
    exchanges: Sequence[_Exchange],
    workers: int,
    seconds: float,
) -> float:
    """Return the microseconds of CPU per request. Raises BenchmarkError if one was not served."""
    with tempfile.TemporaryDirectory(prefix="dualpool-") as folder:
        path = Path(folder) / "s"
        paths = [path] if workers == 1 else [Path(f"{path}.{each}") for each in range(workers)]
        more = {"workers": workers}
        async with Rig(
            session, Service(Transport.H2), pool=tools.pool, more=more, socket=path
        ) as rig:
            peers = [await connect(each) for each in paths]
            count = await _send(peers, exchanges, _WARM_S, first=0)
            await _until_decided(session, rig, count)
            before = _cpu_s(rig.server.pid)
            sent = await _send(peers, exchanges, seconds, first=count // workers)
            await asyncio.sleep(_SETTLE_S)
            spent = _cpu_s(rig.server.pid) - before
            await _until_decided(session, rig, count + sent)
            for peer in peers:
                peer.abort()
    return spent * 1e6 / sent


async def _send(
    peers: Sequence[PeerConnection], exchanges: Sequence[_Exchange], seconds: float, first: int
) -> int:
    """Send exchanges to each peer at a steady rate, after its first ones; return how many."""
    draw = random.Random(first)  # noqa: S311 - nothing secret
    start, sent = time.monotonic(), 0
    while (passed := time.monotonic() - start) < seconds:
        while sent < _RATE * passed:
            for peer in peers:
                _send_one(peer, draw.choice(exchanges), first + sent)
            sent += 1
        await asyncio.sleep(_TICK_S)
    return sent * len(peers)


def _send_one(peer: PeerConnection, exchange: _Exchange, index: int) -> None:
    number = 4 * index + 1
    peer.open([number], exchange.request.head)
    peer.send(number, exchange.request.body)
    if index % _OBSERVED == 0:
        peer.open([number + 2], exchange.answer[0])
        for message in exchange.answer[1:]:
            peer.send(number + 2, message)


def _exchanges() -> list[_Exchange]:
    """Return requests with prompts of many sizes, as a service has noted that knows nothing."""
    engine, draw = Engine(Settings()), random.Random(0)  # noqa: S311 - nothing secret
    return [_exchange(engine, draw, seed) for seed in range(_BODIES)]


def _exchange(engine: Engine, draw: random.Random, seed: int) -> _Exchange:
    body = make_body(int(800 * draw.lognormvariate(0, 0.8)) + 300, seed)
    request = request_messages(body)
    tokens = round(len(body) / draw.gauss(_BYTES_PER_TOKEN, 0.2))
    return _Exchange(request, answer_messages(engine.decide(request), tokens))


async def _until_decided(session: aiohttp.ClientSession, rig: Rig, count: int) -> None:
    end = time.monotonic() + _DECIDED_S
    while (decided := await _decided(session, rig)) != count:
        if time.monotonic() > end:
            raise BenchmarkError(f"{decided} of {count} requests were decided")
        await asyncio.sleep(_POLL_S)


async def _decided(session: aiohttp.ClientSession, rig: Rig) -> int:
    async with session.get(f"{rig.http_url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    counted = [line for line in lines if line.startswith("dualpool_decisions_total")]
    return sum(int(float(line.rpartition(" ")[2])) for line in counted)


def _cpu_s(pid: int) -> float:
    """Return the CPU seconds of a service and its workers."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(cpu_s, (pid, *map(int, children))))


def _table(found: Mapping[int, Sequence[float]]) -> Table:
    table = new_table("Workers", "", ("CPU, us per request", "x one worker"))
    for workers, costs in found.items():
        table.add_row(str(workers), spread(costs), spread(ratios(costs, found[_WORKERS[0]]), ".2f"))
    return table
