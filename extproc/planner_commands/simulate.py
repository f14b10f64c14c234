"""`dualpool simulate`: run arrivals through fleets and report.

Invariant: all rules that are compared get the same arrivals, the same texts and the same GPUs.
"""

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console

from extproc.build import build_rules
from extproc.config.load import load_row
from extproc.config.settings import Settings
from extproc.names import install_hint
from extproc.output import STDOUT, report_console, write_json
from extproc.planner.proof.capacity import load_of, with_capacity
from extproc.planner.report.simulated import Compared, Simulation, print_simulation, to_json
from extproc.planner.simulation.fleet import FleetSpec
from extproc.planner.simulation.records import Records
from extproc.planner.simulation.results import Result, summarise
from extproc.planner.simulation.rules import Estimated, Replayed, Rule, RuleName, make_rule
from extproc.planner.simulation.run import Conduct, simulate
from extproc.planner.simulation.spilling import Spilling
from extproc.planner.sizing.sensitivity import CAPACITIES, HIGH_LOAD
from extproc.planner.traffic.arrivals import arrive, draw_limits
from extproc.planner.traffic.lengths import InputError, Trace, Workload, poisson, replay
from extproc.planner.traffic.rows import NO_TIMES, Reading
from extproc.planner.traffic.texts import STATED
from extproc.planner_commands.fleets import (
    FleetOptions,
    build_fleet,
    choose_pools,
    profile_of,
)
from extproc.planner_commands.inputs import InputOptions, read_inputs
from extproc.planner_commands.sweep import SWEEP, SweepOptions, sized, spreading
from extproc.progress import Show, showing
from extproc.simulator.engine.profiles import InstanceProfile

COMPARED: Final = (
    RuleName.DUALPOOL,
    RuleName.ONE_POOL,
    RuleName.PAPER,
    RuleName.INPUT_LENGTH,
    RuleName.RANDOM,
    RuleName.ORACLE,
    RuleName.HOMOGENEOUS,
)
_WIDTH: Final = 120  # seven rules with intervals
_LEAST_ANSWERS: Final = 5  # mean times of an answer in a run: two fill the fleet
_SHOWN_FROM: Final = 10_000  # requests of a run; fewer take a second or two


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """The options of `dualpool simulate`.

    config: the service's settings file; None: its defaults. rate: Poisson arrivals per second of
    `requests` requests; 0: the trace's own times, `speed` times as fast. seeds: runs of each rule.
    spill: whether the rule `dualpool` moves requests by load. sensitivity: whether runs near their
    capacity are repeated with less and with more. warmup_s: None for `results.warmup`.
    """

    inputs: InputOptions
    config: Path | None = None
    fleet: FleetOptions = field(default_factory=FleetOptions)
    rate: float = 0.0
    requests: int = 20_000
    speed: float = 1.0
    rules: tuple[RuleName, ...] = (RuleName.DUALPOOL,)
    seeds: int = 1
    seed: int = 0
    stated: float = STATED
    spill: bool = False
    sensitivity: bool = True
    conduct: Conduct = field(default_factory=Conduct)
    sweep: SweepOptions = SWEEP
    warmup_s: float | None = None
    json: Path | None = None
    plot: Path | None = None


def run_simulate(options: SimulateOptions) -> int:
    """Simulate, print the report and write the files; return the exit code.

    Raises UserError for wrong options or inputs, and OSError if a file cannot be written.
    """
    simulation, records = _simulate_all(options)
    if options.json != STDOUT:
        print_simulation(simulation, report_console(_WIDTH))
    if options.json:
        write_json(options.json, to_json(simulation))
    if options.plot:
        # Imported here: matplotlib is optional.
        plot = importlib.import_module("extproc.planner.report.plot")
        plot.draw_simulation(records, options.plot)
    return 0


@dataclass(frozen=True, slots=True)
class _SimulationInputs:
    options: SimulateOptions
    settings: Settings
    reading: Reading
    fleet: FleetSpec
    profile: InstanceProfile
    requests: int


