"""`python -m benchmarks.overload`: what others notice of a client whose bodies are costly to read.

Small requests are sent at a steady rate, first alone and then beside the costly bodies. The same is
measured on an Envoy without the service: what Envoy, the pool and this client cost each other.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import quantiles
from typing import Final

import aiohttp
import brotli  # type: ignore[import-untyped]
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.bodies import make_body
from benchmarks.forms import REQUESTS, FormRow
from benchmarks.rig import BenchmarkEnvoy, BenchmarkError, Rig
from extproc.local.children import StackError
from extproc.output import report_console

_MIB: Final = 1 << 20
_WIDTH: Final = 120
_SMALL_BYTES: Final = 1024
_WARM_S: Final = 1.0
_JSON: Final = {"content-type": "application/json"}
_BROTLI: Final = _JSON | {"content-encoding": "br"}
_WITHOUT, _WITH = REQUESTS[0], REQUESTS[1]


@dataclass(frozen=True, slots=True)
class CostlyBody:
    """A body that is costly to read for its bytes."""

    path: str
    data: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Window:
    """The small requests of some seconds.

    routed: how many the service decided by their content. service_s: its CPU seconds.
    """

    times_ms: list[float]
    routed: int
    service_s: float

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of the times."""
        return quantiles(self.times_ms, n=100, method="inclusive")[98]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Small and costly requests a second, and the seconds of each measurement."""

    seconds: float = 60.0
    rate: float = 50.0
    costly_rate: float = 3.0


def costly_bodies() -> dict[str, CostlyBody]:
    """Return the bodies by name."""
    chat, completions = "/v1/chat/completions", "/v1/completions"
    texts = _filled(b'{"prompt":["', b'a","', b'a"]}', 4 * _MIB)
    parts = _filled(b'{"messages":[{"content":[', b'{"text":"a"},', b"1]}]}", _MIB)
    return {
        "[1], in a prompt": _plain(completions, _filled(b'{"prompt":[', b"[1],", b"[1]]}", _MIB)),
        "texts in a prompt": _plain(completions, texts),
        "lists as texts": _plain(chat, _filled(b'{"messages":["', b'[","', b'"]}', 4 * _MIB)),
        "keys": _plain(chat, _keys(4 * _MIB)),
        "messages": _plain(chat, _filled(b'{"messages":[', b'{"content":"a"},', b"1]}", _MIB)),
        "brotli": CostlyBody(chat, brotli.compress(parts, quality=5), _BROTLI),
    }


def _plain(path: str, data: bytes) -> CostlyBody:
    return CostlyBody(path, data, _JSON)


def _filled(head: bytes, filling: bytes, tail: bytes, size: int) -> bytes:
    return head + filling * ((size - len(head) - len(tail)) // len(filling)) + tail


def _keys(size: int) -> bytes:
    keys = b",".join(b'"%06x":1' % number for number in range(size // 11 - 4))
    return b'{"messages":[{%b}]}' % keys


async def measure(
    session: aiohttp.ClientSession, gateway: BenchmarkEnvoy, plan: Plan, costly: CostlyBody | None
) -> Window:
    """Send small requests, and costly ones beside them if there are any."""
    start = gateway.service_cpu_s()
    async with _sending(session, gateway, plan, costly):
        answers = await _send_small(session, gateway, plan)
    times, reasons = zip(*answers, strict=True)
    routed = sum(reason not in {"", "busy"} for reason in reasons)
    return Window(list(times), routed, gateway.service_cpu_s() - start)


@asynccontextmanager
async def _sending(
    session: aiohttp.ClientSession, gateway: BenchmarkEnvoy, plan: Plan, costly: CostlyBody | None
) -> AsyncIterator[None]:
    if costly is None:
        yield
        return
    url, sent = gateway.url.replace("/v1/chat/completions", costly.path), list[asyncio.Task[None]]()

    async def post() -> None:
        async with session.post(url, data=costly.data, headers=costly.headers) as answer:
            await answer.read()

    async def attack() -> None:
        while True:
            sent.append(asyncio.create_task(post()))
            await asyncio.sleep(1 / plan.costly_rate)

    attacking = asyncio.create_task(attack())
    try:
        yield
    finally:
        attacking.cancel()
        await asyncio.gather(*sent)


async def _send_small(
    session: aiohttp.ClientSession, gateway: BenchmarkEnvoy, plan: Plan
) -> list[tuple[float, str]]:
    body = make_body(_SMALL_BYTES, 0)

    async def post() -> tuple[float, str]:
        start = time.monotonic()
        async with session.post(gateway.url, data=body, headers=_JSON) as answer:
            await answer.read()
        if answer.status != 200:
            raise BenchmarkError(f"a small request was answered with {answer.status}")
        return (time.monotonic() - start) * 1000, answer.headers.get("x-llm-reason", "")

    # At a steady rate, however late the answers are.
    tasks, begin = [], time.monotonic()
    for number in range(round(plan.seconds * plan.rate)):
        await asyncio.sleep(max(0.0, begin + number / plan.rate - time.monotonic()))
        tasks.append(asyncio.create_task(post()))
    return await asyncio.gather(*tasks)


@dataclass(frozen=True, slots=True)
class _Pair:
    quiet: Window
    beside: Window

    @property
    def slower(self) -> float:
        return self.beside.p99_ms / self.quiet.p99_ms


async def _pair(
    session: aiohttp.ClientSession, rig: Rig, row: FormRow, plan: Plan, costly: CostlyBody
) -> _Pair:
    async with rig.gateway(row) as gateway:
        await measure(session, gateway, Plan(seconds=_WARM_S), None)
        quiet = await measure(session, gateway, plan, None)
        return _Pair(quiet, await measure(session, gateway, plan, costly))


async def _run(plan: Plan, bodies: Mapping[str, CostlyBody], console: Console) -> None:
    table = Table(title=f"{plan.costly_rate:g} costly bodies a second, beside {plan.rate:g} small")
    for column in ("body", "bytes", "CPU ms", "P99 ms quiet", "beside", "times", "routed %"):
        table.add_column(column, justify="left" if column == "body" else "right")
    table.add_column("without the service: quiet, beside, times", justify="right")
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        Rig(session, message_timeout_ms=1000) as rig,
    ):
        for name, costly in bodies.items():
            floor = await _pair(session, rig, _WITHOUT, plan, costly)
            found = await _pair(session, rig, _WITH, plan, costly)
            cpu_s = found.beside.service_s - found.quiet.service_s
            table.add_row(
                name,
                f"{len(costly.data):,}",
                f"{1000 * cpu_s / (plan.costly_rate * plan.seconds):.1f}",
                f"{found.quiet.p99_ms:.1f}",
                f"{found.beside.p99_ms:.1f}",
                f"{found.slower:.1f}",
                f"{100 * found.beside.routed / len(found.beside.times_ms):.1f}",
                f"{floor.quiet.p99_ms:.1f} {floor.beside.p99_ms:.1f} {floor.slower:.1f}",
            )
    console.print(table)


def main() -> int:
    """Run the benchmark and print the table; return 1 if it failed or its figures are invalid."""
    bodies = costly_bodies()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=Plan().seconds)
    parser.add_argument("--rate", type=float, default=Plan().rate, help="small requests a second")
    parser.add_argument("--costly-rate", type=float, default=Plan().costly_rate)
    parser.add_argument("--body", choices=bodies, nargs="+", default=list(bodies))
    options = parser.parse_args()
    plan = Plan(seconds=options.seconds, rate=options.rate, costly_rate=options.costly_rate)
    chosen = {name: bodies[name] for name in options.body}
    try:
        uvloop.run(_run(plan, chosen, report_console(_WIDTH)))
    except (StackError, BenchmarkError) as error:
        print(f"overload: {error}", file=sys.stderr)  # noqa: T201 - read by a person
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
