"""Size one pool: how many instances it needs, and how many sequences each runs.

A pool gets the requests between its two thresholds, plus misrouted ones above the upper threshold
and over-routed ones below the lower one, both nearest to the threshold. A misrouted request counts
in both pools, as if it were served twice, although a refused one costs less.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from extproc.planner.sizing.plans import PoolPlan
from extproc.planner.sizing.pool_model import SHARE, Z99, LoadedPool, PoolModel, Requests
from extproc.planner.sizing.question import Objectives, PlanError, Question, SlotRule

# Ends the doubling in _first where no number of instances meets the objective.
_MOST_INSTANCES: Final = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolLoad:
    """The load of a pool with this max_model_len: its requests, their share of all, their rate.

    sent: the share of all requests that is routed to it, each to one pool.
    """

    question: Question
    objectives: Objectives
    requests: Requests
    window: int
    sent: float
    share: float
    rate_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SizedPool:
    """A pool at its load, and whether it meets the objectives."""

    load: PoolLoad
    pool: LoadedPool
    meets: bool

    @property
    def gpus(self) -> int:
        """GPUs of all instances."""
        return self.pool.instances * self.load.question.profile.gpus


def size_pool(load: PoolLoad) -> SizedPool:
    """Return the smallest pool that meets the objectives; if none does, the utilisation alone.

    Raises PlanError if the KV cache of an instance cannot hold one sequence of the window.
    """
    model = PoolModel(
        requests=load.requests, profile=load.question.profile, slots=choose_slots(load)
    )
    return loaded(load, model.slots, _instances(load, model))


def size_default(load: PoolLoad, max_num_seqs: int) -> SizedPool:
    """Return the smallest pool of this max_num_seqs that meets the objectives.

    The KV cache may hold fewer sequences; vLLM then runs as many as it holds.
    """
    held = max(1, occupancy_slots(load.requests, load.question.profile.kv_tokens))
    slots = min(max_num_seqs, held)
    model = PoolModel(requests=load.requests, profile=load.question.profile, slots=slots)
    least = _instances(load, model)
    # So many sequences may miss the TPOT objective at the load that the other objectives allow.
    if model.tpot_p99_s(0) > load.objectives.tpot_p99_s:
        return loaded(load, slots, least)
    limit = load.objectives.tpot_p99_s
    count = _first(lambda n: loaded(load, slots, n).pool.tpot_p99_s <= limit, least)
    return loaded(load, slots, count)


def loaded(load: PoolLoad, slots: int, instances: int) -> SizedPool:
    """Return a pool of this size under the load, whether or not it meets the objectives."""
    model = PoolModel(requests=load.requests, profile=load.question.profile, slots=slots)
    pool = LoadedPool(model=model, instances=instances, rate_per_s=load.rate_per_s)
    objectives = load.objectives
    return SizedPool(
        load=load,
        pool=pool,
        meets=pool.utilisation <= objectives.utilisation + 1e-9
        and pool.late(objectives.ttft_p99_s) <= 1 - SHARE + 1e-9
        and pool.tpot_p99_s <= objectives.tpot_p99_s,
    )


def describe(sized: SizedPool, name: str) -> PoolPlan:
    """Return the pool as part of a plan."""
    return PoolPlan(
        name=name,
        max_model_len=sized.load.window,
        max_num_seqs=sized.pool.model.slots,
        threshold=sized.load.window,
        sent=sized.load.sent,
        share=sized.load.share,
        mu_per_instance=sized.pool.model.rate_per_s,
        instances=sized.pool.instances,
        gpus=sized.gpus,
        utilisation=sized.pool.utilisation,
        ttft_p99_s=sized.pool.ttft_p99_s,
        tpot_p99_s=sized.pool.tpot_p99_s,
        meets=sized.meets,
    )


def choose_slots(load: PoolLoad) -> int:
    """Return max_num_seqs: as many as the KV cache and the TPOT objective allow, at least 1."""
    question = load.question
    if not question.profile.window_slots(load.window):
        raise PlanError(
            f"the KV cache of {question.profile.name} holds {question.profile.kv_tokens} tokens, "
            f"not one sequence of {load.window}: take a smaller --window"
        )
    # Each decoding sequence takes one of max_num_batched_tokens in every iteration.
    # Leave at least half of an iteration's tokens for prefills.
    most = min(question.max_num_seqs, question.max_num_batched_tokens // 2, _by_memory(load))
    model = PoolModel(requests=load.requests, profile=question.profile, slots=most)
    return _last(lambda n: model.tpot_p99_s(n) <= load.objectives.tpot_p99_s, most)


def _by_memory(load: PoolLoad) -> int:
    profile = load.question.profile
    if load.question.slot_rule is SlotRule.WINDOW:
        return profile.window_slots(load.window)
    return max(1, occupancy_slots(load.requests, profile.kv_tokens))


def occupancy_slots(requests: Requests, kv_tokens: int) -> int:
    """Return how many running sequences fit the KV cache 99 % of the time; 0 if none does.

    The sum of their KV entries is approximately normal: n m + z s sqrt(n) = kv_tokens.
    """
    mean = requests.mean(requests.held) / requests.mean(requests.output)
    square = requests.mean(requests.held_squared) / requests.mean(requests.output)
    spread = Z99 * math.sqrt(max(0.0, square - mean**2))
    # With x = sqrt(n): mean x**2 + spread x - kv_tokens = 0. LMSYS on 1,048,576 tokens: mean 3,134
    # and deviation 6,955 give 252 sequences; by the mean alone it would be 334, too many half of
    # the time.
    root = (math.sqrt(spread**2 + 4 * mean * kv_tokens) - spread) / (2 * mean)
    return int(root**2)


def _instances(load: PoolLoad, model: PoolModel) -> int:
    # The utilisation gives a lower bound; waits may need more.
    least = math.ceil(load.rate_per_s / (model.rate_per_s * load.objectives.utilisation))
    count = max(1, least)
    if model.alone_late(load.objectives.ttft_p99_s) > 1 - SHARE:
        return count  # more instances do not make the prefill itself faster
    limit = load.objectives.ttft_p99_s
    return _first(
        lambda n: (
            LoadedPool(model=model, instances=n, rate_per_s=load.rate_per_s).late(limit)
            <= 1 - SHARE
        ),
        count,
    )


def _first(holds: Callable[[int], bool], least: int) -> int:
    """Return the smallest number from `least` on for which the monotone `holds` is true."""
    high = least
    while not holds(high) and high < _MOST_INSTANCES:
        high *= 2
    low = least if high == least else high // 2 + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high


def _last(holds: Callable[[int], bool], most: int) -> int:
    """Return the largest number up to `most` for which `holds` is true; 1 if there is none."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
