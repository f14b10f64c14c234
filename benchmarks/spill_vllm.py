"""What `load.spill` does for real pools whose short one is overloaded by a burst.

    python -m benchmarks.spill_vllm --pools http://127.0.0.1:8151,http://127.0.0.1:8152

Two services with an Envoy each stand before the same pools, one with spill. The same bursts go
through them in turn, each once the pools are idle. Exit code 0 if no request that spilled exceeded
the window of its pool.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import aiohttp
import msgspec
import numpy as np
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.misestimate import make_text
from extproc.local.stack import Stack, StackGateway, StackOptions
from extproc.names import POOL_HEADER, REASON_HEADER
from extproc.output import report_console
from extproc.routing.load.report import Report, read_report

_IDLE_S = 300.0


@dataclass(frozen=True, slots=True)
class Streamed:
    """One streamed answer; tokens: of prompt and output together, 0 if not stated."""

    status: int
    pool: str
    reason: str
    ttft_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of a burst; windows: by pool."""

    answers: Sequence[Streamed]
    preemptions: float
    windows: dict[str, int]

    @property
    def spilled(self) -> list[Streamed]:
        """The answers to requests that left their pool."""
        return [each for each in self.answers if each.reason == "spill"]

    @property
    def exceeded(self) -> int:
        """Requests that spilled and were refused, or filled the window of their pool."""
        return sum(
            each.status != 200 or each.tokens >= self.windows[each.pool] for each in self.spilled
        )

    def cells(self) -> Iterator[str]:
        """Return the figures of a row."""
        times = [each.ttft_s for each in self.answers]
        yield str(len(times))
        yield str(sum(each.status != 200 for each in self.answers))
        yield f"{np.percentile(times, 50):.2f}"
        yield f"{np.percentile(times, 99):.2f}"
        yield f"{self.preemptions:.0f}"
        yield str(len(self.spilled))
        yield str(self.exceeded)


async def stream(session: aiohttp.ClientSession, url: str, body: dict[str, object]) -> Streamed:
    """Send one request and read its answer."""
    begin, first, tokens = time.monotonic(), 0.0, 0
    async with session.post(f"{url}/v1/completions", json=body) as answer:
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            first = first or time.monotonic()
            usage = msgspec.json.decode(line.removeprefix(b"data: ")).get("usage")
            tokens = usage["total_tokens"] if usage else tokens
        headers = answer.headers
        return Streamed(
            answer.status,
            headers.get(POOL_HEADER, ""),
            headers.get(REASON_HEADER, ""),
            (first or time.monotonic()) - begin,
            tokens,
        )


def bodies(model: str, requests: int, seed: int) -> list[dict[str, object]]:
    """Return short requests; one in twelve is too long for a window of 2,048 tokens."""
    rng = random.Random(seed)  # noqa: S311 - traffic, not a secret
    return [
        {
            "model": model,
            "prompt": make_text(3000 if number % 12 == 11 else rng.randrange(40, 200), rng),
            "max_tokens": 100,
            "min_tokens": 100,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for number in range(requests)
    ]


class Bursts:
    """Sends bursts to gateways before the same pools."""

    def __init__(
        self, session: aiohttp.ClientSession, urls: Sequence[str], windows: dict[str, int]
    ) -> None:
        self._session, self._urls, self._windows = session, urls, windows

    async def send(
        self, gateway: StackGateway, requests: Sequence[dict[str, object]], seconds: float
    ) -> Burst:
        """Send requests, evenly over so many seconds; wait until the pools are idle again."""
        before = await self._preemptions()

        async def one(number: int, body: dict[str, object]) -> Streamed:
            await asyncio.sleep(seconds * number / len(requests))
            return await stream(self._session, gateway.url, body)

        answers = await asyncio.gather(*(one(*each) for each in enumerate(requests)))
        await self._idle()
        return Burst(answers, await self._preemptions() - before, self._windows)

    async def _reports(self) -> list[Report]:
        found = []
        for url in self._urls:
            async with self._session.get(f"{url}/metrics") as answer:
                report = read_report(await answer.read())
                if report is None:
                    raise SystemExit(f"{url}/metrics states no load")
                found.append(report)
        return found

    async def _preemptions(self) -> float:
        return sum(report.preemptions for report in await self._reports())

    async def _idle(self) -> None:
        async with asyncio.timeout(_IDLE_S):
            # The pools are other processes: there is no event to wait for.
            while any(r.running + r.waiting for r in await self._reports()):  # noqa: ASYNC110
                await asyncio.sleep(0.5)


async def run(options: argparse.Namespace) -> list[tuple[str, int, Burst]]:
    """Send all bursts; return the mode, the seed and what became of each."""
    urls = tuple(options.pools.split(","))
    timeout = aiohttp.ClientTimeout(total=900)
    connector = aiohttp.TCPConnector(limit=0)
    rows = []
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
        AsyncExitStack() as running,
    ):
        gateways = dict[str, StackGateway]()
        for name, spill in (("without", False), ("spill", True)):
            settings = {"load": {"spill": spill}}
            made = StackOptions(pools=urls, ports=None, settings=settings)
            stack = await running.enter_async_context(Stack(made, session, lambda _: None))
            pools = await stack.open_pools()
            gateways[name] = await stack.open_gateway(pools, [pool.upstream for pool in pools])
        bursts = Bursts(session, urls, {pool.name: pool.max_model_len for pool in pools})
        for gateway in gateways.values():  # what both have learnt must not differ much
            warm = bodies(pools[0].model, options.warm, -1)
            await bursts.send(gateway, warm, options.seconds)
        for seed in range(options.seeds):
            order = list(gateways.items())
            for name, gateway in order if seed % 2 == 0 else reversed(order):
                requests = bodies(pools[0].model, options.requests, seed)
                rows.append((name, seed, await bursts.send(gateway, requests, options.seconds)))
    return rows


def report(rows: Sequence[tuple[str, int, Burst]], console: Console) -> int:
    """Print the table; return the exit code."""
    table = Table(box=SIMPLE)
    for column in ("seed", "mode", "requests", "refused", "TTFT P50 s", "P99 s"):
        table.add_column(column, justify="left" if column == "mode" else "right")
    for column in ("preempted", "spilled", "exceeded"):
        table.add_column(column, justify="right")
    for name, seed, burst in rows:
        table.add_row(str(seed), name, *burst.cells())
    console.print(table)
    return int(any(burst.exceeded for _, _, burst in rows))


def main(argv: Sequence[str]) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spill_vllm", description=__doc__)
    parser.add_argument("--pools", required=True, metavar="URL,URL", help="the smaller one first")
    parser.add_argument("--seeds", type=int, default=3, help="bursts through each service")
    parser.add_argument("--requests", type=int, default=60, help="of a burst")
    parser.add_argument("--warm", type=int, default=12, help="requests before the first burst")
    parser.add_argument("--seconds", type=float, default=10.0, help="over which a burst arrives")
    return report(asyncio.run(run(parser.parse_args(argv))), report_console(100))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
