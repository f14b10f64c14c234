"""Whether a split pays, and why not where it does not."""

import math
from collections.abc import Iterator
from typing import Final

from extproc.planner.sizing.plans import Plan, PoolPlan

_SMALL: Final = 0.05  # a share, or a difference, that is not worth a second pool


def judge(plan: Plan, repacked: Plan | None) -> str:
    """Say in sentences what a split plan saves against the homogeneous one, and why not more.

    repacked: the homogeneous fleet with max_num_seqs set by what sequences occupy; None where the
    plan itself is made so.
    """
    alone = plan.against
    if alone is None:
        return ""
    return " ".join((_sum(plan, alone), *_reasons(plan, alone), *_packing(plan, repacked)))


def _sum(plan: Plan, alone: Plan) -> str:
    if plan.meets and not alone.meets:
        return f"Only the split fleet holds the objectives, with {plan.gpus} GPUs."
    if plan.gpus >= alone.gpus:
        return f"Splitting does not pay: {plan.gpus} GPUs against {alone.gpus}."
    return f"Splitting saves {alone.gpus - plan.gpus} of {alone.gpus} GPUs ({plan.saving:.1%})."


def _reasons(plan: Plan, alone: Plan) -> Iterator[str]:
    if plan.saving < _SMALL:
        yield from _why_not(plan, alone.pools[0])
    if not plan.meets:
        failing = " and ".join(pool.name for pool in plan.pools if not pool.meets)
        yield f"The objectives do not hold in pool {failing}: no number of GPUs changes that."
    if plan.over_window > 0:
        yield f"{plan.over_window:.3%} of the requests exceed every window and are left out."


def _packing(plan: Plan, repacked: Plan | None) -> Iterator[str]:
    if repacked is None or not repacked.meets or repacked.gpus > plan.gpus * (1 + _SMALL):
        return
    slots = repacked.pools[0].max_num_seqs
    yield (
        f"One pool with max_num_seqs {slots}, which is what its KV cache holds 99 % of the time at "
        f"the lengths requests have, needs {repacked.gpus} GPUs: there a split saves memory that "
        "paging saves already, and what it changes is who waits for whom, and preemptions."
    )


def _why_not(plan: Plan, alone: PoolPlan) -> Iterator[str]:
    short = plan.pools[0]
    needed = plan.rate_per_s / alone.mu_per_instance
    alone_load = math.ceil(needed)
    if short.max_num_seqs <= alone.max_num_seqs:
        yield (
            f"The short pool runs no more sequences an instance ({short.max_num_seqs}) than one "
            f"pool does ({alone.max_num_seqs}): not the KV cache limits them."
        )
    elif short.mu_per_instance < alone.mu_per_instance * (1 + _SMALL):
        yield "An instance of the short pool serves hardly more requests a second."
    elif plan.closed_form > (1 - _SMALL) * alone_load:
        yield (
            f"By throughput alone, the pools take {plan.closed_form} instances and one pool "
            f"{alone_load}: the long requests slow their pool by what the short ones gain."
        )
    if short.share < _SMALL:
        yield f"Only {short.share:.1%} of the requests fit the short pool."
    if needed < 2 * len(plan.pools):
        yield f"The load is that of {needed:.1f} instances: each pool rounds up to whole ones."
