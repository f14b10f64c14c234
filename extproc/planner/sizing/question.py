"""The question to the planner: workload, instances and objectives."""

import enum
from dataclasses import dataclass
from typing import Final

from extproc.config.errors import UserError
from extproc.planner.sizing.estimators import CALIBRATED, EstimatorErrors
from extproc.planner.traffic.lengths import Workload
from extproc.simulator.engine.profiles import InstanceProfile

WINDOW: Final = 65_536
"""max_model_len of the largest pool, by default."""
# vLLM's default for its API server on an A100 and on GPUs below 70 GiB; on larger ones it is 8192
# (engine/arg_utils.py, get_batch_defaults).
MAX_NUM_BATCHED_TOKENS: Final = 2048
MAX_NUM_SEQS: Final = 1024
HOURS_PER_YEAR: Final = 8760.0
MOST_PER_S: Final = 1e6
"""The highest rate that is believed; at 1 request per second and GPU, a million GPUs."""


class PlanError(UserError):
    """No plan can be made; the text says why and what to change."""


class SlotRule(enum.Enum):
    """How max_num_seqs follows from the KV cache."""

    WINDOW = "window"  # as many as fit at full length: the papers' rule, which nobody else has
    OCCUPANCY = "occupancy"  # as many as fit at their actual lengths, 99 % of the time


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """What a fleet must meet: 99th percentiles in each pool, and load over capacity."""

    # Both times are the objectives of arXiv 2604.08075, the cap is that of 2603.16054.
    ttft_p99_s: float = 2.0
    tpot_p99_s: float = 0.080
    utilisation: float = 0.85

    def __post_init__(self) -> None:
        """Validate. Raises PlanError."""
        if min(self.ttft_p99_s, self.tpot_p99_s) <= 0 or not 0 < self.utilisation < 1:
            raise PlanError("objectives must be above 0, and the utilisation below 1, such as 0.85")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A workload, the instances to serve it, and the objectives.

    window: max_model_len of the largest pool. max_num_batched_tokens: vLLM's, for every pool.
    max_num_seqs: upper bound of what the planner chooses. names: those of the pools in
    ascending order, for plans of so many pools; others have names of their sizes. long_objectives:
    of the pools above the smallest; None: the same for all pools.
    """

    workload: Workload
    rate_per_s: float
    profile: InstanceProfile
    window: int = WINDOW
    objectives: Objectives = Objectives()
    estimator: EstimatorErrors = CALIBRATED
    slot_rule: SlotRule = SlotRule.OCCUPANCY
    max_num_seqs: int = MAX_NUM_SEQS
    max_num_batched_tokens: int = MAX_NUM_BATCHED_TOKENS
    hours_per_year: float = HOURS_PER_YEAR
    names: tuple[str, ...] = ()
    long_objectives: Objectives | None = None

    def __post_init__(self) -> None:
        """Validate. Raises PlanError."""
        if min(self.rate_per_s, self.hours_per_year) <= 0:
            raise PlanError("the rate and the hours of a year must be above 0")
        if self.rate_per_s > MOST_PER_S:
            raise PlanError(
                f"{self.rate_per_s:g} requests per second; allowed: up to {MOST_PER_S:g}; see the "
                "unit of --rate, or of the times of the input"
            )
        if min(self.window, self.max_num_seqs) < 1:
            raise PlanError("the window and max_num_seqs must be at least 1")
        # Half of them bounds max_num_seqs, which is at least 1.
        if self.max_num_batched_tokens < 2:
            raise PlanError("max_num_batched_tokens must be at least 2")

    @property
    def default_num_seqs(self) -> int:
        """The max_num_seqs of a server that is started without it."""
        return self.profile.default_num_seqs(self.max_num_batched_tokens)

    def largest_objectives(self, thresholds: tuple[int, ...]) -> Objectives:
        """Return the objectives of the largest pool of a plan with these thresholds."""
        return self.objectives_of(max(thresholds, default=0), self.window)

    def objectives_of(self, above: int, up_to: int) -> Objectives:
        """Return the objectives of the pool between two thresholds."""
        if self.long_objectives is None:
            return self.objectives
        if above:
            return self.long_objectives
        if up_to < self.window:
            return self.objectives
        # The percentile of one pool is over both classes. By formula it gets the easier TTFT, which
        # is too few instances rather than too many; `tails` then counts each class.
        return Objectives(
            ttft_p99_s=max(self.objectives.ttft_p99_s, self.long_objectives.ttft_p99_s),
            tpot_p99_s=min(self.objectives.tpot_p99_s, self.long_objectives.tpot_p99_s),
            utilisation=self.objectives.utilisation,
        )
