"""Gather everything about one question: plans, alternatives and sensitivities."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from extproc.planner.sizing.plans import Plan, count_gpus
from extproc.planner.sizing.question import Question, SlotRule
from extproc.planner.sizing.search import Planner
from extproc.planner.sizing.sensitivity import Change, capacities, drift, misjudged
from extproc.planner.traffic.condensing import lightened

_MANY: Final = 200_000  # rows
_UNCAPPED: Final = 0.99  # utilisation: queues alone decide
_LOOSER: Final = 5.0  # times the objective


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """Answers to one question.

    plan: the recommended one. one_pool: the best that needs no split, which all splits are compared
    with. by_default, by_lengths, by_window: one pool with max_num_seqs as vLLM starts, by the
    actual lengths, and as in the papers. splits: the best of 2, 3, ... pools. split: the plan that
    `curve`, `drift` and `errors` are about: the best of two pools, or the given one; one pool if
    no split was asked for. curve: two pools at each candidate threshold. uncapped: the plan if the
    utilisation had no cap. looser: the plan if P99 TTFT above the smallest pool, or in one pool,
    could be five times the objective. capacity: the plan, the split and `uncapped` on slower and
    faster instances.
    """

    question: Question
    plan: Plan
    one_pool: Plan
    by_default: Plan
    by_lengths: Plan
    by_window: Plan
    splits: tuple[Plan, ...]
    split: Plan
    curve: tuple[Plan, ...]
    drift: tuple[Change, ...]
    errors: tuple[Change, ...]
    uncapped: Plan
    looser: Plan
    capacity: tuple[Change, ...]


def examine(question: Question, max_pools: int = 2, thresholds: tuple[int, ...] = ()) -> Study:
    """Plan for 1 to max_pools pools, or for the given thresholds, with all sensitivities.

    A workload of more than 200,000 rows is condensed first, which moves a threshold by at most
    1 %. Raises PlanError if there is no plan.
    """
    question = replace(question, workload=lightened(question.workload, _MANY))
    planner = Planner(question)
    if thresholds:
        splits: tuple[Plan, ...] = (planner.judged(planner.at(thresholds)),)
        chosen = splits[0]
    else:
        counts = range(2, max_pools + 1)
        splits = tuple(planner.judged(planner.best_of(count)) for count in counts)
        chosen = planner.best(max_pools)
    split = chosen if chosen.thresholds or not splits else splits[0]
    uncapped = _uncapped(question, chosen)
    curve = planner.curve() if split.thresholds else ()
    return Study(
        question=question,
        plan=chosen,
        one_pool=planner.one_pool,
        by_default=planner.as_started,
        by_lengths=planner.packed(SlotRule.OCCUPANCY),
        by_window=planner.packed(SlotRule.WINDOW),
        splits=splits,
        split=split,
        curve=tuple(replace(plan, against=planner.one_pool) for plan in curve),
        drift=drift(question, split),
        errors=misjudged(question, split),
        uncapped=uncapped,
        looser=_looser(question, chosen),
        capacity=_capacity(question, (chosen, split, uncapped)),
    )


def _uncapped(question: Question, plan: Plan) -> Plan:
    """Return the fleet of as many pools that holds the latency objectives at any utilisation."""
    long = question.long_objectives
    free = replace(
        question,
        objectives=replace(question.objectives, utilisation=_UNCAPPED),
        long_objectives=replace(long, utilisation=_UNCAPPED) if long else None,
    )
    return _resized(free, plan)


def _looser(question: Question, plan: Plan) -> Plan:
    """Return the fleet of as many pools whose largest pool has a looser TTFT objective."""
    goals = question.largest_objectives(plan.thresholds)
    if not any(pool.beyond_load(goals.utilisation) for pool in plan.pools):
        return plan
    looser = replace(goals, ttft_p99_s=_LOOSER * goals.ttft_p99_s)
    return _resized(replace(question, long_objectives=looser), plan)


def _resized(question: Question, plan: Plan) -> Plan:
    planner = Planner(question)
    return planner.at(plan.thresholds) if plan.thresholds else planner.one_pool


def _capacity(question: Question, fleets: Sequence[Plan]) -> tuple[Change, ...]:
    plans = {_title(each): each for each in fleets if each.meets}
    return tuple(
        replace(change, name=f"{title}, {change.name}")
        for title, each in plans.items()
        for change in capacities(question, each)
    )


def _title(plan: Plan) -> str:
    where = f"split at {', '.join(map(str, plan.thresholds))}" if plan.thresholds else "one pool"
    return f"{where}, {count_gpus(plan.gpus)}"
