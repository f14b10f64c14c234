"""What the service counts of its own misroutes, beside the true ones, before real vLLM pools.

    python -m benchmarks.live_vllm --pools http://127.0.0.1:8151,http://127.0.0.1:8152

A cold service with default settings behind a real Envoy gets traffic of which four fifths are
streams that do not state usage. Every request states the same output limit; some have tools,
response schemas, earlier reasoning or a switch for it. Then the same again with other settings. The
truth is counted without the service: prompts by the larger server's /tokenize, outputs by the token
ids that vLLM returns on request. Exit code 0 if no request was lost or altered.
"""

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack
from dataclasses import astuple, dataclass, replace
from statistics import fmean
from typing import Final, TypeVar

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.environment import describe_machine, describe_versions
from benchmarks.live_traffic import RUNS, Run, bodies
from benchmarks.live_truth import Fate, Got, Sent, read_answer
from extproc.local.fleet import StackPool
from extproc.local.stack import Stack, StackGateway, StackOptions
from extproc.names import POOL_HEADER, REASON_HEADER
from extproc.output import report_console
from extproc.routing.pools import Reason

_PATH: Final = "/v1/chat/completions"
_WIDTH: Final = 150
_SETTLE_S: Final = 30.0
_READ_EVERY_S: Final = 2.0
_FAULT_BYTES: Final = 300  # of an error

_Taken = TypeVar("_Taken")
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Counted:
    """What the service says of all answers.

    judged: the requests whose tokens it knows, or estimates from those that it observed. forecast:
    the share of misrouted requests.
    """

    misrouted: float = 0.0
    over_routed: float = 0.0
    reserved: float = 0.0
    judged: float = 0.0
    observed: float = 0.0
    asked: float = 0.0
    forecast: float = 0.0

    def since(self, before: "Counted") -> "Counted":
        """Return what was counted after another reading; the forecast is that of now."""
        counts = zip(astuple(self), astuple(before), strict=True)
        risen = Counted(*(now - then for now, then in counts))
        return replace(risen, forecast=self.forecast)


@dataclass(frozen=True, slots=True)
class Result:
    """Requests of a run, what became of them, and what the service counted meanwhile.

    forecast: its mean.
    """

    name: str
    fates: Sequence[Fate]
    counted: Counted
    forecast: float
    seconds: float

    @property
    def is_faultless(self) -> bool:
        """Whether no request was lost or altered."""
        return not any(fate.is_lost or fate.is_altered for fate in self.fates)

    def cells(self) -> Iterator[str]:
        """Return the figures of a row: truths before what was counted of them.

        Of what its size decided, in parentheses how many were misrouted.
        """
        counted = self.counted
        yield str(len(self.fates))
        yield f"{counted.observed:.0f}"
        yield f"{counted.asked:.0f}"
        yield f"{counted.judged:.0f}"
        misrouted = self._true(lambda fate: fate.is_misrouted)
        by_size = [fate for fate in self.fates if fate.is_by_size]
        yield f"{len(by_size)} ({sum(fate.is_misrouted for fate in by_size)})"
        yield f"{misrouted} / {counted.misrouted:.0f}"
        yield f"{counted.misrouted / misrouted:.2f}" if misrouted else "-"
        yield f"{self.forecast * len(self.fates):.1f}"
        yield f"{self._true(lambda fate: fate.is_over_routed)} / {counted.over_routed:.0f}"
        yield f"{self._true(lambda fate: fate.is_reserved)} / {counted.reserved:.0f}"
        yield str(sum(fate.is_lost for fate in self.fates))
        yield str(sum(fate.is_altered and not fate.is_lost for fate in self.fates))

    def _true(self, what: Callable[[Fate], bool]) -> int:
        return sum(what(fate) and not fate.is_by_size for fate in self.fates)


