"""What `sticky` does to the prefix caches of real vLLM pools whose short one is overloaded.

    python -m benchmarks.sticky_vllm --pools http://127.0.0.1:8151,http://127.0.0.1:8152

Two services with spill stand before the same pools with an Envoy each, one with `sticky`. The same
conversations go through them in turn; each turn sends all turns before it, and states one of two
output limits at random. Exit code 0 if every turn was answered.
"""

import argparse
import asyncio
import itertools
import random
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import aiohttp
import msgspec
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.misestimate import make_text
from extproc.local.stack import Stack, StackGateway, StackOptions
from extproc.names import POOL_HEADER, REASON_HEADER
from extproc.output import report_console

_SESSION: Final = "x-session-id"
_SPILL: Final[Mapping[str, object]] = {"load": {"spill": True}}
_MODES: Final = {"without": _SPILL, "sticky": {**_SPILL, "sticky": {"by": "header"}}}
_INSTRUCTIONS: Final = 300
_ASKED: Final = 20, 120
_LIMITS: Final = 32, 1024
_MORE_TURNS: Final = 0.9
_MOST_TURNS: Final = 16
_STOP: Final = "x"
"""A tiny random model says a word with it after some thirty tokens."""
_PAUSE_S: Final = 3.0
_CACHE: Final = ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")


@dataclass(frozen=True, slots=True)
class Turn:
    """The answer to one turn; number: from 0 in each conversation."""

    number: int
    status: int
    pool: str
    reason: str
    ttft_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Talked:
    """What became of some conversations; hits, queries: prompt tokens of all pools' caches."""

    talks: Sequence[Sequence[Turn]]
    hits: float
    queries: float

    @property
    def turns(self) -> list[Turn]:
        """All turns."""
        return [turn for talk in self.talks for turn in talk]

    @property
    def moves(self) -> int:
        """How often a conversation changed its pool."""
        pairs = (pair for talk in self.talks for pair in itertools.pairwise(talk))
        return sum(before.pool != after.pool for before, after in pairs)

    def cells(self) -> Sequence[str]:
        """Return the figures of a row."""
        times = [turn.ttft_s for turn in self.turns if turn.number]
        return (
            str(len(self.turns)),
            str(sum(turn.status != 200 for turn in self.turns)),
            str(sum(turn.pool == "long" for turn in self.turns)),
            str(sum(turn.reason == "spill" for turn in self.turns)),
            str(self.moves),
            f"{100 * self.hits / self.queries:.1f}",
            f"{np.percentile(times, 50):.2f}",
            f"{np.percentile(times, 99):.2f}",
        )


