"""Check how a plan holds when the workload drifts, or the estimator or the profile is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from extproc.planner.sizing.estimators import ESTIMATORS, EstimatorErrors
from extproc.planner.sizing.plans import Plan
from extproc.planner.sizing.question import Question
from extproc.planner.sizing.search import Planner
from extproc.planner.traffic.lengths import Workload, weighted
from extproc.simulator.engine.profiles import InstanceProfile

SHIFTS: Final = (-0.10, -0.05, -0.02, -0.01, 0.01, 0.02, 0.05, 0.10)
CAPACITIES: Final = (-0.10, 0.10)
"""What a profile that was measured may be wrong by."""
HIGH_LOAD: Final = 0.8
"""From here on waits grow so fast with the load that a profile's error decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A plan after a change: with its pools unchanged, and resized.

    name: what changed. share: share of requests that is sent to the smallest pool.
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


def capacities(question: Question, plan: Plan) -> tuple[Change, ...]:
    """Return the plan on instances that are 10 % slower and faster.

    () if no pool's load is above 80 %.
    """
    if all(pool.utilisation <= HIGH_LOAD for pool in plan.pools):
        return ()
    return tuple(
        _change(f"{by:+.0%}", replace(question, profile=faster(question.profile, 1 + by)), plan)
        for by in CAPACITIES
    )


def faster(profile: InstanceProfile, times: float) -> InstanceProfile:
    """Return the profile of a server that computes so many times as fast."""
    return replace(profile, pace=replace(profile.pace, speed=profile.pace.speed * times))


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
    held = planner.under(plan)
    resized = planner.at(plan.thresholds) if plan.thresholds else planner.one_pool
    # Sized anew, a pool gets its own max_num_seqs, which may serve a little less: what holds is not
    # bought again.
    if held.meets and (held.gpus < resized.gpus or not resized.meets):
        resized = held
    return Change(name=name, share=held.pools[0].sent, held=held, resized=resized)
