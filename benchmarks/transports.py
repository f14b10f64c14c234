"""`python -m benchmarks.transports`: the service's CPU per request on each transport.

Each transport has a service, a pool and an Envoy of its own, in the default form; they are measured
in turn, in one run. Only ratios within a round mean much: the machine is never quiet.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median
from typing import Final

import aiohttp
import uvloop
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.environment import describe_machine, describe_versions
from benchmarks.forms import FormRow, unchanged
from benchmarks.load import make_body, post_bodies
from benchmarks.rig import BenchmarkEnvoy, BenchmarkError, Rig
from extproc.config.settings import Form, Transport
from extproc.local.children import StackError

_FORM: Final = FormRow("trailers", Form.TRAILERS, unchanged)
_SERVICES: Final = {
    "grpc": ("extproc", Transport.GRPC),
    "h2": ("extproc", Transport.H2),
    "ngh2": ("benchmarks.ngh2_serve", Transport.H2),
}
_WARM_POSTS = 20
_SETTLE_S = 0.3  # the observer's last messages
_METHOD = """\
{rounds} rounds, each transport once in each, {clients} clients that post one request after another.
Median [lowest, highest] over the rounds; ratios are to grpc in the same round. CPU is user and
system time of the process, all threads.
"""


@dataclass(frozen=True, slots=True)
class _Plan:
    """How much is measured; sizes are those of bodies in bytes, with the posts of each client."""

    clients: int = 16
    rounds: int = 5
    posts: tuple[tuple[int, int], ...] = ((1 << 10, 100), (1 << 18, 25))


@dataclass(frozen=True, slots=True)
class _Round:
    """Figures of one transport in one round."""

    service_us: float
    envoy_us: float
    per_s: float


_Rounds = Mapping[str, list[_Round]]


def main() -> int:
    """Run the benchmark and print a table for each size; return 1 if it failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transports", description=__doc__)
    parser.add_argument("--clients", type=int, default=_Plan().clients)
    parser.add_argument("--rounds", type=int, default=_Plan().rounds)
    parser.add_argument(
        "--short", action="store_true", help="one short round, to test the benchmark itself"
    )
    options = parser.parse_args()
    plan = _Plan(options.clients, options.rounds)
    if options.short:
        plan = _Plan(2, 1, ((1 << 10, 5),))
    try:
        measured = uvloop.run(_measure(plan))
    except (StackError, BenchmarkError) as error:
        Console(stderr=True).print(f"transports: {error}", markup=False, highlight=False)
        return 1
    _print(plan, measured)
    return 0


async def _measure(plan: _Plan) -> Mapping[int, _Rounds]:
    found: dict[int, dict[str, list[_Round]]] = {
        size: {name: [] for name in _SERVICES} for size, _ in plan.posts
    }
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        gateways = {}
        for name, (module, transport) in _SERVICES.items():
            rig = await stack.enter_async_context(Rig(session, module=module, transport=transport))
            gateways[name] = await stack.enter_async_context(rig.gateway(_FORM))
        for number in range(plan.rounds):
            for size, posts in plan.posts:
                # Each round starts with another, so that the order favours none.
                for name in _rotated(tuple(gateways), number):
                    figures = await _round(session, gateways[name], plan, size, posts)
                    found[size][name].append(figures)
    return found


def _rotated(names: Sequence[str], number: int) -> Sequence[str]:
    first = number % len(names)
    return (*names[first:], *names[:first])


async def _round(
    session: aiohttp.ClientSession, gateway: BenchmarkEnvoy, plan: _Plan, size: int, posts: int
) -> _Round:
    body = make_body(size, 0)
    await post_bodies(session, gateway.url, body, _WARM_POSTS)
    clients = [post_bodies(session, gateway.url, body, posts) for _ in range(plan.clients)]
    start = time.monotonic()
    load = _timed(asyncio.gather(*clients))
    end, spent = await gateway.measure(session, load, _SETTLE_S)
    count = plan.clients * posts
    return _Round(spent.service_s * 1e6 / count, spent.envoy_s * 1e6 / count, count / (end - start))


async def _timed(load: asyncio.Future[list[list[float]]]) -> float:
    await load
    return time.monotonic()


def _print(plan: _Plan, measured: Mapping[int, _Rounds]) -> None:
    console = Console(width=120)
    console.print(describe_machine(), describe_versions("grpcio", "uvloop", "hpack", "ngh2"),
                  sep="\n", highlight=False, soft_wrap=True)  # fmt: skip
    for size, rounds in measured.items():
        console.print(_table(size, rounds))
    console.print(
        _METHOD.format(rounds=plan.rounds, clients=plan.clients), highlight=False, markup=False
    )


def _table(size: int, rounds: _Rounds) -> Table:
    table = Table(title=f"{size >> 10} KiB", title_justify="left", box=SIMPLE_HEAD)
    for column in ("", "CPU service us", "ratio to grpc", "CPU Envoy us", "requests/s"):
        table.add_column(column, justify="right" if column else "left")
    for name, figures in rounds.items():
        pairs = zip(figures, rounds["grpc"], strict=True)
        table.add_row(
            name,
            _spread([each.service_us for each in figures], ".0f"),
            _spread([each.service_us / base.service_us for each, base in pairs], ".2f"),
            _spread([each.envoy_us for each in figures], ".0f"),
            _spread([each.per_s for each in figures], ".0f"),
        )
    return table


def _spread(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


if __name__ == "__main__":
    sys.exit(main())