class Talker:
    """Holds conversations through gateways before the same pools."""

    def __init__(
        self, session: aiohttp.ClientSession, urls: Sequence[str], model: str, clients: int
    ) -> None:
        self._session, self._urls = session, urls
        self._model, self._clients = model, clients

    async def hold(self, gateway: StackGateway, talks: int, seed: str) -> Talked:
        """Hold conversations, so many at a time, whose texts no cache has."""
        await asyncio.sleep(_PAUSE_S)  # until no report has the load of those before
        before, numbers, held = await self._cache(), iter(range(talks)), list[list[Turn]]()

        async def client() -> None:
            for number in numbers:
                held.append(await self._talk(gateway, f"{seed}-{number}"))

        await asyncio.gather(*(client() for _ in range(self._clients)))
        after = await self._cache()
        return Talked(held, *(now - then for now, then in zip(after, before, strict=True)))

    async def _talk(self, gateway: StackGateway, name: str) -> list[Turn]:
        # The lengths and limits are those of all modes.
        rng = random.Random(name.partition("/")[2])  # noqa: S311 - traffic, not a secret
        messages = [{"role": "system", "content": f"{name} {make_text(_INSTRUCTIONS, rng)}"}]
        turns = list[Turn]()
        for number in range(_MOST_TURNS):
            asked = make_text(rng.randint(*_ASKED), rng)
            messages.append({"role": "user", "content": asked})
            turns.append(await self._turn(gateway, name, number, messages, rng.choice(_LIMITS)))
            messages.append({"role": "assistant", "content": turns[-1].text})
            if rng.random() > _MORE_TURNS:
                break
        return turns

    async def _turn(
        self,
        gateway: StackGateway,
        name: str,
        number: int,
        messages: Sequence[dict[str, str]],
        limit: int,
    ) -> Turn:
        body = {
            "model": self._model,
            "messages": messages,
            "max_tokens": limit,
            "stop": [_STOP],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        begin, first, pieces = time.monotonic(), 0.0, list[str]()
        url, headers = f"{gateway.url}/v1/chat/completions", {_SESSION: name}
        async with self._session.post(url, json=body, headers=headers) as answer:
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    first = first or time.monotonic()
                    pieces += _pieces(line.removeprefix(b"data: "))
            told = answer.headers
            pool, reason = told.get(POOL_HEADER, ""), told.get(REASON_HEADER, "")
            ttft_s = (first or time.monotonic()) - begin
            return Turn(number, answer.status, pool, reason, ttft_s, "".join(pieces))

    async def _cache(self) -> tuple[float, float]:
        totals = dict.fromkeys(_CACHE, 0.0)
        for url in self._urls:
            async with self._session.get(f"{url}/metrics") as answer:
                families = text_string_to_metric_families(await answer.text())
            for sample in (sample for family in families for sample in family.samples):
                if sample.name in totals:
                    totals[sample.name] += sample.value
        hits, queries = totals.values()
        return hits, queries


def _pieces(data: bytes) -> list[str]:
    choices = msgspec.json.decode(data).get("choices", ())
    return [choice["delta"].get("content") or "" for choice in choices]


async def run(options: argparse.Namespace) -> list[tuple[str, int, Talked]]:
    """Hold all conversations; return the mode, the seed and what became of each."""
    urls = tuple(options.pools.split(","))
    # vLLM closes a connection that is idle for five seconds.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    timeout = aiohttp.ClientTimeout(total=900)
    rows = []
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
        AsyncExitStack() as running,
    ):
        gateways = dict[str, StackGateway]()
        for name, settings in _MODES.items():
            made = StackOptions(pools=urls, ports=None, settings=settings)
            stack = await running.enter_async_context(Stack(made, session, lambda _: None))
            pools = await stack.open_pools()
            gateways[name] = await stack.open_gateway(pools, [pool.upstream for pool in pools])
        talker = Talker(session, urls, pools[0].model, options.clients)
        for name, gateway in gateways.items():  # what both have learnt must not differ much
            await talker.hold(gateway, options.clients, f"{name}/warm")
        for seed in range(options.seeds):
            order = list(gateways.items())
            for name, gateway in order if seed % 2 == 0 else reversed(order):
                rows.append(
                    (name, seed, await talker.hold(gateway, options.talks, f"{name}/{seed}"))
                )
    return rows


def report(rows: Sequence[tuple[str, int, Talked]], console: Console) -> int:
    """Print the table; return the exit code."""
    table = Table(box=SIMPLE)
    for column in ("seed", "mode", "turns", "failed", "long", "spilled", "moves"):
        table.add_column(column, justify="left" if column == "mode" else "right")
    for column in ("reused %", "TTFT P50 s", "P99 s"):
        table.add_column(column, justify="right")
    for name, seed, talked in rows:
        table.add_row(str(seed), name, *talked.cells())
    console.print(table)
    for name in _MODES:
        held = [talked for mode, _, talked in rows if mode == name]
        share = sum(each.hits for each in held) / sum(each.queries for each in held)
        console.print(f"{name}: {100 * share:.1f} % of all prompt tokens reused", highlight=False)
    return int(any(turn.status != 200 for _, _, talked in rows for turn in talked.turns))


def main(argv: Sequence[str]) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sticky_vllm", description=__doc__)
    parser.add_argument("--pools", required=True, metavar="URL,URL", help="the smaller one first")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--talks", type=int, default=30, help="conversations of each seed")
    parser.add_argument("--clients", type=int, default=10, help="conversations at the same time")
    return report(asyncio.run(run(parser.parse_args(argv))), report_console(100))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
