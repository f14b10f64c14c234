"""`make versus-vllm`: compares the simulator with real vLLM on the same arrivals.

Two servers are profiled, that of a short pool and that of a long one, before anything is replayed.
The instances of a fleet share only the arrivals, so they are replayed one after another, each with
the machine to itself. Every replay runs twice, since no simulator can be more exact than two runs
agree; for the same reason the share of time in which a process waited for a CPU is printed. There
are two loads: one that the instances keep up with, and a burst that fills queues, KV caches and
slots.
"""

import argparse
import asyncio
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from extproc.config.errors import UserError
from extproc.output import report_console
from extproc.planner.simulation.fleet import PoolSpec
from extproc.planner.traffic.lengths import Trace, from_cdf, poisson
from extproc.planner.traffic.published import AZURE_2023, scaled
from extproc.profiling.profile import Profiled, ProfileOptions, print_profile, profile
from extproc.profiling.replaying import ReplayFigures, deal, figures_of, replay, simulated, split
from extproc.profiling.starting import start_pools
from extproc.profiling.vllm import connect, new_session
from extproc.progress import Show, showing

_BATCH: Final = 2048  # max_num_batched_tokens, vLLM's default on a CPU
_MOST: Final = 64  # concurrent sequences that are tried; the servers run 32 and 16
_OUTPUT_SHARE: Final = 0.25  # of the tokens of a request
_DIVISOR: Final = 8  # of the lengths of the Azure trace, whose longest then fit 2048 tokens
_RATES: Final = (10.0, 60.0)
_WIDTH: Final = 110
_PRESSURE: Final = Path("/proc/pressure/cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class VersusOptions:
    """Options; urls: a short and a long pool, or () to start both from the folder `vllm`."""

    urls: tuple[str, ...]
    vllm: Path | None
    requests: int
    rates: tuple[float, ...]
    runs: int
    seed: int
    json: Path | None


@dataclass(frozen=True, slots=True)
class ReplayCase:
    """One fleet under one load; per instance: its server (0 short, 1 long) and its arrivals."""

    name: str
    instances: tuple[tuple[int, Trace], ...]


@dataclass(frozen=True, slots=True)
class ReplayComparison:
    """Figures of a fleet: of each run on the real servers, and of the simulator."""

    name: str
    real: tuple[ReplayFigures, ...]
    simulated: ReplayFigures


def run_versus(options: VersusOptions) -> int:
    """Run the comparison and print the tables; return 1 if a server cannot be used."""
    console = report_console(_WIDTH)
    try:
        compared = asyncio.run(compare(options, console))
    except UserError as error:
        Console(stderr=True).print(f"versus: {error}", markup=False, highlight=False)
        return 1
    for each in compared:
        show_table(console, each)
    if options.json:
        rows = [asdict(each) for each in compared]
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    return 0


async def compare(options: VersusOptions, console: Console) -> list[ReplayComparison]:
    """Profile the servers, replay on them, and simulate. Raises VllmError, StackError."""
    async with AsyncExitStack() as stack:
        urls = options.urls or await stack.enter_async_context(start_pools(options.vllm))
        with pressure(console, "the profiles"):
            profiled = [
                await profile(ProfileOptions(url=url, most=_MOST, max_num_batched_tokens=_BATCH))
                for url in urls
            ]
        for each in profiled:
            print_profile(console, each)
        cases = make_cases(options, profiled[0].facts.max_model_len)
        with showing(Console(stderr=True)) as show:
            show.begin("Replaying", len(cases) * options.runs * options.requests)
            runs = []
            for number in range(1, options.runs + 1):
                with pressure(console, f"run {number}"):
                    runs.append(await _real(urls, cases, show))
    pools = [pool_of(each) for each in profiled]
    return [
        ReplayComparison(
            case.name,
            tuple(run[index] for run in runs),
            figures_of([simulated(trace, pools[server]) for server, trace in case.instances]),
        )
        for index, case in enumerate(cases)
    ]


@contextmanager
def pressure(console: Console, what: str) -> Iterator[None]:
    """Print the share of the block's time in which a process waited for a CPU (Linux's PSI)."""
    start_s, start_waited_s = time.monotonic(), waited_s()
    yield
    share = (waited_s() - start_waited_s) / (time.monotonic() - start_s)
    console.print(f"During {what} a process waited for a CPU {share:.0%} of the time.")


def waited_s() -> float:
    """Return the seconds since boot in which a process waited for a CPU; nan if unknown."""
    try:
        return int(_PRESSURE.read_text(encoding="ascii").split("total=")[1].split()[0]) / 1e6
    except OSError:
        return math.nan


def make_cases(options: VersusOptions, short_window: int) -> tuple[ReplayCase, ...]:
    """Return both fleets of two instances for each load, with the same arrivals."""
    workload = from_cdf("Azure 2023 / 8", scaled(AZURE_2023, _DIVISOR), _OUTPUT_SHARE)
    cases: list[ReplayCase] = []
    for rate in options.rates:
        trace = poisson(workload, rate, options.requests, options.seed)
        load = f"{options.requests} arrivals, {rate:g}/s, "
        alike, pools = deal(trace, 2), split(trace, short_window)
        cases += (
            ReplayCase(
                load + "homogeneous: two instances of the long pool", tuple((1, t) for t in alike)
            ),
            ReplayCase(load + "dual: one instance of each pool", tuple(enumerate(pools))),
        )
    return tuple(cases)


def pool_of(profiled: Profiled) -> PoolSpec:
    """Return the pool of one such server for the simulator."""
    instance = profiled.instance(async_scheduling=False)  # which vLLM does not have on a CPU
    window = profiled.facts.max_model_len
    return PoolSpec(
        name=instance.name,
        engine=instance.engine(window, profiled.measured.max_num_seqs, _BATCH),
        profile=instance.pace,
        instances=1,
        threshold=window,
        overhead_s=instance.overhead_s,
    )


async def _real(
    urls: Sequence[str], cases: Sequence[ReplayCase], show: Show
) -> list[ReplayFigures]:
    async with new_session() as session:
        servers = [await connect(session, url) for url in urls]
        return [
            figures_of([await replay(servers[i], trace, show) for i, trace in case.instances])
            for case in cases
        ]


def show_table(console: Console, compared: ReplayComparison) -> None:
    """Print the figures of a fleet; `off by` is relative to the mean of the runs."""
    table = Table(title=compared.name, title_justify="left", box=SIMPLE_HEAD, title_style="bold")
    runs = [f"vLLM, run {number}" for number in range(1, len(compared.real) + 1)]
    for column in ("", *runs, "simulated", "off by", "runs differ by"):
        table.add_column(column, justify="right" if column else "left")
    for name, title in _TITLES.items():
        real = [float(getattr(figures, name)) for figures in compared.real]
        guess = float(getattr(compared.simulated, name))
        shown = [f"{value:.1f}" for value in (*real, guess)]
        off = f"{guess / fmean(real) - 1:+.1%}" if any(real) else ""
        apart = f"{(max(real) - min(real)) / fmean(real):.1%}" if any(real) else ""
        table.add_row(title, *shown, off, apart)
    console.print(table)


_TITLES: Final = {
    "output_tokens_per_s": "output tokens/s",
    "ttft_p50_ms": "TTFT P50 ms",
    "ttft_p99_ms": "TTFT P99 ms",
    "tpot_p50_ms": "TPOT P50 ms",
    "tpot_p99_ms": "TPOT P99 ms",
    "preemptions": "preemptions",
}


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pools", default="", metavar="URL,URL", help="a short and a long pool")
    parser.add_argument("--requests", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--rate", type=float, action="append", help="repeatable; default: 10, 60")
    parser.add_argument("--runs", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    folder = os.environ.get("DUALPOOL_VLLM")
    urls = tuple(url for url in given.pools.split(",") if url)
    if len(urls) != 2 and not folder:
        parser.error("use --pools URL,URL, or set DUALPOOL_VLLM to a folder with vLLM")
    return run_versus(
        VersusOptions(
            urls=urls,
            vllm=Path(folder) if folder else None,
            requests=given.requests,
            rates=tuple(given.rate or _RATES),
            runs=given.runs,
            seed=given.seed,
            json=given.json,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
