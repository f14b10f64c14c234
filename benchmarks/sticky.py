"""`python -m benchmarks.sticky`: what `sticky` does to the pools' prefix caches, simulated.

Conversations whose every turn sends all turns before it are served by two pools of an H100's
measured pace with prefix caching, one server each: a pool whose balancer knows which server has
which conversation. The service's own rule decides, with `load.spill` and without. With *limits* the
clients state 256 or 4,096 output tokens at random, whatever they use; with *bursts* ten seconds of
every minute have four times the mean rate.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Final

import numpy as np
from rich.box import SIMPLE
from rich.table import Table

from benchmarks.spill import LOST, with_bursts
from extproc.config.settings import LoadSettings, Settings
from extproc.output import report_console
from extproc.planner.simulation.fleet import FleetSpec, PoolSpec
from extproc.planner.simulation.records import Fate, Ints, Records
from extproc.planner.simulation.results import Mask, percentile
from extproc.planner.simulation.run import Conduct, simulate
from extproc.planner.simulation.spilling import Reporting, Spilling
from extproc.planner.traffic.arrivals import arrive
from extproc.planner.traffic.lengths import Trace
from extproc.simulator.engine.prefix import PART_TOKENS
from extproc.simulator.engine.profiles import H100_LLAMA8B

WARM_S: Final = 30.0
_BATCHED: Final = 8192
_WIDTH: Final = 110
_MOST_TURNS: Final = 40
_MORE_TURNS: Final = 0.85  # the probability of another one
_THOUGHT_S: Final = 8.0
_MOST_PROMPT: Final = 60_000
_LIMITS: Final = (256, 4096)
_COLUMNS: Final = ("reused %", "P50 s", "P99 s", "long P99", "moves", "preempt ‰", "exceed")


@dataclass(frozen=True, slots=True)
class Scenario:
    """Two rows of the table: without and with `sticky`."""

    name: str
    rate: float
    """Conversations that begin per second."""
    spill: bool = False
    limits: bool = False
    burst: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What later turns saw. reused: share of their prompts' tokens that a cache had.

    moves: changes of the pool in a hundred turns. exceeded: requests that went to another pool than
    their budget's, and did not fit its window.
    """

    reused: float
    ttft_p50_s: float
    ttft_p99_s: float
    long_p99_s: float
    moves: float
    preempted: float
    exceeded: int


SCENARIOS: Final = (
    Scenario("1.5/s", 1.5),
    Scenario("1.5/s, limits", 1.5, limits=True),
    Scenario("2.5/s, spill", 2.5, spill=True),
    Scenario("3/s, spill", 3.0, spill=True),
    Scenario("1.8/s, bursts, spill", 1.8, spill=True, burst=True),
    Scenario("1.8/s, bursts, limits, spill", 1.8, spill=True, limits=True, burst=True),
)


def fleet() -> FleetSpec:
    """Return a short and a long pool of one server each."""
    return FleetSpec((_pool("short", 8192, 96), _pool("long", 65_536, 32)))


def _pool(name: str, window: int, slots: int) -> PoolSpec:
    engine = H100_LLAMA8B.engine(window, slots, _BATCHED)
    return PoolSpec(
        name=name,
        engine=replace(engine, enable_prefix_caching=True),
        profile=H100_LLAMA8B.pace,
        instances=1,
        threshold=window,
        overhead_s=H100_LLAMA8B.overhead_s,
    )


@dataclass(frozen=True, slots=True)
class _Turn:
    at_s: float
    prompt: int
    output: int
    conversation: int


def _turns(scenario: Scenario, seconds: float, rng: np.random.Generator) -> Iterator[_Turn]:
    begins = np.sort(rng.random(int(scenario.rate * seconds)) * seconds)
    for conversation, begin_s in enumerate(with_bursts(begins) if scenario.burst else begins):
        at_s, prompt = float(begin_s), int(rng.lognormal(7.3, 0.8)) + 50
        for _ in range(_MOST_TURNS):
            output = int(rng.lognormal(5.3, 0.7)) + 1
            if at_s >= seconds or prompt > _MOST_PROMPT:
                break
            yield _Turn(at_s, prompt, output, conversation)
            if rng.random() > _MORE_TURNS:
                break
            # About as long as the answer takes, and then the user.
            at_s += 0.01 * output + float(rng.exponential(_THOUGHT_S))
            prompt += output + int(rng.lognormal(5.0, 1.0)) + 10


