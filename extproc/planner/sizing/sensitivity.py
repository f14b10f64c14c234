"""What becomes of a plan when the traffic drifts, or the estimator errs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from extproc.planner.sizing.estimators import ESTIMATORS, Estimator
from extproc.planner.sizing.plans import Plan
from extproc.planner.sizing.question import Question
from extproc.planner.sizing.search import Planner
from extproc.planner.traffic.lengths import Workload, weighted

SHIFTS: Final = (-0.10, -0.05, -0.02, -0.01, 0.01, 0.02, 0.05, 0.10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A plan under a changed traffic: as it was bought, and as it would be sized anew.

    name: what has changed. share: of the requests that the smallest pool is sent.
    """

    name: str
    share: float
    held: Plan
    resized: Plan


def drift(question: Question, plan: Plan, shifts: Sequence[float] = SHIFTS) -> tuple[Change, ...]:
    """Return what happens when the share of short requests changes by each of the shifts.

    All requests within the first threshold become more, or fewer, in the same proportion. Shifts
    that leave no request on one side are left out; a plan of one pool has no share to shift.
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
    question: Question, plan: Plan, estimators: Sequence[Estimator] = ESTIMATORS
) -> tuple[Change, ...]:
    """Return what happens to a split plan with each of the estimators."""
    if not plan.thresholds:
        return ()
    return tuple(_change(e.name, replace(question, estimator=e), plan) for e in estimators)


def shifted(workload: Workload, threshold: int, shift: float) -> Workload:
    """Return the workload with `shift` more of its requests within the threshold."""
    alpha = workload.share_within(threshold)
    within, over = (alpha + shift) / alpha, (1 - alpha - shift) / (1 - alpha)
    weights = workload.weights * np.where(workload.total <= threshold, within, over)
    return weighted(workload.name, workload.prompt, workload.output, weights)


def _change(name: str, question: Question, plan: Plan) -> Change:
    planner = Planner(question)
    resized = planner.at(plan.thresholds)
    return Change(
        name=name, share=resized.pools[0].share, held=planner.under(plan), resized=resized
    )