def _simulate_all(options: SimulateOptions) -> tuple[Simulation, dict[str, Records]]:
    """Run every rule with every seed; return the figures, and the records of each first run."""
    _check(options)
    settings = load_row(options.config)
    reading = read_inputs(options.inputs)
    trace = _arrivals(options, reading, options.seed)
    _check_warmup(options, trace)
    fleet = _fleet(options, settings, trace)
    profile = profile_of(options.fleet)
    inputs = _SimulationInputs(options, settings, reading, fleet, profile, len(trace))
    compared, first = _compare_all(inputs)
    simulation = Simulation(
        source=trace.name,
        requests=len(trace),
        rate=trace.rate,
        poisson=options.rate > 0,
        stated=options.stated,
        notes=(*reading.notes, *inputs.fleet.notes, *_notes(options, compared)),
        compared=compared,
    )
    return simulation, first


def _fleet(options: SimulateOptions, settings: Settings, trace: Trace) -> FleetSpec:
    # Sized once, for the arrivals of the first seed: all rules and seeds run on the same GPUs.
    configured = build_rules(settings).pools
    pools = choose_pools(options.fleet, configured, is_file=options.config is not None)
    return build_fleet(options.fleet, pools, trace.workload(), trace.rate)


def _compare_all(inputs: _SimulationInputs) -> tuple[tuple[Compared, ...], dict[str, Records]]:
    """Run every rule with every seed, and what is near its capacity with less and with more."""
    options = inputs.options
    seeds = range(options.seed, options.seed + options.seeds)
    runs = [_SimulationRun(rule, seed) for rule in options.rules for seed in seeds]
    done = _run_all(inputs, runs, "Runs")
    firsts = {run.rule: run for run in done[:: options.seeds]}
    near = [
        _SimulationRun(rule, options.seed, 1 + by, first.chosen)
        for rule, first in firsts.items()
        for by in CAPACITIES
        if options.sensitivity and first.load > HIGH_LOAD
    ]
    again = _run_all(inputs, near, "Runs with 10 % less and more capacity")
    compared = tuple(
        Compared(
            rule.value,
            _fleet_of(rule, inputs)[0],
            tuple(run.result for run in done if run.rule is rule),
            firsts[rule].load,
            tuple(run.result for run in again if run.rule is rule),
            _fleet_of(rule, inputs)[1],
        )
        for rule in options.rules
    )
    first = {run.rule.value: run.records for run in reversed(done) if run.records}
    return compared, first


def _fleet_of(rule: RuleName, inputs: _SimulationInputs) -> tuple[FleetSpec, str]:
    """Return the fleet of a rule, and whose max_num_seqs a fleet of one pool has."""
    fleet, profile, given = inputs.fleet, inputs.profile, inputs.options.fleet.max_num_seqs
    engine = fleet.pools[-1].engine
    if rule is RuleName.ONE_POOL:
        seqs = profile.default_num_seqs(engine.max_num_batched_tokens)
        return fleet.one_pool(seqs), profile.whose_default
    if rule is not RuleName.HOMOGENEOUS:
        return fleet, ""
    if given and not inputs.options.fleet.plan:
        return fleet.one_pool(given[-1]), "that of the largest pool"
    seqs = profile.window_slots(engine.max_model_len)
    return fleet.one_pool(seqs), "the papers' rule, KV / window; nobody has to run it so"


def _notes(options: SimulateOptions, compared: Sequence[Compared]) -> Iterator[str]:
    """Yield what the first rule's figures cannot show."""
    first = compared[0]
    result = first.results[0]
    # Where a fleet is overloaded, answers take the longer the longer the run.
    if first.load > 1 or result.answer_s * _LEAST_ANSWERS <= result.span_s:
        return
    # Twice that: answers take longer in a fleet that is full.
    needed = 2 * _LEAST_ANSWERS * result.answer_s * options.rate
    requests = math.ceil(needed / 1000) * 1000
    fix = f"give --requests {requests}" if options.rate else "replay a longer trace"
    yield (
        f"the run is too short to tell: its arrivals span {result.span_s:.3g} s, and an answer"
        f" takes {result.answer_s:.3g} s, so the fleet is still filling; {fix}"
    )


@dataclass(frozen=True, slots=True)
class _SimulationRun:
    """A run to do. chosen: the pools that an earlier run chose; None: the rule chooses."""

    rule: RuleName
    seed: int
    capacity: float = 1.0
    chosen: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Done:
    """A run; records: for a plot, else None. chosen: for another run, None if it must choose."""

    rule: RuleName
    result: Result
    load: float
    records: Records | None
    chosen: bytes | None