def _trace(turns: Sequence[_Turn]) -> Trace:
    def prefix(turn: _Turn) -> tuple[int, ...]:
        first = turn.conversation * (_MOST_PROMPT // PART_TOKENS + 1)
        return tuple(range(first, first + turn.prompt // PART_TOKENS))

    return Trace(
        name="conversations",
        at_s=np.array([turn.at_s for turn in turns]),
        prompt=np.array([turn.prompt for turn in turns]),
        output=np.array([turn.output for turn in turns]),
        prefixes=tuple(map(prefix, turns)),
    )


def run(scenario: Scenario, seed: int, seconds: float, *, sticky: bool) -> Row:
    """Simulate one row; the same conversations whether they are sticky or not."""
    rng = np.random.default_rng(seed)
    turns = sorted(_turns(scenario, seconds, rng), key=lambda turn: turn.at_s)
    trace = _trace(turns)
    limits = rng.choice(_LIMITS, len(turns)) if scenario.limits else np.zeros(len(turns), np.int64)
    reporting = replace(
        Reporting() if scenario.spill else LOST, conversations=1 << 16 if sticky else 0
    )
    spec, settings = fleet(), Settings(load=LoadSettings(spill=True))
    rule = Spilling(spec.routing(), settings, seed, reporting)
    arrivals = arrive(trace, limits, seed)
    records = simulate(spec, arrivals, rule, Conduct(seed=seed), watch=rule.watch)
    conversations = np.array([turn.conversation for turn in turns])
    return _row(records, conversations, np.asarray(rule.moved, dtype=bool))


def _row(records: Records, conversation: Ints, moved: Mask) -> Row:
    order = np.lexsort((records.at_s, conversation))
    same = conversation[order][1:] == conversation[order][:-1]
    later = np.zeros(len(records), dtype=bool)
    later[order[1:][same]] = True
    changed = np.zeros(len(records), dtype=bool)
    changed[order[1:][same & (records.pool[order][1:] != records.pool[order][:-1])]] = True
    seen = later & (records.at_s >= WARM_S)
    long = seen & (records.pool == 1)
    exceeded = moved & ((records.fate == Fate.CLAMPED) | (records.pool != records.chosen))
    return Row(
        reused=float(records.reused[seen].sum() / records.prompt[seen].sum()),
        ttft_p50_s=percentile(records.ttft_s[seen], 50),
        ttft_p99_s=percentile(records.ttft_s[seen], 99),
        long_p99_s=percentile(records.ttft_s[long], 99),
        moves=100 * float(changed[seen].mean()),
        preempted=1000 * float(records.preemptions[seen].mean()),
        exceeded=int(exceeded.sum()),
    )


def main(argv: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sticky", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="runs of each row, of which the mean")
    parser.add_argument("--seconds", type=float, default=240.0, help="of arrivals in each run")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name has this text")
    options = parser.parse_args(argv)
    table = Table(box=SIMPLE)
    table.add_column("conversations", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for scenario in SCENARIOS:
        for sticky in (False, True) if options.only in scenario.name else ():
            seeds = range(options.seeds)
            rows = [run(scenario, seed, options.seconds, sticky=sticky) for seed in seeds]
            table.add_row(f"{scenario.name}{', sticky' if sticky else ''}", *_cells(rows))
    report_console(_WIDTH).print(table)
    return 0


def _cells(rows: Sequence[Row]) -> Iterator[str]:
    def mean(name: str) -> float:
        return fmean(getattr(row, name) for row in rows)

    yield f"{100 * mean('reused'):.1f}"
    yield f"{mean('ttft_p50_s'):.3f}"
    yield f"{mean('ttft_p99_s'):.2f}"
    yield f"{mean('long_p99_s'):.2f}"
    yield f"{mean('moves'):.2f}"
    yield f"{mean('preempted'):.1f}"
    yield str(sum(row.exceeded for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
