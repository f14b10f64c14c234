"""The fleet to simulate: from a plan, from given pools, or sized by the planner."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from extproc.planner.simulation.fleet import FleetSpec, PoolSpec
from extproc.planner.sizing.plans import Plan
from extproc.planner.sizing.question import Question
from extproc.planner.sizing.search import Planner, pool_names
from extproc.planner.traffic.lengths import InputError, Workload
from extproc.planner_commands.options import DEFAULT_PROFILE, load_profile
from extproc.routing.pools import Pool
from extproc.simulator.engine.profiles import InstanceProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """The fleet's options; empty tuples and 0 mean that the settings or the planner decide.

    windows: max_model_len of the pools, ascending. thresholds: of all pools but the largest; the
    windows if empty. max_num_seqs: of each pool; what `dualpool plan` would choose if empty.
    plan: a file written by `dualpool plan --json`, which replaces all other options but
    prefix_caching and long_prefill_token_threshold. max_num_batched_tokens: None: vLLM's default on
    the accelerator.
    """

    profile: str = DEFAULT_PROFILE
    windows: tuple[int, ...] = ()
    thresholds: tuple[int, ...] = ()
    max_num_seqs: tuple[int, ...] = ()
    instances: tuple[int, ...] = ()
    gpus: int = 0
    plan: Path | None = None
    max_num_batched_tokens: int | None = None
    long_prefill_token_threshold: int = 0
    prefix_caching: bool = False


@dataclass(frozen=True, slots=True)
class _FleetTraffic:
    workload: Workload
    rate_per_s: float


class _PlannedPool(msgspec.Struct, frozen=True):
    """A pool as plans and options give it."""

    name: str
    max_model_len: int
    max_num_seqs: int
    threshold: int
    instances: int


class _PlanFilePools(msgspec.Struct, frozen=True):
    pools: tuple[_PlannedPool, ...]


class _PlanFileQuestion(msgspec.Struct, frozen=True):
    profile: InstanceProfile
    max_num_batched_tokens: int


class _PlanFile(msgspec.Struct, frozen=True):
    question: _PlanFileQuestion
    plan: _PlanFilePools


def choose_pools(options: FleetOptions, configured: Sequence[Pool], *, is_file: bool) -> list[Pool]:
    """Return the pools, in ascending order of their windows.

    configured: the pools of the settings; is_file: they come from a file, so an option that differs
    from them is an error. Otherwise options replace them. Raises InputError.
    """
    pools = _given_pools(options) or list(configured)
    if options.thresholds and not options.plan:
        _check_count("--threshold", options.thresholds, len(pools) - 1)
        limits = (*options.thresholds, pools[-1].max_model_len)
        pools = [replace(p, threshold=t) for p, t in zip(pools, limits, strict=True)]
    if is_file:
        _check_agreement(options, pools, configured)
        return list(configured)
    return pools


def _given_pools(options: FleetOptions) -> list[Pool]:
    """Return the pools of --plan or --window; none if neither is given."""
    if options.plan:
        planned = _read_plan(options.plan).plan.pools
        return [Pool(pool.name, pool.max_model_len, pool.threshold) for pool in planned]
    windows = options.windows
    if list(windows) != sorted(set(windows)) or (windows and windows[0] < 1):
        raise InputError("--window", 0, "allowed: rising windows, the smallest pool first")
    return [Pool(n, w, w) for n, w in zip(pool_names(len(windows)), windows, strict=True)]


def _check_agreement(
    options: FleetOptions, pools: Sequence[Pool], configured: Sequence[Pool]
) -> None:
    given, settings = ([(p.max_model_len, p.limit) for p in each] for each in (pools, configured))
    if given != settings:
        flag = "--plan" if options.plan else "--window" if options.windows else "--threshold"
        text = f"{_limits(given)} differ from the {_limits(settings)} of --config; give one of them"
        raise InputError(flag, 0, text)


def _limits(pools: Sequence[tuple[int, int]]) -> str:
    return "pools of " + ", ".join(f"{window} tokens up to {limit}" for window, limit in pools)


def build_fleet(
    options: FleetOptions, pools: Sequence[Pool], workload: Workload, rate_per_s: float
) -> FleetSpec:
    """Return the fleet of these pools for a workload.

    Raises InputError for options that contradict each other, ProfileError, and PlanError if the
    planner finds no fleet.
    """
    if options.plan:
        answer = _read_plan(options.plan)
        profile, sized = answer.question.profile, answer.plan.pools
        batched = answer.question.max_num_batched_tokens
        options = replace(options, max_num_batched_tokens=batched)
    else:
        _check(options, len(pools))
        profile = profile_of(options)
        sized = _size(options, pools, profile, _FleetTraffic(workload, rate_per_s))
    try:
        return FleetSpec(tuple(_spec(pool, profile, options) for pool in sized))
    except ValueError as error:
        raise InputError("fleet", 0, str(error)) from None


def profile_of(options: FleetOptions) -> InstanceProfile:
    """Return the profile of every instance. Raises InputError and ProfileError."""
    if options.plan:
        return _read_plan(options.plan).question.profile
    return load_profile(options.profile)


def _check(options: FleetOptions, pools: int) -> None:
    _check_count("--instances", options.instances, pools)
    _check_count("--max-num-seqs", options.max_num_seqs, pools)
    if options.instances and options.gpus:
        raise InputError("--gpus", 0, "not allowed together with --instances; give one of them")


def _check_count(flag: str, given: Sequence[int], wanted: int) -> None:
    if given and (len(given) != wanted or min(given) < 1):
        text = f"{len(given)} given; allowed: {wanted} of at least 1, separated by commas"
        raise InputError(flag, 0, text)


def _size(
    options: FleetOptions, pools: Sequence[Pool], profile: InstanceProfile, traffic: _FleetTraffic
) -> tuple[_PlannedPool, ...]:
    instances, slots = options.instances, options.max_num_seqs
    if not (instances and slots):
        planned = _plan(options, pools, profile, traffic)
        slots = slots or tuple(pool.max_num_seqs for pool in planned.pools)
        instances = instances or _instances(options.gpus, profile, planned)
    return tuple(
        _PlannedPool(pool.name, pool.max_model_len, seqs, pool.limit, count)
        for pool, seqs, count in zip(pools, slots, instances, strict=True)
    )


def _plan(
    options: FleetOptions, pools: Sequence[Pool], profile: InstanceProfile, traffic: _FleetTraffic
) -> Plan:
    """Return the planner's pools, with the given max_num_seqs or those that it chooses."""
    rate_per_s = traffic.rate_per_s
    # A trace whose requests all have the same time has an infinite rate.
    if not math.isfinite(rate_per_s):
        if not options.instances:
            raise InputError(
                "--instances", 0, "needed: all requests arrive at once, without a rate"
            )
        rate_per_s = 1.0  # max_num_seqs follows from the lengths
    question = Question(
        workload=traffic.workload,
        rate_per_s=rate_per_s,
        profile=profile,
        window=pools[-1].max_model_len,
        max_num_batched_tokens=_batched(options, profile),
    )
    limits = tuple(pool.limit for pool in pools[:-1])
    if options.max_num_seqs:
        return Planner(question).of(limits, options.max_num_seqs)
    return Planner(question).at(limits)


