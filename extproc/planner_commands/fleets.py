"""The fleet that a simulation is about: from a plan, from given sizes, or sized by the planner."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from extproc.planner.simulation.fleet import FleetSpec, PoolSpec
from extproc.planner.sizing.question import Question
from extproc.planner.sizing.search import Planner
from extproc.planner.traffic.lengths import InputError, Workload
from extproc.planner_commands.options import load_profile
from extproc.simulator.engine.profiles import InstanceProfile

_NAMES: Final = {1: ("all",), 2: ("short", "long"), 3: ("short", "medium", "long")}


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """What was asked for; empty tuples and zeros: the planner decides.

    windows: max_model_len of the pools, rising. thresholds: of all pools but the largest; the
    windows, where empty. plan: a file that `dualpool plan --json` wrote, in place of all others.
    """

    profile: str = "a100-llama70b"
    windows: tuple[int, ...] = (8192, 65536)
    thresholds: tuple[int, ...] = ()
    max_num_seqs: tuple[int, ...] = ()
    instances: tuple[int, ...] = ()
    gpus: int = 0
    plan: Path | None = None
    max_num_batched_tokens: int = 2048
    prefix_caching: bool = False


@dataclass(frozen=True, slots=True)
class _Traffic:
    workload: Workload
    rate_per_s: float


class _Sized(msgspec.Struct, frozen=True):
    """A pool as plans and options give it."""

    name: str
    max_model_len: int
    max_num_seqs: int
    threshold: int
    instances: int


class _Plan(msgspec.Struct, frozen=True):
    pools: tuple[_Sized, ...]


class _Question(msgspec.Struct, frozen=True):
    profile: InstanceProfile
    max_num_batched_tokens: int


class _Answer(msgspec.Struct, frozen=True):
    question: _Question
    plan: _Plan


def build_fleet(options: FleetOptions, workload: Workload, rate_per_s: float) -> FleetSpec:
    """Return the fleet for a traffic.

    Raises InputError for options that do not fit each other, ProfileError, and PlanError where the
    planner has no answer.
    """
    if options.plan:
        answer = _read_plan(options.plan)
        profile, sized = answer.question.profile, answer.plan.pools
        batched = answer.question.max_num_batched_tokens
        options = replace(options, max_num_batched_tokens=batched)
    else:
        _check(options)
        profile = load_profile(options.profile)
        sized = _size(options, profile, _Traffic(workload, rate_per_s))
    try:
        return FleetSpec(tuple(_spec(pool, profile, options) for pool in sized))
    except ValueError as error:
        raise InputError("fleet", 0, str(error)) from None


def _check(options: FleetOptions) -> None:
    pools = len(options.windows)
    counts = {
        "--instances": (options.instances, pools),
        "--max-num-seqs": (options.max_num_seqs, pools),
        "--threshold": (options.thresholds, pools - 1),
    }
    for flag, (given, wanted) in counts.items():
        if given and (len(given) != wanted or min(given) < 1):
            text = f"{len(given)} given; allowed: {wanted} of at least 1, separated by commas"
            raise InputError(flag, 0, text)
    if list(options.windows) != sorted(set(options.windows)) or options.windows[0] < 1:
        raise InputError("--window", 0, "windows rise, the smallest pool first")
    if options.instances and options.gpus:
        raise InputError("--gpus", 0, "not together with --instances; give one of them")


def _size(options: FleetOptions, profile: InstanceProfile, traffic: _Traffic) -> tuple[_Sized, ...]:
    windows = options.windows
    thresholds = (*(options.thresholds or windows[:-1]), windows[-1])
    slots = options.max_num_seqs or tuple(max(1, profile.window_slots(w)) for w in windows)
    instances = options.instances or _plan_instances(options, profile, traffic)
    names = _NAMES.get(len(windows)) or tuple(f"pool-{n}" for n in range(1, len(windows) + 1))
    rows = zip(names, windows, slots, thresholds, instances, strict=True)
    return tuple(_Sized(*row) for row in rows)


def _plan_instances(
    options: FleetOptions, profile: InstanceProfile, traffic: _Traffic
) -> tuple[int, ...]:
    """Return the planner's instances, or a given number of GPUs shared out by the pools' loads."""
    if not math.isfinite(traffic.rate_per_s):
        raise InputError("--instances", 0, "needed: all requests come at once, so there is no rate")
    question = Question(
        workload=traffic.workload,
        rate_per_s=traffic.rate_per_s,
        profile=profile,
        window=options.windows[-1],
        max_num_batched_tokens=options.max_num_batched_tokens,
    )
    plan = Planner(question).at(options.thresholds or options.windows[:-1])
    if not options.gpus:
        return tuple(max(1, pool.instances) for pool in plan.pools)
    loads = [pool.share / pool.mu_per_instance for pool in plan.pools]
    return share_out(options.gpus // profile.gpus, loads)


def share_out(instances: int, loads: Sequence[float]) -> tuple[int, ...]:
    """Share instances among pools in proportion to their loads, each at least one.

    Raises InputError where there are fewer instances than pools.
    """
    if instances < len(loads):
        raise InputError(
            "--gpus", 0, f"enough for {instances} instances; a pool needs one at least"
        )
    shares = [instances * load / sum(loads) for load in loads]
    found = [max(1, int(share)) for share in shares]
    while sum(found) != instances:
        step = 1 if sum(found) < instances else -1
        free = [i for i, count in enumerate(found) if count + step >= 1]
        index = max(free, key=lambda i: step * (shares[i] - found[i]))
        found[index] += step
    return tuple(found)


def _read_plan(file: Path) -> _Answer:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Answer)
    except (OSError, msgspec.DecodeError) as error:
        text = f"{error}; allowed: what dualpool plan --json wrote"
        raise InputError(str(file), 0, text) from None


def _spec(pool: _Sized, profile: InstanceProfile, options: FleetOptions) -> PoolSpec:
    batched = max(options.max_num_batched_tokens, pool.max_num_seqs)
    engine = profile.engine(pool.max_model_len, pool.max_num_seqs, batched)
    return PoolSpec(
        name=pool.name,
        engine=replace(engine, enable_prefix_caching=options.prefix_caching),
        profile=profile.pace,
        instances=pool.instances,
        threshold=pool.threshold,
        gpus=profile.gpus,
        overhead_s=profile.overhead_s,
    )
