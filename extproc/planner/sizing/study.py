"""All that is said about one question: the plans, and how much they depend on."""

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

    plan: the one to buy. by_pools: the best of 1, 2, ... pools. split: the best, or the given, plan
    that splits, which `curve`, `drift` and `errors` are about; `plan` itself where that splits.
    curve: two pools, at each candidate for the threshold. repacked: one pool whose max_num_seqs is
    set by what sequences occupy.
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
    """Plan for 1 to max_pools pools, or for the given thresholds, and see what the plan stands.

    A workload of more than 200,000 rows is condensed first: shares at a threshold are then those of
    one within 1 % of it. Raises PlanError where there is no plan.
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