def _instances(gpus: int, profile: InstanceProfile, plan: Plan) -> tuple[int, ...]:
    """Return the planner's instances, or the given GPUs divided in proportion to the loads."""
    if not gpus:
        return tuple(max(1, pool.instances) for pool in plan.pools)
    # In instances: each pool's requests by the rate at which one of its instances serves them.
    return share_out(
        gpus // profile.gpus, [pool.share / pool.mu_per_instance for pool in plan.pools]
    )


def share_out(instances: int, loads: Sequence[float]) -> tuple[int, ...]:
    """Divide instances among pools in proportion to their loads, at least one each.

    Raises InputError if there are fewer instances than pools.
    """
    if instances < len(loads):
        text = f"enough for {instances} instances; every pool needs at least one"
        raise InputError("--gpus", 0, text)
    # The largest remainder decides: 10 instances for loads of 1, 2 and 6 are 1.11, 2.22 and 6.67,
    # so 1, 2 and 6, and the third pool gets the tenth. Where pools raised to 1 make too many, the
    # one most above its share loses one.
    shares = [instances * load / sum(loads) for load in loads]
    found = [max(1, int(share)) for share in shares]
    while sum(found) != instances:
        step = 1 if sum(found) < instances else -1
        free = [i for i, count in enumerate(found) if count + step >= 1]
        index = max(free, key=lambda i: step * (shares[i] - found[i]))
        found[index] += step
    return tuple(found)


def _read_plan(file: Path) -> _PlanFile:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_PlanFile)
    except (OSError, msgspec.DecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        text = f"{reason}; allowed: a file written by dualpool plan --json"
        raise InputError(str(file), 0, text) from None


def _spec(pool: _PlannedPool, profile: InstanceProfile, options: FleetOptions) -> PoolSpec:
    # vLLM does not start with fewer batched tokens than sequences.
    batched = max(_batched(options, profile), pool.max_num_seqs)
    engine = profile.engine(pool.max_model_len, pool.max_num_seqs, batched)
    return PoolSpec(
        name=pool.name,
        engine=replace(
            engine,
            enable_prefix_caching=options.prefix_caching,
            long_prefill_token_threshold=options.long_prefill_token_threshold,
        ),
        profile=profile.pace,
        instances=pool.instances,
        threshold=pool.threshold,
        gpus=profile.gpus,
        overhead_s=profile.overhead_s,
        notes=profile.notes(pool.max_num_seqs, batched),
    )


def _batched(options: FleetOptions, profile: InstanceProfile) -> int:
    given = options.max_num_batched_tokens
    return profile.max_num_batched_tokens if given is None else given
