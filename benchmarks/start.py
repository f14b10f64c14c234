"""Section start: how long a start takes, and what the first command costs."""

import asyncio
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final

import aiohttp
from rich.table import Table

from benchmarks.rig import Rig, Service, cpu_s
from benchmarks.run import Plan, Result, Tools, new_table, spread
from extproc.config.settings import Transport
from extproc.progress import Show

_SERVE: Final = ("serve, h2", Transport.H2), ("serve, grpc", Transport.GRPC)
_COMMANDS: Final = {
    "dualpool --help": ("-m", "extproc", "--help"),
    "dualpool serve --help": ("-m", "extproc", "serve", "--help"),
    "python -c pass": ("-c", "pass"),
}
_METHOD: Final = """\
serve: until /readyz answers, polled every 50 ms, with the pool and the service started in turn.
"""


async def measure(plan: Plan, tools: Tools, show: Show) -> Result:
    """Measure the start of both transports and the commands."""
    found: dict[str, list[tuple[float, float]]] = {}
    show.begin("start", plan.rounds * (len(_SERVE) + len(_COMMANDS)))
    async with aiohttp.ClientSession() as session:
        for _ in range(plan.rounds):
            for name, transport in _SERVE:
                start = time.monotonic()
                async with Rig(session, Service(transport), pool=tools.pool) as rig:
                    figures = time.monotonic() - start, cpu_s(rig.server.pid)
                found.setdefault(name, []).append(figures)
                show.advance()
            for name, arguments in _COMMANDS.items():
                found.setdefault(name, []).append(await asyncio.to_thread(_run, arguments))
                show.advance()
    return Result((_table(found), _METHOD), found)


def _run(arguments: Sequence[str]) -> tuple[float, float]:
    """Return the wall and CPU seconds of a command."""
    before, start = _children_s(), time.monotonic()
    argv = (sys.executable, *arguments)
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return time.monotonic() - start, _children_s() - before


def _children_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _table(found: Mapping[str, Sequence[tuple[float, float]]]) -> Table:
    table = new_table("Start, seconds", "", ("until ready or ended", "CPU"))
    for name, rounds in found.items():
        walls, cpus = zip(*rounds, strict=True)
        table.add_row(name, spread(walls, ".2f"), spread(cpus, ".2f"))
    return table
