"""Say whether to split, against the best that one pool can do, and why.

Invariant: the first sentence says what to do; no plan that misses its objectives saves anything.
"""

import math
from collections.abc import Iterator
from typing import Final

from extproc.planner.sizing.plans import Plan, PoolPlan, count_gpus
from extproc.planner.sizing.question import Objectives, Question

_SMALL: Final = 0.05  # a share or saving too small for a second pool


def judge(plan: Plan, question: Question, as_started: Plan) -> str:
    """Return sentences on what a split plan is worth against `plan.against`; "" for one pool.

    question: the one that both answer. as_started: one pool of servers without max_num_seqs.
    """
    one = plan.against
    if one is None:
        return ""
    by_default = one.pools == as_started.pools
    seqs = sequences(one, question, by_default=by_default)
    needed = f"max_num_seqs {seqs} will do" if by_default else f"set --max-num-seqs {seqs}"
    advice = _advice(plan, one, f"one pool with max_num_seqs {seqs}", needed)
    return " ".join((advice, *_reasons(plan, one, question), *_outlook(plan, one)))


def pays(plan: Plan, one: Plan) -> bool:
    """Return whether the split meets what one pool does not, or meets it with fewer GPUs."""
    return plan.meets and (not one.meets or plan.gpus < one.gpus)


def sequences(one: Plan, question: Question, *, by_default: bool) -> str:
    """Return the max_num_seqs of a plan of one pool; by_default: nobody has to set it."""
    seqs, default = one.pools[0].max_num_seqs, question.default_num_seqs
    if not by_default:
        measured = question.profile.measured_sequences
        beyond = f" (extrapolated: {measured} were measured)" if 0 < measured < seqs else ""
        return f"{seqs}{beyond}"
    held = f"; the KV cache holds {seqs}" if seqs < default else ""
    return f"{default} ({question.profile.whose_default}{held})"


def _advice(plan: Plan, one: Plan, alone: str, needed: str) -> str:
    if not plan.meets and not one.meets:
        return (
            f"No fleet holds the objectives, split ({plan.gpus} GPUs) or not "
            f"({count_gpus(one.gpus)}): no number of GPUs changes that."
        )
    if not pays(plan, one):
        split = f"the best split takes {plan.gpus}" if plan.meets else "no split holds them"
        return (
            f"Do not split: {needed}. One pool holds the objectives with {count_gpus(one.gpus)}"
            f"{one.yearly}; {split}."
        )
    where = ", ".join(map(str, plan.thresholds))
    if not one.meets:
        return (
            f"Split at {where}: only the split fleet holds the objectives, with {plan.gpus} GPUs"
            f"{plan.yearly}; {alone} does not."
        )
    return (
        f"Split at {where}: {plan.gpus} GPUs{plan.yearly}, where {alone} takes "
        f"{one.gpus}: {1 - plan.gpus / one.gpus:.1%} less."
    )


def _reasons(plan: Plan, one: Plan, question: Question) -> Iterator[str]:
    if plan.meets and plan.gpus > (1 - _SMALL) * one.gpus:
        yield from _why_not(plan, one.pools[0], question.objectives.utilisation)
    for above, pool in zip((0, *plan.thresholds), plan.pools, strict=True):
        if not pool.meets:
            missed = ", ".join(_missed(pool, question.objectives_of(above, pool.threshold)))
            yield f"Pool {pool.name} misses the objectives at any size: {missed}."
    if plan.over_window > 0:
        yield (
            f"{plan.over_window:.3%} of the requests exceed every window and are left out: a "
            f"largest window of {question.workload.total.max():.0f} tokens holds all (--window)."
        )


def _missed(pool: PoolPlan, goals: Objectives) -> Iterator[str]:
    for name, value, goal in (
        ("P99 TTFT", pool.ttft_p99_s, goals.ttft_p99_s),
        ("P99 TPOT", pool.tpot_p99_s, goals.tpot_p99_s),
    ):
        if value > goal:
            yield f"{name} {_seconds(value)} against {_seconds(goal)}"
    if pool.utilisation > goals.utilisation:
        yield f"load {pool.utilisation:.1%} against {goals.utilisation:.1%}"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 100 else f"{value:.0f} s"


def _outlook(plan: Plan, one: Plan) -> Iterator[str]:
    """Say what would make a split pay where it does not, or a fleet hold where none does."""
    if not plan.meets and not one.meets:
        yield (
            "Ways out: other objectives, for long requests alone by --slo-long-ttft-ms and "
            "--slo-long-tpot-ms; or --tails, which judges each class of requests and tries "
            "--long-prefill-token-threshold."
        )
    if one.meets and not pays(plan, one):
        yield (
            "What would change that: cheaper GPUs for the short requests (--pool), or an objective "
            "for each class of requests (--tails)."
        )


def _why_not(plan: Plan, alone: PoolPlan, cap: float) -> Iterator[str]:
    short = plan.pools[0]
    hurried = [pool for pool in plan.pools if pool.beyond_load(cap)]
    for pool in hurried:
        yield (
            f"The P99 TTFT objective decides the size of pool {pool.name}: {pool.instances} "
            f"instances, loaded {pool.utilisation:.0%}."
        )
    needed = plan.rate_per_s / alone.mu_per_instance
    alone_load = math.ceil(needed)
    if short.max_num_seqs <= alone.max_num_seqs:
        yield (
            f"The short pool runs no more sequences per instance ({short.max_num_seqs}) than one "
            f"pool does ({alone.max_num_seqs}): the KV cache is not the limit."
        )
    elif short.mu_per_instance < alone.mu_per_instance * (1 + _SMALL):
        yield "An instance of the short pool serves hardly more requests per second."
    elif not hurried and plan.closed_form > (1 - _SMALL) * alone_load:
        yield (
            f"By throughput alone, the pools need {plan.closed_form} instances and one pool "
            f"{alone_load}: the long pool loses what the short pool gains."
        )
    if short.sent < _SMALL:
        yield f"Only {short.sent:.1%} of the requests fit the short pool."
    # A pool rounds up by half an instance on average: here a quarter of the load, or more.
    if not hurried and needed < 2 * len(plan.pools):
        shown = f"{needed:.1f}" if needed >= 0.1 else "less than 0.1"
        yield f"The load needs {shown} instances: each pool rounds up to whole ones."
