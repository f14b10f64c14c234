"""What a planner is asked, and what the fleet must hold."""

import enum
from dataclasses import dataclass

from extproc.planner.sizing.estimators import CALIBRATED, Estimator
from extproc.planner.traffic.lengths import Workload
from extproc.simulator.engine.profiles import InstanceProfile


class PlanError(Exception):
    """No plan can be made; the text says why and what to change."""


class SlotRule(enum.Enum):
    """How max_num_seqs follows from the KV cache."""

    WINDOW = "window"  # as many as fit at full length: nothing is ever preempted (the papers)
    OCCUPANCY = "occupancy"  # as many as fit at the lengths they have, 99 % of the time


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """What a fleet must hold: 99th percentiles in each pool, and load over capacity."""

    ttft_p99_s: float = 2.0
    tpot_p99_s: float = 0.080
    utilisation: float = 0.85

    def __post_init__(self) -> None:
        """Refuse what nothing can hold. Raises PlanError."""
        if min(self.ttft_p99_s, self.tpot_p99_s) <= 0 or not 0 < self.utilisation < 1:
            raise PlanError("objectives must be above 0, and the utilisation below 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: a traffic, the instances that may serve it, and what they must hold.

    window: max_model_len of the largest pool. max_num_batched_tokens: vLLM's, of every pool.
    max_num_seqs: never more; vLLM's own default is 256 or 1024.
    """

    workload: Workload
    rate_per_s: float
    profile: InstanceProfile
    window: int = 65_536
    objectives: Objectives = Objectives()
    estimator: Estimator = CALIBRATED
    slot_rule: SlotRule = SlotRule.WINDOW
    max_num_seqs: int = 1024
    max_num_batched_tokens: int = 2048
    hours_per_year: float = 8760.0

    def __post_init__(self) -> None:
        """Refuse what has no answer. Raises PlanError."""
        if min(self.rate_per_s, self.hours_per_year) <= 0:
            raise PlanError("the rate and the hours of a year must be above 0")
        if min(self.window, self.max_num_seqs) < 1:
            raise PlanError("the window and max_num_seqs must be at least 1")
        if self.max_num_batched_tokens < 2:
            raise PlanError("max_num_batched_tokens must be at least 2")