class Driver:
    """Sends requests to a gateway, so many at a time, and finds out what they truly needed."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        pools: Sequence[StackPool],
        clients: int,
        *,
        is_hint: bool,
    ) -> None:
        self._session, self._pools = session, pools
        self._clients, self._is_hint = clients, is_hint

    async def count(self, bodies: Iterable[dict[str, object]]) -> list[Sent]:
        """Return the requests with the tokens of their prompts."""

        async def one(body: dict[str, object]) -> Sent:
            names = "model", "messages", "tools", "chat_template_kwargs"
            asked = {name: body[name] for name in names if name in body}
            url = f"{self._pools[-1].url}/tokenize"
            async with self._session.post(url, json=asked) as answer:
                return Sent(body, int((await answer.json())["count"]))

        return await self._each(one, bodies)

    async def send(self, url: str, requests: Iterable[Sent]) -> list[Fate]:
        """Send all requests; return what became of each."""

        async def one(sent: Sent) -> Fate:
            begin = time.monotonic()
            try:
                got = await self._ask(url, sent.body)
            except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as error:
                got = Got(0, fault=repr(error))
            if got.fault:
                got = replace(got, fault=f"after {time.monotonic() - begin:.1f} s: {got.fault}")
            short = self._pools[0]
            # An answer has the name of the pool that sent it, and the reason of the decision.
            went_short = got.pool == short.name or got.reason == Reason.FITS
            return Fate(sent, got, short.max_model_len, self._is_hint, went_short)

        return await self._each(one, requests)

    async def _each(
        self, what: Callable[[_Taken], Awaitable[_Made]], things: Iterable[_Taken]
    ) -> list[_Made]:
        rest, made = iter(things), list[_Made]()

        async def client() -> None:
            for each in rest:
                made.append(await what(each))

        await asyncio.gather(*(client() for _ in range(self._clients)))
        return made

    async def _ask(self, url: str, body: Mapping[str, object]) -> Got:
        async with self._session.post(f"{url}{_PATH}", json=body) as answer:
            data = await answer.read()
            headers = answer.headers
            named = (headers.get(POOL_HEADER, ""), headers.get(REASON_HEADER, ""))
            if answer.status != 200:
                fault = data[:_FAULT_BYTES].decode(errors="replace")
                return Got(answer.status, *named, fault=fault)
            if not body.get("stream"):
                return read_answer([data], Got(200, *named, is_whole=True))
            lines = [line for line in data.split(b"\n") if line.startswith(b"data: ")]
            ended = lines[-1:] == [b"data: [DONE]"]
            chunks = [line.removeprefix(b"data: ") for line in lines[: -1 if ended else None]]
            fault = "" if ended else f"the stream ended after {len(data)} bytes"
            return read_answer(chunks, Got(200, *named, is_whole=ended, fault=fault))


async def read_counted(session: aiohttp.ClientSession, gateway: StackGateway) -> Counted:
    """Read what the service has counted so far."""
    async with session.get(f"{gateway.service_url}/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
    totals = dict[str, float]()
    for sample in (sample for family in families for sample in family.samples):
        name = sample.name + "".join(
            f" {value}" for label, value in sample.labels.items() if label == "verdict"
        )
        totals[name] = totals.get(name, 0.0) + sample.value
    verdicts = "dualpool_verdicts_total"
    return Counted(
        misrouted=totals.get("dualpool_misroutes_total", 0.0),
        over_routed=totals.get(f"{verdicts} over_routed", 0.0),
        reserved=totals.get(f"{verdicts} reserved", 0.0),
        judged=sum(value for name, value in totals.items() if name.startswith(verdicts)),
        observed=totals.get("dualpool_observed_total", 0.0),
        asked=totals.get("dualpool_usage_asked_total", 0.0),
        forecast=totals.get("dualpool_limit_misroute_forecast", 0.0),
    )


async def _watch(
    session: aiohttp.ClientSession, gateway: StackGateway, forecasts: list[float]
) -> None:
    while True:
        forecasts.append((await read_counted(session, gateway)).forecast)
        await asyncio.sleep(_READ_EVERY_S)


async def _settle(session: aiohttp.ClientSession, gateway: StackGateway) -> Counted:
    """Read the counters until they have the last answers: until they stay for two seconds."""
    before = await read_counted(session, gateway)
    async with asyncio.timeout(_SETTLE_S):
        while True:
            await asyncio.sleep(_READ_EVERY_S)
            now = await read_counted(session, gateway)
            if now == before:
                return now
            before = now


async def serve(
    session: aiohttp.ClientSession, run: Run, options: argparse.Namespace
) -> AsyncIterator[Result]:
    """Start a cold service with its Envoy; yield what its first requests saw, and the others."""
    made = StackOptions(pools=tuple(options.pools.split(",")), ports=None, settings=run.settings)
    async with AsyncExitStack() as running:
        stack = await running.enter_async_context(Stack(made, session, lambda _: None))
        pools = await stack.open_pools()
        gateway = await stack.open_gateway(pools, [pool.upstream for pool in pools])
        driver = Driver(session, pools, options.clients, is_hint=run.is_hint)
        made_bodies = bodies(pools[0].model, run, pools[0].max_model_len, options.seed)
        requests = await driver.count(itertools.islice(made_bodies, options.requests))
        before = Counted()
        for name, part in (
            (f"{run.name}: first {options.first}", requests[: options.first]),
            (f"{run.name}: then", requests[options.first :]),
        ):
            begin, forecasts = time.monotonic(), list[float]()
            watching = asyncio.create_task(_watch(session, gateway, forecasts))
            fates = await driver.send(gateway.url, part)
            seconds = time.monotonic() - begin
            watching.cancel()
            now = await _settle(session, gateway)
            yield Result(name, fates, now.since(before), fmean(forecasts), seconds)
            before = now


async def run_all(options: argparse.Namespace) -> list[Result]:
    """Serve all runs, one after the other."""
    # vLLM closes a connection that is idle for five seconds.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        return [
            result for run in RUNS[: options.runs] async for result in serve(session, run, options)
        ]


def report(results: Sequence[Result], console: Console) -> int:
    """Print the table; return the exit code."""
    console.print(describe_machine(), describe_versions("msgspec"), sep="\n", highlight=False)
    table = Table(box=SIMPLE)
    columns = (
        "requests",
        "observed",
        "asked",
        "judged",
        "by size",
        "misrouted",
        "ratio",
        "forecast",
    )
    table.add_column("true / counted")
    for column in (*columns, "over-routed", "reserved", "lost", "altered"):
        table.add_column(column, justify="right")
    for result in results:
        table.add_row(result.name, *result.cells())
    console.print(table)
    for name, fate in ((result.name, fate) for result in results for fate in result.fates):
        if fate.is_lost:
            got = fate.got
            console.print(f"Lost, {name}: {got.status} {got.pool}: {got.fault}", markup=False)
    taken = ", ".join(f"{result.seconds:.0f} s" for result in results)
    console.print(f"Taken: {taken}", highlight=False)
    return int(not all(result.is_faultless for result in results))


def main(argv: Sequence[str]) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_vllm", description=__doc__)
    parser.add_argument("--pools", required=True, metavar="URL,URL", help="the smaller one first")
    parser.add_argument("--requests", type=int, default=1200, help="of each run")
    parser.add_argument("--first", type=int, default=200, help="of these, told apart")
    parser.add_argument("--clients", type=int, default=24, help="at the same time")
    parser.add_argument("--runs", type=int, default=len(RUNS), help="the first so many")
    parser.add_argument("--seed", type=int, default=0)
    return report(asyncio.run(run_all(parser.parse_args(argv))), report_console(_WIDTH))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
