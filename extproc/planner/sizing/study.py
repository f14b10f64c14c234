"""Gather everything about one question: plans, alternatives and sensitivities."""

from dataclasses import dataclass, replace
from typing import Final

from extproc.planner.sizing.plans import Plan
from extproc.planner.sizing.question import Question
from extproc.planner.sizing.search import Planner
from extproc.planner.sizing.sensitivity import Change, drift, misjudged
from extproc.planner.traffic.condensing import lightened

_MANY: Final = 200_000  # rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """Answers to one question.

    plan: the recommended one. by_pools: the best of 1, 2, ... pools. split: the plan that `curve`,
    `drift` and `errors` are about: the best split plan, or the given one. curve: two pools at each
    candidate threshold. repacked: one pool whose max_num_seqs follows from the actual lengths.
    """

    question: Question
    plan: Plan
    by_pools: tuple[Plan, ...]
    split: Plan
    curve: tuple[Plan, ...]
    drift: tuple[Change, ...]
    errors: tuple[Change, ...]
    repacked: Plan


def examine(question: Question, max_pools: int = 2, thresholds: tuple[int, ...] = ()) -> Study:
    """Plan for 1 to max_pools pools, or for the given thresholds, with all sensitivities.

    A workload of more than 200,000 rows is condensed first, which moves a threshold by at most
    1 %. Raises PlanError if there is no plan.
    """
    question = replace(question, workload=lightened(question.workload, _MANY))
    planner = Planner(question)
    if thresholds:
        by_pools: tuple[Plan, ...] = (planner.homogeneous(), planner.at(thresholds))
        chosen = planner.judged(by_pools[1])
    else:
        by_pools = tuple(planner.best_of(count) for count in range(1, max_pools + 1))
        chosen = planner.best(max_pools)
    split = chosen if chosen.thresholds or len(by_pools) == 1 else by_pools[1]
    return Study(
        question=question,
        plan=chosen,
        by_pools=by_pools,
        split=split,
        curve=planner.curve() if split.thresholds else (),
        drift=drift(question, split),
        errors=misjudged(question, split),
        repacked=planner.repacked,
    )
