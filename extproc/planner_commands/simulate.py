"""`dualpool simulate`: arrivals through fleets, run by run, and the report.

The rule kept here: what is compared gets the same arrivals, the same texts and the same GPUs.
"""

import importlib
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from rich.console import Console

from extproc.planner.report.simulated import Compared, Simulation, print_simulation, to_json
from extproc.planner.simulation.fleet import FleetSpec
from extproc.planner.simulation.records import Records
from extproc.planner.simulation.results import summarise
from extproc.planner.simulation.rules import RuleName, make_rule
from extproc.planner.simulation.run import Conduct, simulate
from extproc.planner.sizing.question import PlanError
from extproc.planner.traffic.arrivals import arrive, draw_limits
from extproc.planner.traffic.lengths import InputError, Trace, Workload, poisson, replay
from extproc.planner.traffic.rows import Reading
from extproc.planner.traffic.texts import STATED
from extproc.planner_commands.fleets import FleetOptions, build_fleet
from extproc.planner_commands.inputs import InputOptions, read_inputs
from extproc.progress import Show, showing
from extproc.simulator.engine.profiles import ProfileError

COMPARED: Final = (
    RuleName.DUALPOOL,
    RuleName.PAPER,
    RuleName.HOMOGENEOUS,
    RuleName.INPUT_LENGTH,
    RuleName.RANDOM,
    RuleName.ORACLE,
)
_WIDTH: Final = 110
_SHOWN_FROM: Final = 10_000  # requests of a run; fewer take a second or two


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """What was asked for.

    rate: arrivals a second, Poisson, of `requests` requests; 0: the trace's own times, `speed`
    times as fast. seeds: runs of each rule. warmup_s: None for the rule of `results.warmup`.
    """

    inputs: InputOptions
    fleet: FleetOptions = field(default_factory=FleetOptions)
    rate: float = 0.0
    requests: int = 20_000
    speed: float = 1.0
    rules: tuple[RuleName, ...] = (RuleName.DUALPOOL,)
    seeds: int = 1
    seed: int = 0
    stated: float = STATED
    spill: float | None = None
    conduct: Conduct = field(default_factory=Conduct)
    warmup_s: float | None = None
    json: Path | None = None
    plot: Path | None = None


def run_simulate(options: SimulateOptions) -> int:
    """Simulate, print and write; returns the exit code, 2 with one line on stderr for a mistake."""
    try:
        simulation, records = _simulate_all(options)
    except (InputError, PlanError, ProfileError) as error:
        Console(stderr=True, soft_wrap=True).print(
            f"dualpool: {error}", markup=False, highlight=False
        )
        return 2
    print_simulation(simulation, Console(width=max(_WIDTH, Console().width)))
    if options.json:
        options.json.write_text(to_json(simulation), encoding="utf-8")
    if options.plot:
        # By name: matplotlib is there only where it was asked for.
        plot = importlib.import_module("extproc.planner.report.plot")
        plot.draw_simulation(records, options.plot)
    return 0


def _simulate_all(options: SimulateOptions) -> tuple[Simulation, dict[str, Records]]:
    """Run every rule with every seed; returns the figures, and each rule's first records."""
    _check(options)
    reading = read_inputs(options.inputs)
    trace = _arrivals(options, reading, options.seed)
    _check_warmup(options, trace)
    bench = _Bench(options, reading, build_fleet(options.fleet, trace.workload(), trace.rate))
    first = dict[str, Records]()
    with showing(Console(stderr=True)) as show:
        compared = tuple(_compare(bench, rule, show, first) for rule in options.rules)
    simulation = Simulation(
        source=trace.name,
        requests=len(trace),
        rate=trace.rate,
        poisson=options.rate > 0,
        stated=options.stated,
        notes=reading.notes,
        compared=compared,
    )
    return simulation, first


@dataclass(frozen=True, slots=True)
class _Bench:
    options: SimulateOptions
    reading: Reading
    fleet: FleetSpec


def _compare(bench: _Bench, rule: RuleName, show: Show, first: dict[str, Records]) -> Compared:
    """Run a rule with every seed; what happened in its first run goes into `first`, for a plot."""
    options = bench.options
    fleet = bench.fleet.homogeneous() if rule is RuleName.HOMOGENEOUS else bench.fleet
    results = []
    for seed in range(options.seed, options.seed + options.seeds):
        trace = _arrivals(options, bench.reading, seed)
        records = _run(options, _Case(fleet, rule, trace, seed), show)
        results.append(summarise(records, options.warmup_s))
        if options.plot:
            first.setdefault(rule.value, records)
    return Compared(rule.value, fleet, tuple(results))


@dataclass(frozen=True, slots=True)
class _Case:
    fleet: FleetSpec
    rule: RuleName
    trace: Trace
    seed: int


def _run(options: SimulateOptions, case: _Case, show: Show) -> Records:
    rule = make_rule(case.rule, case.fleet, case.seed, options.spill)
    limits = draw_limits(case.trace, case.seed, options.stated)
    conduct = replace(options.conduct, seed=case.seed)
    progress = _progress(f"{case.rule.value}, seed {case.seed}, per cent", len(case.trace), show)
    return simulate(
        case.fleet, arrive(case.trace, limits, case.seed), rule, conduct, progress=progress
    )


def _progress(text: str, requests: int, show: Show) -> Callable[[int], None]:
    """Return what counts requests and shows them as per cent; nothing where there are few."""
    if requests < _SHOWN_FROM:
        return lambda _: None
    show.begin(text, 100)
    arrived = 0

    def count(more: int) -> None:
        nonlocal arrived
        for _ in range(100 * (arrived + more) // requests - 100 * arrived // requests):
            show.advance()
        arrived += more

    return count


def _arrivals(options: SimulateOptions, reading: Reading, seed: int) -> Trace:
    found = reading.requests
    if options.rate:
        workload = found if isinstance(found, Workload) else found.workload()
        return poisson(workload, options.rate, options.requests, seed)
    if isinstance(found, Workload):
        raise InputError("--rate", 0, "needed: the input has no arrival times")
    return replay(found, options.speed)


def _check(options: SimulateOptions) -> None:
    """Raise InputError for numbers that cannot be."""
    warmup_s, spill, conduct = options.warmup_s, options.spill, options.conduct
    allowed = (
        ("--rate", 0 <= options.rate < math.inf, "requests a second, above 0"),
        ("--requests", options.requests >= 2, "2 at least"),
        ("--speed", 0 < options.speed < math.inf, "a factor above 0"),
        ("--seeds", options.seeds >= 1, "1 at least"),
        ("--seed", options.seed >= 0, "0 at least"),
        ("--stated", 0 <= options.stated <= 1, "a share from 0 to 1"),
        ("--choices", conduct.choices >= 1, "1 instance at least"),
        ("--drain", conduct.drain_s >= 0, "seconds, 0 at least"),
        ("--warmup", warmup_s is None or warmup_s >= 0, "seconds, 0 at least"),
        ("--spill", spill is None or spill > 0, "requests for each slot, above 0"),
    )
    for flag, good, text in allowed:
        if not good:
            raise InputError(flag, 0, f"allowed: {text}")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        raise InputError("--plot", 0, "needs matplotlib: pip install 'dualpool[evaluate]'")


def _check_warmup(options: SimulateOptions, trace: Trace) -> None:
    span_s = float(trace.at_s[-1] - trace.at_s[0])
    if options.warmup_s is not None and options.warmup_s > span_s:
        text = f"{options.warmup_s:g} s leaves out every request; they take {span_s:.0f} s"
        raise InputError("--warmup", 0, text)
