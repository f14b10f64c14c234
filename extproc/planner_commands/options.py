"""The options of `dualpool plan`, and the question that they make."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from extproc.planner.proof.catalogue import ACCELERATORS, Machine, machine
from extproc.planner.sizing.estimators import CALIBRATED, EstimatorErrors, measured
from extproc.planner.sizing.question import (
    HOURS_PER_YEAR,
    MAX_NUM_SEQS,
    WINDOW,
    Objectives,
    PlanError,
    Question,
    SlotRule,
)
from extproc.planner.traffic.lengths import Trace
from extproc.planner.traffic.rows import NO_TIMES, Reading
from extproc.planner_commands.inputs import InputOptions
from extproc.planner_commands.sweep import SWEEP, SweepOptions
from extproc.simulator.engine.profiles import (
    NAMED,
    InstanceProfile,
    ProfileError,
    named_profile,
    read_profile,
)

DEFAULT_PROFILE: Final = "a100-llama70b"
SHORT: Final = 8192
"""Tokens up to which a request is short for --tails, without --threshold."""
_MODEL: Final = "llama-3-8b"
_LEAST_OF_A_CLASS: Final = 10
_OBJECTIVES: Final = Objectives()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """The options of `dualpool plan`.

    config: the service's settings file, whose pools and estimator are planned for; None: the
    planner chooses the pools. names: those of the file's pools, ascending. rate: requests per
    second; None: the trace's own. profile: a name or a file. window: None: that of the file's
    largest pool, or WINDOW. max_num_batched_tokens: None: vLLM's default on the accelerator.
    errors: shares of misrouted and over-routed requests, as text; None: measured ones.
    slo_long_ttft_ms, slo_long_tpot_ms: above the smallest pool; None: the same. tails: whether to
    simulate what each class of requests sees, in runs of `requests`. offers: NAME=GPU,... of the
    short and of the long pool, which run `model`; None: _MODEL. price: USD per
    GPU and hour; None: the profile's. json, html, plot: files to write; json may be `-` for
    standard output. out: a folder for the files that start the pools. sweep: where simulations run.
    """

    inputs: InputOptions
    config: Path | None = None
    rate: float | None = None
    profile: str = DEFAULT_PROFILE
    window: int | None = None
    max_num_batched_tokens: int | None = None
    slo_ttft_ms: float = _OBJECTIVES.ttft_p99_s * 1e3
    slo_tpot_ms: float = _OBJECTIVES.tpot_p99_s * 1e3
    utilisation: float = _OBJECTIVES.utilisation
    pools: int = 2
    thresholds: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    slots: str = SlotRule.OCCUPANCY.value
    max_num_seqs: int = MAX_NUM_SEQS
    errors: str | None = None
    slo_long_ttft_ms: float | None = None
    slo_long_tpot_ms: float | None = None
    offers: tuple[str, ...] = ()
    model: str | None = None
    tails: bool = False
    requests: int = 10_000
    sweep: SweepOptions = SWEEP
    hours: float = HOURS_PER_YEAR
    price: float | None = None
    out: Path | None = None
    json: Path | None = None
    html: Path | None = None
    plot: Path | None = None


def question_of(
    options: PlanOptions, reading: Reading, estimator: EstimatorErrors = CALIBRATED
) -> Question:
    """Return the question to the planner. Raises PlanError or ProfileError.

    estimator: its errors, unless the options give them.
    """
    if not 1 <= options.pools <= 8:
        raise PlanError(f"--pools: {options.pools} is not allowed: from 1 to 8")
    if options.model is not None and not options.offers:
        raise PlanError("--model: only together with --pool; a --profile names its model")
    requests = reading.requests
    goals = Objectives(
        ttft_p99_s=options.slo_ttft_ms / 1e3,
        tpot_p99_s=options.slo_tpot_ms / 1e3,
        utilisation=options.utilisation,
    )
    profile = load_profile(options.profile, options.price)
    batched = options.max_num_batched_tokens
    return Question(
        workload=requests.workload() if isinstance(requests, Trace) else requests,
        rate_per_s=rate_of(options.rate, reading),
        profile=profile,
        window=WINDOW if options.window is None else options.window,
        objectives=goals,
        long_objectives=_long_goals(options, goals),
        estimator=estimator if options.errors is None else _given_errors(options.errors),
        slot_rule=SlotRule(options.slots),
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=profile.max_num_batched_tokens if batched is None else batched,
        hours_per_year=options.hours,
        names=options.names,
    )


def machines_of(options: PlanOptions) -> tuple[tuple[Machine, ...], tuple[Machine, ...]]:
    """Return what the short and the long pool may run on. Raises PlanError or ProfileError."""
    found = [_machines(offer, options) for offer in options.offers]
    if len(found) != 2:
        raise PlanError(f"--pool: {len(found)} given; allowed: two, the short pool first")
    return found[0], found[1]


def _machines(offer: str, options: PlanOptions) -> tuple[Machine, ...]:
    _, equals, names = offer.partition("=")
    if not equals or not all(names.split(",")):
        raise PlanError(f"--pool: {offer} is not allowed: for example short=l4,l40s")
    machines = (_machine(name, options.model or _MODEL) for name in names.split(","))
    batched = options.max_num_batched_tokens
    return tuple(replace(machine, max_num_batched_tokens=batched) for machine in machines)


def _machine(name: str, model: str) -> Machine:
    if found := machine(name, model):
        return found
    try:
        return Machine(name, load_profile(name))
    except ProfileError as error:
        known = ", ".join(ACCELERATORS)
        raise PlanError(f"--pool: {error}, or GPUs: {known}, each also as in h100x8") from None


def _long_goals(options: PlanOptions, goals: Objectives) -> Objectives | None:
    ttft_ms, tpot_ms = options.slo_long_ttft_ms, options.slo_long_tpot_ms
    if ttft_ms is None and tpot_ms is None:
        return None
    return replace(
        goals,
        ttft_p99_s=goals.ttft_p99_s if ttft_ms is None else ttft_ms / 1e3,
        tpot_p99_s=goals.tpot_p99_s if tpot_ms is None else tpot_ms / 1e3,
    )


def class_threshold(options: PlanOptions, question: Question) -> int:
    """Return the tokens up to which a request is short. Raises PlanError."""
    threshold = options.thresholds[0] if options.thresholds else min(SHORT, question.window // 2)
    short = question.workload.share_within(threshold)
    if min(short, 1 - short) * options.requests < _LEAST_OF_A_CLASS:
        raise PlanError(
            f"--tails: {short:.1%} of the requests have at most {threshold} tokens: of"
            f" {options.requests} --requests fewer than {_LEAST_OF_A_CLASS} would be short, or"
            " long; give another --threshold or more --requests, or add a file of long prompts"
        )
    return threshold


def rate_of(rate: float | None, reading: Reading) -> float:
    """Return the given rate, else the trace's own. Raises PlanError if there is none."""
    if rate is not None:
        if not 0 < rate < math.inf:
            raise PlanError(f"--rate: {rate:g} is not allowed: requests per second, above 0")
        return rate
    if not isinstance(reading.requests, Trace):
        raise PlanError(f"--rate: missing; {NO_TIMES}")
    own = reading.requests.rate
    if not 0 < own < math.inf:
        raise PlanError("--rate: missing; all requests of the input arrive at once")
    return own


def load_profile(name: str, price: float | None = None) -> InstanceProfile:
    """Return a named profile or read a file; `price` replaces its own. Raises ProfileError."""
    profile = named_profile(name) if name in NAMED else _from_file(name)
    if price is None:
        return profile
    if not 0 <= price < math.inf:
        raise ProfileError(f"--price: {price:g} is not allowed: USD per GPU and hour")
    return replace(profile, price_per_gpu_h=price)


def _from_file(name: str) -> InstanceProfile:
    if not Path(name).is_file():
        return named_profile(name)  # raises with the allowed names
    try:
        return read_profile(Path(name).read_bytes())
    except ProfileError as error:
        raise ProfileError(f"{name}: {error}") from error


def _given_errors(errors: str) -> EstimatorErrors:
    try:
        misrouted, over_routed = (float(part) for part in errors.split(","))
        return measured(misrouted, over_routed)
    except ValueError:
        text = f"--errors: {errors} is not allowed: two shares, such as 0.001,0.01"
        raise PlanError(text) from None
