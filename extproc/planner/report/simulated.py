"""Report the figures of simulated fleets as tables and as JSON."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from extproc.planner.simulation.fleet import FleetSpec
from extproc.planner.simulation.results import Interval, Result, SimulatedFigures, interval
from extproc.planner.sizing.sensitivity import CAPACITIES


@dataclass(frozen=True, slots=True)
class Compared:
    """One rule, its fleet, and a result per seed.

    load: of its fullest pool with the first seed. capacity: results of that seed on slower and
    faster instances, in the order of `sensitivity.CAPACITIES`; () at low load. whose_seqs: whose
    max_num_seqs a rival of one pool has; "" for others.
    """

    rule: str
    fleet: FleetSpec
    results: tuple[Result, ...]
    load: float = 0.0
    capacity: tuple[Result, ...] = ()
    whose_seqs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """All runs over the same arrivals. rate: per second; stated: share with an output limit."""

    source: str
    requests: int
    rate: float
    poisson: bool
    stated: float
    notes: tuple[str, ...]
    compared: tuple[Compared, ...]


@dataclass(frozen=True, slots=True)
class _FigureRow:
    head: str
    read: Callable[[SimulatedFigures], float]
    digits: int
    scale: float = 1.0


_TIMES: Final = (
    _FigureRow("TTFT P50 s", lambda f: f.ttft_p50_s, 2),
    _FigureRow("TTFT P99 s", lambda f: f.ttft_p99_s, 2),
    _FigureRow("TPOT P50 ms", lambda f: f.tpot_p50_s, 1, 1000),
    _FigureRow("TPOT P99 ms", lambda f: f.tpot_p99_s, 1, 1000),
    _FigureRow("preempted ‰", lambda f: f.preemptions, 1),
    _FigureRow("prompt tokens cached %", lambda f: f.reused, 1, 100),
)
_RULE_FIGURES: Final = (
    _FigureRow("answers/s", lambda f: f.throughput, 1),
    *_TIMES,
    _FigureRow("failed over %", lambda f: f.failed_over, 2, 100),
    _FigureRow("clamped %", lambda f: f.clamped, 2, 100),
    _FigureRow("rejected or unfinished %", lambda f: f.rejected + f.unfinished, 2, 100),
    _FigureRow("misrouted %", lambda f: f.misrouted, 2, 100),
    _FigureRow("over-routed %", lambda f: f.over_routed, 2, 100),
)
_POOL_FIGURES: Final = (
    _FigureRow("requests", lambda f: f.requests, 0),
    _FigureRow("slots used %", lambda f: f.utilisation, 1, 100),
    *_TIMES,
)


def print_simulation(simulation: Simulation, console: Console) -> None:
    """Print a comparison of the rules, and the pools of the first rule."""
    first = simulation.compared[0]
    _print(console, _describe(simulation))
    console.print(_rules(simulation))
    _print(console, f"The pools of {first.rule}, mean over the seeds")
    console.print(_pools(first))
    if any(each.capacity for each in simulation.compared):
        _print(console, "TTFT P50 / P99 s and TPOT P99 ms if the capacity were 10 % less or more")
        console.print(_capacity(simulation.compared))
    _print(console, _explain(simulation))


def to_json(simulation: Simulation) -> str:
    """Return all figures as JSON; infinite and unknown values are null."""
    document = {
        "simulated": True,
        "source": simulation.source,
        "requests": simulation.requests,
        "requests_per_s": simulation.rate,
        "arrivals": "poisson" if simulation.poisson else "replayed",
        "stated_share": simulation.stated,
        "notes": simulation.notes,
        "rules": {
            compared.rule: [asdict(result) for result in compared.results]
            for compared in simulation.compared
        },
        "load": {compared.rule: compared.load for compared in simulation.compared},
        "capacity": {
            compared.rule: {
                f"{by:+.0%}": asdict(result)
                for by, result in zip(CAPACITIES, compared.capacity, strict=True)
            }
            for compared in simulation.compared
            if compared.capacity
        },
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)


def _describe(simulation: Simulation) -> str:
    pools = simulation.compared[0].fleet.pools
    sizes = ", ".join(
        f"{pool.name} {pool.instances} x {pool.engine.max_num_seqs} sequences of "
        f"{pool.engine.max_model_len} tokens, up to {pool.threshold}"
        for pool in pools
    )
    how = "Poisson" if simulation.poisson else "at the times of the trace"
    return (
        f"{simulation.requests} requests of {simulation.source}, {simulation.rate:.1f} per second, "
        f"{how}.\nPools: {sizes}."
    )


def _explain(simulation: Simulation) -> str:
    results = simulation.compared[0].results
    lines = [
        f"Simulated, over {len(results)} seed(s). Percentiles are over all requests that arrived "
        f"after {results[0].warmup_s:.0f} s of {results[0].span_s:.0f} s; what was rejected or not "
        "finished counts as infinite.",
        f"The texts are generated; {simulation.stated:.0%} of the requests state an output limit.",
    ]
    lines += [text for each in simulation.compared if (text := _rival(each))]
    if len(results) > 1:
        lines.append("± is half of the 95 % interval of the mean over the seeds.")
    return "\n".join([*lines, *(f"Note: {note}." for note in simulation.notes)])


def _rival(compared: Compared) -> str:
    if not compared.whose_seqs:
        return ""
    seqs = compared.fleet.pools[-1].engine.max_num_seqs
    return (
        f"{compared.rule}: all GPUs in one pool, {seqs} sequences an instance"
        f" ({compared.whose_seqs})."
    )


def _rules(simulation: Simulation) -> Table:
    compared = simulation.compared
    table = _table(*(each.rule for each in compared))
    table.add_row("GPUs", *(str(each.fleet.gpus) for each in compared))
    for row in _RULE_FIGURES:
        fleets = ([result.fleet for result in each.results] for each in compared)
        table.add_row(row.head, *(_cell(row, found) for found in fleets))
    return table


def _pools(compared: Compared) -> Table:
    pools = compared.fleet.pools
    table = _table(*(pool.name for pool in pools))
    table.add_row("instances", *(str(pool.instances) for pool in pools))
    for row in _POOL_FIGURES:
        found = [[result.pools[n] for result in compared.results] for n in range(len(pools))]
        table.add_row(row.head, *(_cell(row, figures) for figures in found))
    return table


def _capacity(compared: Sequence[Compared]) -> Table:
    slower, faster = (f"{by:+.0%}" for by in CAPACITIES)
    table = _table("load", slower, "as it is", faster)
    for each in compared:
        if each.capacity:
            less, more = each.capacity
            cells = (_tails(result.fleet) for result in (less, each.results[0], more))
            load = "all at once" if math.isinf(each.load) else f"{each.load:.0%}"
            table.add_row(each.rule, load, *cells)
    return table


def _tails(of: SimulatedFigures) -> str:
    times = " / ".join(_written(Interval(v, 0.0), 2) for v in (of.ttft_p50_s, of.ttft_p99_s))
    return f"{times}, {_written(Interval(1000 * of.tpot_p99_s, 0.0), 1)}"


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _cell(row: _FigureRow, figures: list[SimulatedFigures]) -> str:
    values = [row.scale * row.read(each) for each in figures]
    return _written(interval(values), row.digits)


def _written(found: Interval, digits: int) -> str:
    if math.isnan(found.mean):
        return "-"
    if math.isinf(found.mean):
        return "never"
    mean = f"{found.mean:.{digits}f}"
    half = f"{found.half:.{digits}f}"
    return mean if math.isinf(found.half) or not float(half) else f"{mean} ±{half}"
