"""Check how a plan holds when the workload drifts or the estimator is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from extproc.planner.sizing.estimators import ESTIMATORS, EstimatorErrors
from extproc.planner.sizing.plans import Plan
from extproc.planner.sizing.question import Question
from extproc.planner.sizing.search import Planner
from extproc.planner.traffic.lengths import Workload, weighted

SHIFTS: Final = (-0.10, -0.05, -0.02, -0.01, 0.01, 0.02, 0.05, 0.10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A plan after a change: with its pools unchanged, and resized.

    name: what changed. share: share of requests that the smallest pool gets.
    """

    name: str
    share: float
    held: Plan
    resized: Plan


def drift(question: Question, plan: Plan, shifts: Sequence[float] = SHIFTS) -> tuple[Change, ...]:
    """Return the plan under each shift of the share of short requests.

    All requests within the first threshold are scaled by the same factor. Shifts that leave no
    request on one side are skipped; a plan of one pool gives ().
    """
    if not plan.thresholds:
        return ()
    threshold = plan.thresholds[0]
    alpha = question.workload.share_within(threshold)
    return tuple(
        _change(
            f"{shift:+.0%}",
            replace(question, workload=shifted(question.workload, threshold, shift)),
            plan,
        )
        for shift in shifts
        if 0 < alpha < 1 and 0 < alpha + shift < 1
    )


def misjudged(
    question: Question, plan: Plan, estimators: Sequence[EstimatorErrors] = ESTIMATORS
) -> tuple[Change, ...]:
    """Return the plan under the errors of each estimator; a plan of one pool gives ()."""
    if not plan.thresholds:
        return ()
    return tuple(_change(e.name, replace(question, estimator=e), plan) for e in estimators)


def shifted(workload: Workload, threshold: int, shift: float) -> Workload:
    """Return the workload with the share within the threshold raised by `shift`."""
    alpha = workload.share_within(threshold)
    # With alpha .80 and shift +.05 all weights within are scaled by 1.0625 and all above by .75;
    # the lengths on either side keep their distribution.
    within, over = (alpha + shift) / alpha, (1 - alpha - shift) / (1 - alpha)
    weights = workload.weights * np.where(workload.total <= threshold, within, over)
    return weighted(workload.name, workload.prompt, workload.output, weights)


def _change(name: str, question: Question, plan: Plan) -> Change:
    planner = Planner(question)
    resized = planner.at(plan.thresholds)
    return Change(
        name=name, share=resized.pools[0].share, held=planner.under(plan), resized=resized
    )
