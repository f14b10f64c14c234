"""`python -m benchmarks.envoy`: the cost of each form for Envoy, the service and the client.

All forms are measured in one run, in turn; each form has its own Envoy in each round.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import uvloop
from rich.console import Console

from benchmarks.environment import describe_machine, describe_versions
from benchmarks.figures import BenchmarkRun, RoundFigures
from benchmarks.forms import REQUESTS, STREAMS, FormRow
from benchmarks.load import LoadPlan, make_body, post_bodies, read_streams
from benchmarks.report import print_tables
from benchmarks.rig import BenchmarkEnvoy, BenchmarkError, Rig
from extproc.local.children import StackError

_WIDTH = 120
_WARM_POSTS = 5
# After the last byte of an answer; Envoy closes the observer's stream a second later.
_OBSERVED_S = 1.3
_DECIDED_S = 0.1

Say = Callable[[str], None]
Rounds = dict[str, list[RoundFigures]]


def main() -> int:
    """Run the benchmark and print the tables; return 1 if it failed or its figures are invalid."""
    options = _options()
    plan = _plan(options)
    console = Console(stderr=True)
    try:
        measured = uvloop.run(_measure(plan, lambda text: console.print(text, highlight=False)))
    except (StackError, BenchmarkError) as error:
        console.print(f"bench-envoy: {error}", markup=False, highlight=False)
        return 1
    print_tables(Console(width=_WIDTH), measured, plan)
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(measured)))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.envoy", description=__doc__)
    parser.add_argument("--rounds", type=_positive, default=LoadPlan().rounds)
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the texts and of the streams' start times"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures of all rounds as JSON"
    )
    parser.add_argument(
        "--short", action="store_true", help="one short round, to test the benchmark itself"
    )
    options = parser.parse_args()
    if options.json and not options.json.parent.is_dir():
        parser.error(f"--json: no such folder: {options.json.parent}")
    return options


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: must be a whole number from 1")
    return int(text)


def _plan(options: argparse.Namespace) -> LoadPlan:
    if options.short:
        sizes = (1 << 10, 1 << 15)
        return LoadPlan(streams=2, chunks=10, posts=5, sizes=sizes, rounds=1, seed=options.seed)
    return LoadPlan(rounds=options.rounds, seed=options.seed)


async def _measure(plan: LoadPlan, say: Say) -> BenchmarkRun:
    streams: Rounds = {row.name: [] for row in STREAMS}
    requests: dict[int, Rounds] = {size: {row.name: [] for row in REQUESTS} for size in plan.sizes}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, Rig(session) as rig:
        bench = _FormBenchmark(session, rig, plan)
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}: answers")
            for row in _rotated(STREAMS, number):
                streams[row.name].append(await bench.stream(row))
            say(f"round {number + 1} of {plan.rounds}: requests")
            await bench.post(_rotated(REQUESTS, number), requests)
    return BenchmarkRun(
        machine=describe_machine(),
        versions=describe_versions("grpcio", "uvloop", "aiohttp"),
        command=" ".join(("python -m benchmarks.envoy", *sys.argv[1:])),
        seed=plan.seed,
        streams=streams,
        requests=requests,
    )


def _rotated(rows: Sequence[FormRow], number: int) -> Sequence[FormRow]:
    # Each round starts with another row, so that the order favours none.
    first = number % len(rows)
    return (*rows[first:], *rows[:first])


@dataclass(frozen=True, slots=True)
class _FormBenchmark:
    """Measures one form in one round."""

    session: aiohttp.ClientSession
    rig: Rig
    plan: LoadPlan

    async def stream(self, row: FormRow) -> RoundFigures:
        """Measure one form of the answer."""
        session, plan = self.session, self.plan
        async with self.rig.gateway(row) as gateway:
            await post_bodies(session, gateway.url, make_body(1024, plan.seed), _WARM_POSTS)
            load = read_streams(session, gateway.url, plan, states_usage=row.states_usage)
            delays, spent = await gateway.measure(session, load, _OBSERVED_S)
        return RoundFigures.of(delays, spent, plan.streams)

    async def post(self, rows: Sequence[FormRow], found: Mapping[int, Rounds]) -> None:
        """Measure the forms of the request, one directly after another at each size."""
        async with AsyncExitStack() as stack:
            gateways = [await stack.enter_async_context(self.rig.gateway(row)) for row in rows]
            for size, rounds in found.items():
                for row, gateway in zip(rows, gateways, strict=True):
                    rounds[row.name].append(await self._post(gateway, size))

    async def _post(self, gateway: BenchmarkEnvoy, size: int) -> RoundFigures:
        session, count, body = self.session, self.plan.posts, make_body(size, self.plan.seed)
        await post_bodies(session, gateway.url, body, _WARM_POSTS)
        load = post_bodies(session, gateway.url, body, count)
        times, spent = await gateway.measure(session, load, _DECIDED_S)
        return RoundFigures.of(times, spent, count)


if __name__ == "__main__":
    sys.exit(main())