def _run(
    inputs: _SimulationInputs, run: _SimulationRun, progress: Callable[[int], None] = lambda _: None
) -> _Done:
    options = inputs.options
    fleet = with_capacity(_fleet_of(run.rule, inputs)[0], run.capacity)
    trace = _arrivals(options, inputs.reading, run.seed)
    rule = _rule(inputs, run, fleet)
    limits = draw_limits(trace, run.seed, options.stated)
    conduct = replace(options.conduct, seed=run.seed)
    arrivals = arrive(trace, limits, run.seed, texts=isinstance(rule, Estimated))
    watch = rule.watch if isinstance(rule, Spilling) else None
    records = simulate(fleet, arrivals, rule, conduct, progress, watch)
    # 12 columns of 8 bytes: 96 MB for a million requests, kept only where they are drawn.
    kept = records if options.plot and run.seed == options.seed else None
    # A rule that moves requests by load chooses otherwise under another one.
    chosen = None if watch else records.chosen.astype(np.uint8).tobytes()
    result = summarise(records, options.warmup_s)
    return _Done(run.rule, result, load_of(records), kept, chosen)


def _rule(inputs: _SimulationInputs, run: _SimulationRun, fleet: FleetSpec) -> Rule:
    # With other capacity the same requests go to the same pools: so only the capacity differs, and
    # the service's estimates, most of the cost of a run, are not repeated.
    if run.chosen is not None:
        return Replayed(run.chosen)
    if inputs.options.spill and run.rule is RuleName.DUALPOOL:
        return Spilling(fleet.routing(), inputs.settings, run.seed)
    return make_rule(run.rule, fleet, run.seed, inputs.settings)


def _run_all(inputs: _SimulationInputs, runs: Sequence[_SimulationRun], text: str) -> list[_Done]:
    """Run all; a single one in this process, with its arrivals as progress."""
    if len(runs) == 1 and not inputs.options.sweep.cluster:
        return [_run_alone(inputs, runs[0])]
    requests = len(runs) * inputs.requests
    with spreading(sized(inputs.options.sweep, requests)) as spread:
        return list(spread(text, [partial(_run, inputs, run) for run in runs])) if runs else []


def _run_alone(inputs: _SimulationInputs, run: _SimulationRun) -> _Done:
    requests = len(_arrivals(inputs.options, inputs.reading, run.seed))
    with showing(Console(stderr=True)) as show:
        return _run(inputs, run, _progress(f"{run.rule.value}, per cent", requests, show))


def _progress(text: str, requests: int, show: Show) -> Callable[[int], None]:
    """Return a callback that shows arrivals in per cent; it does nothing for short runs."""
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
        raise InputError("--rate", 0, f"needed: {NO_TIMES}")
    return replay(found, options.speed)


def _check(options: SimulateOptions) -> None:
    """Raise InputError for the first number out of range."""
    warmup_s, conduct = options.warmup_s, options.conduct
    allowed = (
        ("--rate", 0 <= options.rate < math.inf, "requests per second, above 0"),
        ("--requests", options.requests >= 2, "at least 2"),
        ("--speed", 0 < options.speed < math.inf, "a factor above 0"),
        ("--seeds", options.seeds >= 1, "at least 1"),
        ("--seed", options.seed >= 0, "at least 0"),
        ("--stated", 0 <= options.stated <= 1, "a share from 0 to 1"),
        ("--choices", conduct.choices >= 1, "at least 1 instance"),
        ("--drain", conduct.drain_s >= 0, "seconds, at least 0"),
        ("--warmup", warmup_s is None or warmup_s >= 0, "seconds, at least 0"),
    )
    for flag, good, text in allowed:
        if not good:
            raise InputError(flag, 0, f"allowed: {text}")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        raise InputError("--plot", 0, f"needs matplotlib: {install_hint('evaluate')}")


def _check_warmup(options: SimulateOptions, trace: Trace) -> None:
    span_s = float(trace.at_s[-1] - trace.at_s[0])
    if options.warmup_s is not None and options.warmup_s > span_s:
        text = f"{options.warmup_s:g} s leaves out every request; arrivals span {span_s:.0f} s"
        raise InputError("--warmup", 0, text)
