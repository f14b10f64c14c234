"""`python -m benchmarks.outage FILE...`: which pool serves best while the service is away.

Replays traces on simulated fleets, each sized by the planner for its trace. For a minute in the
middle nobody estimates: Envoy sends all requests to the largest pool, or chooses by the size of the
body, as `envoy.fail_open` says. The figures are those of the requests that arrive in that minute.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from extproc.budget.values import Outcome
from extproc.build import build_rules
from extproc.config.settings import Settings
from extproc.output import report_console
from extproc.planner.simulation.fleet import FleetSpec
from extproc.planner.simulation.records import Fate, Records
from extproc.planner.simulation.results import percentile
from extproc.planner.simulation.rules import Rule, RuleName, make_rule
from extproc.planner.simulation.run import Conduct, simulate
from extproc.planner.traffic.arrivals import Incoming, arrive, draw_limits
from extproc.planner.traffic.lengths import InputError, Trace, Workload, replay
from extproc.planner_commands.fleets import (
    FleetOptions,
    build_fleet,
    choose_pools,
    profile_of,
)
from extproc.planner_commands.inputs import InputOptions, read_inputs
from extproc.routing.route import Rules, route_by_size

_OUTAGE_S: Final = 60.0
_FRAME_BYTES: Final = 100  # of a body beside its text: names, roles, limits
_RATIOS: Final = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
_NS_PER_S: Final = 1e9


@dataclass(slots=True)
class FailOpen:
    """The service's rule, and Envoy's own between two times (nanoseconds).

    rules: None sends all requests to the largest pool.
    """

    service: Rule
    fleet: FleetSpec
    rules: Rules | None
    away_ns: tuple[float, float]
    retried: int = 0
    _names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self._names = [pool.name for pool in self.fleet.pools]

    def choose(self, incoming: Incoming) -> int:
        """See `extproc.planner.simulation.rules.Rule`."""
        begin, end = self.away_ns
        if not begin <= incoming.at_ns < end:
            return self.service.choose(incoming)
        largest = len(self._names) - 1
        if self.rules is None:
            return largest
        body_bytes = incoming.asked.measure.text_bytes + _FRAME_BYTES
        chosen = self._names.index(route_by_size(body_bytes, self.rules).pool)
        # vLLM refuses a prompt that leaves no room for the stated output; Envoy retries it.
        needed = incoming.prompt_tokens + max(incoming.max_tokens, 1)
        if chosen < largest and needed > self.fleet.pools[chosen].engine.max_model_len:
            self.retried += 1
            return largest
        return chosen

    def learn(self, incoming: Incoming, pool: int, outcome: Outcome, tokens: int) -> None:
        """See `extproc.planner.simulation.rules.Rule`."""
        begin, end = self.away_ns
        if not begin <= incoming.at_ns < end:
            self.service.learn(incoming, pool, outcome, tokens)


@dataclass(frozen=True, slots=True)
class _Replay:
    trace: Trace
    fleet: FleetSpec
    seed: int

    @property
    def away_ns(self) -> tuple[float, float]:
        middle = float(self.trace.at_s[0] + self.trace.at_s[-1]) / 2 * _NS_PER_S
        return middle, middle + _OUTAGE_S * _NS_PER_S

    def run(self, rule: Rule) -> Records:
        limits = draw_limits(self.trace, self.seed)
        arrivals = arrive(self.trace, limits, self.seed)
        return simulate(self.fleet, arrivals, rule, Conduct(seed=self.seed))


def _rows(replayed: _Replay) -> Sequence[tuple[str, Records, int]]:
    """Return the name, the records and the retries of each way to choose."""
    pools = replayed.fleet.routing()
    rules = replace(build_rules(Settings()), pools=tuple(pools))
    ways: list[tuple[str, Rules | None, bool]] = [("the service", None, False)]
    ways.append(("largest", None, True))
    ways += [(f"by size, {r:g}", replace(rules, bytes_per_token=r), True) for r in _RATIOS]
    rows = []
    for name, by_size, is_away in ways:
        service = make_rule(RuleName.DUALPOOL, replayed.fleet, replayed.seed)
        away_ns = replayed.away_ns if is_away else (0.0, 0.0)
        rule = FailOpen(service, replayed.fleet, by_size, away_ns)
        rows.append((name, replayed.run(rule), rule.retried))
    return rows


def _print(replayed: _Replay, console: Console) -> None:
    pools = replayed.fleet.pools
    sizes = ", ".join(f"{p.name} {p.engine.max_model_len} x {p.instances}" for p in pools)
    title = f"{replayed.trace.name}: {replayed.trace.rate:.1f} requests/s on {sizes}"
    table = Table(title=title)
    for column in ("chosen by", *(f"P99 TTFT s, {p.name}" for p in pools), "all"):
        table.add_column(column, justify="left" if column == "chosen by" else "right")
    for column in ("to the largest %", "retried %", "clamped %", "refused %"):
        table.add_column(column, justify="right")
    begin, end = (at / _NS_PER_S for at in replayed.away_ns)
    for name, records, retried in _rows(replayed):
        away = (records.at_s >= begin) & (records.at_s < end)
        count = int(away.sum())
        by_pool = [records.ttft_s[away & (records.pool == i)] for i in range(len(pools))]
        shares = [
            int((records.pool[away] == len(pools) - 1).sum()),
            retried + int((records.fate[away] == Fate.FAILED_OVER).sum()),
            int((records.fate[away] == Fate.CLAMPED).sum()),
            int((records.fate[away] == Fate.REJECTED).sum()),
        ]
        table.add_row(
            name,
            *(f"{percentile(each, 99):.2f}" if each.size else "-" for each in by_pool),
            f"{percentile(records.ttft_s[away], 99):.2f}",
            *(f"{100 * share / count:.2f}" for share in shares),
        )
    console.print(table)


def _replay_of(options: argparse.Namespace) -> _Replay:
    reading = read_inputs(InputOptions(files=tuple(options.files)))
    if isinstance(reading.requests, Workload):
        raise InputError(str(options.files[0]), 0, "has no arrival times")
    trace = replay(reading.requests, options.speed)
    if float(trace.at_s[-1] - trace.at_s[0]) < 2 * _OUTAGE_S:
        raise InputError("--speed", 0, f"too high: the trace must last {2 * _OUTAGE_S:g} s")
    fleet_options = FleetOptions(windows=tuple(options.window), instances=tuple(options.instances))
    pools = choose_pools(fleet_options, build_rules(Settings()).pools, is_file=False)
    # As many sequences as the KV cache holds at full length, as in the papers.
    profile = profile_of(fleet_options)
    seqs = tuple(profile.window_slots(pool.max_model_len) for pool in pools)
    fleet_options = replace(fleet_options, max_num_seqs=seqs)
    fleet = build_fleet(fleet_options, pools, trace.workload(), trace.rate)
    return _Replay(trace, fleet, options.seed)


def main() -> int:
    """Replay, and print the table; return 1 for wrong inputs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outage", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--window", type=_numbers, default=[], help="max_model_len of each pool")
    parser.add_argument("--instances", type=_numbers, default=[], help="of each pool")
    parser.add_argument("--speed", type=float, default=1.0, help="replay so many times as fast")
    parser.add_argument("--seed", type=int, default=0)
    try:
        _print(_replay_of(parser.parse_args()), report_console(120))
    except InputError as error:
        print(f"outage: {error}", file=sys.stderr)  # noqa: T201 - read by a person
        return 1
    return 0


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
