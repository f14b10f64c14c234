"""Explain whether a split pays, and if not, why."""

import math
from collections.abc import Iterator
from typing import Final

from extproc.planner.sizing.plans import Plan, PoolPlan

_SMALL: Final = 0.05  # a share or saving too small for a second pool


def judge(plan: Plan, repacked: Plan | None) -> str:
    """Return sentences on what a split plan saves over the homogeneous one, and why not more.

    repacked: the homogeneous fleet with max_num_seqs by actual lengths; None if the plan itself is
    sized like that.
    """
    alone = plan.against
    if alone is None:
        return ""
    return " ".join((_sum(plan, alone), *_reasons(plan, alone), *_packing(plan, repacked)))


def _sum(plan: Plan, alone: Plan) -> str:
    if plan.meets and not alone.meets:
        return f"Only the split fleet meets the objectives, with {plan.gpus} GPUs."
    if plan.gpus >= alone.gpus:
        return f"Splitting does not pay: {plan.gpus} GPUs against {alone.gpus}."
    return f"Splitting saves {alone.gpus - plan.gpus} of {alone.gpus} GPUs ({plan.saving:.1%})."


def _reasons(plan: Plan, alone: Plan) -> Iterator[str]:
    if plan.saving < _SMALL:
        yield from _why_not(plan, alone.pools[0])
    if not plan.meets:
        failing = " and ".join(pool.name for pool in plan.pools if not pool.meets)
        yield f"Pool {failing} misses the objectives: no number of GPUs changes that."
    if plan.over_window > 0:
        yield f"{plan.over_window:.3%} of the requests exceed every window and are left out."


def _packing(plan: Plan, repacked: Plan | None) -> Iterator[str]:
    if repacked is None or not repacked.meets or repacked.gpus > plan.gpus * (1 + _SMALL):
        return
    slots = repacked.pools[0].max_num_seqs
    yield (
        f"One pool with max_num_seqs {slots}, which its KV cache holds 99 % of the time at the "
        f"actual lengths, needs {repacked.gpus} GPUs: against it, a split saves no memory that "
        "paging does not save already, and only changes queueing and preemptions."
    )


def _why_not(plan: Plan, alone: PoolPlan) -> Iterator[str]:
    short = plan.pools[0]
    needed = plan.rate_per_s / alone.mu_per_instance
    alone_load = math.ceil(needed)
    if short.max_num_seqs <= alone.max_num_seqs:
        yield (
            f"The short pool runs no more sequences per instance ({short.max_num_seqs}) than one "
            f"pool does ({alone.max_num_seqs}): the KV cache is not the limit."
        )
    elif short.mu_per_instance < alone.mu_per_instance * (1 + _SMALL):
        yield "An instance of the short pool serves hardly more requests per second."
    elif plan.closed_form > (1 - _SMALL) * alone_load:
        yield (
            f"By throughput alone, the pools need {plan.closed_form} instances and one pool "
            f"{alone_load}: the long pool loses what the short pool gains."
        )
    if short.share < _SMALL:
        yield f"Only {short.share:.1%} of the requests fit the short pool."
    # A pool rounds up by half an instance on average: here a quarter of the load, or more.
    if needed < 2 * len(plan.pools):
        yield f"The load needs {needed:.1f} instances: each pool rounds up to whole ones."
