"""`python -m benchmarks.live_outage`: the service is killed under load, and is back a minute later.

The stack of `dualpool up`: the real Envoy, the service and two simulated pools. Prints for each
pool what clients saw before, during and after the outage, and how long the service took to be
ready, and to be used, after its new start.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Final

import aiohttp
from rich.console import Console
from rich.table import Table

from extproc.config.load import load
from extproc.envoy.render import render_envoy
from extproc.local.children import Child, Children, Command, StackError
from extproc.local.client import ClientAnswer, Ending, SendOptions, send_all
from extproc.local.envoy import envoy_command
from extproc.local.ports import free_ports
from extproc.local.sources import built_in_sources
from extproc.local.stack import Stack, StackOptions, service_settings
from extproc.local.traffic import TrafficOptions, make_traffic
from extproc.names import REASON_HEADER
from extproc.output import report_console

_READY_S: Final = 30.0
_POLL_S: Final = 0.02
_SMALL: Final = {"model": "simulated", "prompt": "owl", "max_tokens": 1}
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Requests a second, and the seconds before, of and after the outage."""

    rate: float = 8.0
    around_s: float = 20.0
    away_s: float = 60.0
    envoy: dict[str, object]


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds from the service's start until it is ready, and from then until it is used."""

    ready_s: float
    used_s: float


class Outage:
    """The stack, of which the service can be killed and started again."""

    def __init__(self, session: aiohttp.ClientSession, plan: Plan, say: Say) -> None:
        self._session, self._plan, self._say = session, plan, say
        self._ports = free_ports()
        self.url = self._ports.url
        self._ends = AsyncExitStack()
        self._children = Children()
        self._service: Child | None = None
        self._settings = Path()

    async def open(self) -> None:
        """Start everything. Raises StackError if a part does not become ready."""
        options = StackOptions(ports=self._ports)
        stack = await self._ends.enter_async_context(Stack(options, self._session, self._say))
        pools = await stack.open_pools()
        folder = self._ends.enter_context(tempfile.TemporaryDirectory())
        self._settings = Path(folder) / "settings.yaml"
        upstreams = [pool.upstream for pool in pools]
        further = {"envoy": self._plan.envoy}
        settings = service_settings(self._ports, pools, upstreams, further)
        self._settings.write_text(json.dumps(settings))
        self._ends.push_async_callback(self._children.stop)
        await self._start()
        await self._children.start(envoy_command(render_envoy(load(self._settings))))
        await self._until(self._is_used)

    async def close(self) -> None:
        """Stop everything."""
        await self._ends.aclose()

    async def kill(self) -> None:
        """End the service without notice."""
        assert self._service is not None, "open"  # noqa: S101 - for the type
        os.killpg(self._service.pid, signal.SIGKILL)
        await self._service.ended()

    async def recover(self) -> Recovery:
        """Start the service again, and wait until Envoy uses it."""
        start = time.monotonic()
        await self._start()
        ready = time.monotonic()
        await self._until(self._is_used)
        return Recovery(ready - start, time.monotonic() - ready)

    async def _start(self) -> None:
        argv = (sys.executable, "-m", "extproc", "serve", "--config", str(self._settings))
        self._service = await self._children.start(Command("service", argv))
        await self._until(self._is_ready)

    async def _until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        end = time.monotonic() + _READY_S
        while not await condition():
            if time.monotonic() > end:
                raise StackError(f"not ready after {_READY_S:g} s")
            await asyncio.sleep(_POLL_S)

    async def _is_ready(self) -> bool:
        try:
            async with self._session.get(f"http://127.0.0.1:{self._ports.http}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def _is_used(self) -> bool:
        try:
            async with self._session.post(f"{self.url}/v1/completions", json=_SMALL) as answer:
                return REASON_HEADER in answer.headers
        except aiohttp.ClientError:
            return False


async def _run(plan: Plan, console: Console) -> None:
    traffic = TrafficOptions(
        requests=round(plan.rate * (2 * plan.around_s + plan.away_s)),
        seed=0,
        model="simulated",
        short=8192,
        long=65_536,
        rate=plan.rate,
    )
    items = make_traffic(built_in_sources(0), traffic)
    async with aiohttp.ClientSession() as session:
        outage = Outage(session, plan, lambda text: console.print(text, highlight=False))
        try:
            await outage.open()
            pace = SendOptions(open_loop=True)
            sending = asyncio.create_task(send_all(outage.url, items, pace, lambda _: None))
            await asyncio.sleep(plan.around_s)
            await outage.kill()
            await asyncio.sleep(plan.away_s)
            recovery = await outage.recover()
            answers = await sending
        finally:
            await outage.close()
    _print(answers, plan, console)
    text = f"Ready {recovery.ready_s:.2f} s after its start, used {recovery.used_s:.2f} s later."
    console.print(text, highlight=False)


def _print(answers: Sequence[ClientAnswer], plan: Plan, console: Console) -> None:
    table = Table(title=f"{plan.rate:g} requests/s, {plan.envoy or 'default settings'}")
    for column in ("arrived", "pool", "requests", "routed", "P50 TTFT s", "P99", "errors"):
        table.add_column(column, justify="left" if column in {"arrived", "pool"} else "right")
    begin, end = plan.around_s, plan.around_s + plan.away_s
    phases = {"before": (0.0, begin), "outage": (begin, end), "after": (end, float("inf"))}
    for phase, (first, last) in phases.items():
        arrived = [each for each in answers if first <= each.item.arrival_s < last]
        for pool in sorted({each.pool for each in arrived}):
            table.add_row(phase, pool, *_figures([a for a in arrived if a.pool == pool]))
    console.print(table)


def _figures(answers: Sequence[ClientAnswer]) -> Sequence[str]:
    waits = [answer.started_s for answer in answers if answer.item.stream]
    cuts = quantiles(waits, n=100, method="inclusive") if len(waits) > 1 else [0.0] * 99
    endings = Counter(a.ending.value for a in answers if a.ending is not Ending.COMPLETE)
    routed = sum(bool(answer.reason) for answer in answers)
    errors = ", ".join(f"{name} {count}" for name, count in endings.items()) or "0"
    return str(len(answers)), str(routed), f"{cuts[49]:.2f}", f"{cuts[98]:.2f}", errors


def main() -> int:
    """Run, and print the table; return 1 if the stack could not run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_outage", description=__doc__)
    parser.add_argument("--rate", type=float, default=8.0, help="requests a second")
    parser.add_argument("--around", type=float, default=20.0, help="seconds before and after")
    parser.add_argument("--away", type=float, default=60.0, help="seconds of the outage")
    parser.add_argument("--envoy", type=json.loads, default={}, help="settings of envoy, as JSON")
    options = parser.parse_args()
    plan = Plan(
        rate=options.rate, around_s=options.around, away_s=options.away, envoy=options.envoy
    )
    try:
        asyncio.run(_run(plan, report_console(120)))
    except StackError as error:
        print(f"live_outage: {error}", file=sys.stderr)  # noqa: T201 - read by a person
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
