"""`python -m benchmarks.spill`: what `load.spill` does, simulated with the service's own rule.

Two pools of an H100's measured pace serve the published lengths of agents. Load 1 is the rate at
which the short pool answers as many requests as it gets; the long pool has room. The reports of the
servers are late, lost or wrong, and up to 20 replicas see the same ones. With bursts, ten seconds
of every minute have four times the mean rate of load 0.7.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Final

import msgspec
import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from extproc.config.settings import LoadSettings, Settings
from extproc.output import report_console
from extproc.planner.simulation.fleet import FleetSpec, PoolSpec
from extproc.planner.simulation.records import Fate, Floats, Records
from extproc.planner.simulation.results import Mask, percentile
from extproc.planner.simulation.run import Conduct, simulate
from extproc.planner.simulation.spilling import Reporting, Spilling
from extproc.planner.traffic.arrivals import arrive, draw_limits
from extproc.planner.traffic.lengths import Trace, from_cdf, poisson
from extproc.planner.traffic.published import AGENTS
from extproc.routing.load.report import Report
from extproc.simulator.engine.profiles import H100_LLAMA8B

WARM_S: Final = 30.0
_LOADS: Final = (0.5, 0.7, 0.9, 1.0, 1.1, 1.2)
_BATCHED: Final = 8192
_OVERLOAD: Final = 60.0
_DRAWN: Final = 50_000
_OUTPUT_SHARE: Final = 0.1
_BIN_S: Final = 2.0
_LEAST_BIN: Final = 5  # requests in a bin from which on its share counts
_BURST_OF_S: Final = 60.0
_BURST_S: Final = 10.0
_BURST_TIMES: Final = 4.0
_WIDTH: Final = 125
_COLUMNS: Final = (
    "P50 s",
    "P99 s",
    "long P99",
    "moved %",
    "swings",
    "preempt ‰",
    "exceed",
)

Capacity = tuple[float, float]
"""The requests per second that each pool answers at most."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table; spill: None is the service without it."""

    name: str
    load: float
    long: float = 0.5
    reporting: Reporting | None = field(default_factory=Reporting)
    burst: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What the requests of a run saw. moved: share of those whose budget fits the short pool."""

    ttft_p50_s: float
    ttft_p99_s: float
    long_p99_s: float
    moved: float
    swings: float
    preempted: float
    exceeded: int


def fleet() -> FleetSpec:
    """Return a short pool of two instances and a long one of nine."""
    return FleetSpec((_pool("short", 8192, 96, 2), _pool("long", 65_536, 32, 9)))


def _pool(name: str, window: int, slots: int, instances: int) -> PoolSpec:
    return PoolSpec(
        name=name,
        engine=H100_LLAMA8B.engine(window, slots, _BATCHED),
        profile=H100_LLAMA8B.pace,
        instances=instances,
        threshold=window,
        overhead_s=H100_LLAMA8B.overhead_s,
    )


def scenarios() -> Iterator[Scenario]:
    """Yield the rows of the table."""
    for load in _LOADS:
        yield Scenario(f"load {load:g}, without", load, reporting=None)
        yield Scenario(f"load {load:g}, spill", load)
    yield Scenario("load 1.2, long 0.9, without", 1.2, long=0.9, reporting=None)
    yield Scenario("load 1.2, long 0.9, spill", 1.2, long=0.9)
    yield Scenario("load 1.2, long 1.2, without", 1.2, long=1.2, reporting=None)
    yield Scenario("load 1.2, long 1.2, spill", 1.2, long=1.2)
    yield Scenario("bursts, without", 0.7, reporting=None, burst=True)
    yield Scenario("bursts, spill", 0.7, burst=True)
    for count, delay_s in ((5, 0.0), (20, 0.0), (20, 0.5), (20, 1.0), (20, 2.0)):
        late = f", {delay_s:g} s late" if delay_s else ""
        reporting = Reporting(replicas=count, delay_s=delay_s)
        yield Scenario(f"load 1.2, {count} replicas{late}", 1.2, reporting=reporting)
        yield Scenario(f"bursts, {count} replicas{late}", 0.7, reporting=reporting, burst=True)
    at_once = Reporting(replicas=20, delay_s=1.0, at_once=True)
    drawn = replace(at_once, at_once=False)
    for name, each in (("", drawn), (", all at once", at_once)):
        text = f"load 1.2, long 0.9, 20 replicas, 1 s late{name}"
        yield Scenario(text, 1.2, long=0.9, reporting=each)
    for text, load, garble in (
        ("load 1.2, half of the reports lost", 1.2, _half_lost()),
        ("load 1.2, all lost", 1.2, _lost),
        ("load 0.7, short reports 10 times its queue", 0.7, _inflated),
        ("load 0.7, short always reports 50 waiting", 0.7, _stuck),
        ("load 1.2, long always reports to be idle", 1.2, _idle),
    ):
        yield Scenario(text, load, reporting=Reporting(garble=garble))


def _half_lost() -> Callable[[int, Report], Report | None]:
    rng = random.Random(0)  # noqa: S311 - reproducible, not secret
    return lambda _, report: report if rng.random() < 0.5 else None


def _inflated(pool: int, report: Report) -> Report:
    return msgspec.structs.replace(report, waiting=10 * report.waiting) if pool == 0 else report


def _stuck(pool: int, report: Report) -> Report:
    return msgspec.structs.replace(report, waiting=50.0) if pool == 0 else report


def _idle(pool: int, report: Report) -> Report:
    if pool == 0:
        return report
    return msgspec.structs.replace(report, running=1.0, waiting=0.0, kv_usage=0.01)


def _lost(pool: int, report: Report) -> None:  # noqa: ARG001
    return None


LOST: Final = Reporting(garble=_lost)
"""The load is never known."""


def run(scenario: Scenario, seed: int, seconds: float, capacity: Capacity) -> Row:
    """Simulate one scenario; capacity: the requests per second of load 1."""
    trace = _trace(scenario, seed, seconds, capacity)
    settings = Settings(load=LoadSettings(spill=True))
    spec = fleet()
    rule = Spilling(spec.routing(), settings, seed, scenario.reporting or LOST)
    limits = draw_limits(trace, seed)
    records = simulate(
        spec, arrive(trace, limits, seed), rule, Conduct(seed=seed), watch=rule.watch
    )
    return _row(records, np.asarray(rule.moved, dtype=bool))


def _trace(scenario: Scenario, seed: int, seconds: float, capacity: Capacity) -> Trace:
    trace = _agents(scenario.load * capacity[0], scenario.long * capacity[1], seconds, seed)
    return replace(trace, at_s=with_bursts(trace.at_s)) if scenario.burst else trace


def with_bursts(at_s: Floats) -> Floats:
    """Return the times with bursts; the mean rate stays."""
    phase, minute = np.modf(at_s / _BURST_OF_S)
    part = _BURST_S / _BURST_OF_S
    busy = _BURST_TIMES * part
    slow = part + (phase - busy) * (1 - part) / (1 - busy)
    return np.asarray((minute + np.where(phase < busy, phase / _BURST_TIMES, slow)) * _BURST_OF_S)


def _row(records: Records, moved: Mask) -> Row:
    windows = [pool.engine.max_model_len for pool in records.fleet.pools]
    late = records.at_s >= WARM_S
    fits = records.needed <= windows[0]
    ours, others = late & fits, late & ~fits
    exceeded = moved & ((records.fate == Fate.CLAMPED) | (records.pool != records.chosen))
    return Row(
        ttft_p50_s=percentile(records.ttft_s[ours], 50),
        ttft_p99_s=percentile(records.ttft_s[ours], 99),
        long_p99_s=percentile(records.ttft_s[others], 99),
        moved=float(moved[ours].mean()),
        swings=_swings(records.at_s[ours], moved[ours]),
        preempted=1000 * float(records.preemptions[late].mean()),
        exceeded=int(exceeded.sum()),
    )


def _swings(at_s: Floats, moved: Mask) -> float:
    """Return how often a minute over half of the requests move after hardly any did.

    In two seconds; hardly any: under a tenth.
    """
    parts = (at_s / _BIN_S).astype(np.int64)
    counts = np.bincount(parts)
    held = counts >= _LEAST_BIN
    shares = np.bincount(parts, weights=moved)[held] / counts[held]
    moving, swings = False, 0
    for share in shares.tolist():
        swings += share > 0.5 and not moving
        moving = share > 0.5 or (moving and share >= 0.1)
    return swings * 60 / (max(len(shares), 1) * _BIN_S)


def measure_capacity(pool: int, seconds: float) -> float:
    """Return how many requests per second a pool answers at most."""
    spec = fleet()
    trace = _agents(_OVERLOAD, _OVERLOAD, seconds, 0)
    rule = Spilling(spec.routing(), Settings(), 0, LOST)
    records = simulate(spec, arrive(trace, draw_limits(trace, 0), 0), rule, Conduct())
    answered = (records.pool == pool) & (records.end_s < trace.at_s[-1])
    return float((answered & (records.end_s >= WARM_S)).sum()) / (float(trace.at_s[-1]) - WARM_S)


def _agents(short: float, long: float, seconds: float, seed: int) -> Trace:
    """Return the requests of agents: so many a second that fit the short window, and others."""
    whole = poisson(from_cdf("agents", AGENTS, _OUTPUT_SHARE), 1.0, _DRAWN, seed)
    fits = whole.prompt + whole.output <= fleet().pools[0].engine.max_model_len
    rng = np.random.default_rng(seed)
    parts = []
    for rate, chosen in ((short, np.flatnonzero(fits)), (long, np.flatnonzero(~fits))):
        rows = rng.choice(chosen, int(rate * seconds))
        at_s = np.sort(rng.random(len(rows)) * seconds)
        parts.append((at_s, whole.prompt[rows], whole.output[rows]))
    at_s, prompt, output = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(at_s)
    return Trace(name="agents", at_s=at_s[order], prompt=prompt[order], output=output[order])


def main(argv: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spill", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="runs of each row, of which the mean")
    parser.add_argument("--seconds", type=float, default=180.0, help="of arrivals in each run")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name has this text")
    options = parser.parse_args(argv)
    capacity = measure_capacity(0, 120.0), measure_capacity(1, 240.0)
    title = f"Load 1: short {capacity[0]:.1f} requests/s, long {capacity[1]:.1f}/s"
    table = Table(title=title, box=SIMPLE, title_justify="left")
    table.add_column("short pool; long 0.5", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for scenario in scenarios():
        if options.only in scenario.name:
            seeds = range(options.seeds)
            rows = [run(scenario, seed, options.seconds, capacity) for seed in seeds]
            table.add_row(scenario.name, *_cells(rows))
    report_console(_WIDTH).print(table)
    return 0


def _cells(rows: Sequence[Row]) -> Iterator[str]:
    def mean(name: str) -> float:
        return fmean(getattr(row, name) for row in rows)

    yield f"{mean('ttft_p50_s'):.2f}"
    yield f"{mean('ttft_p99_s'):.2f}"
    yield f"{mean('long_p99_s'):.2f}"
    yield f"{100 * mean('moved'):.1f}"
    yield f"{mean('swings'):.1f}"
    yield f"{mean('preempted'):.1f}"
    yield str(sum(row.exceeded for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
