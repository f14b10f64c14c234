"""What splitting a fleet saves, by the closed form of arXiv 2604.08075: load divided by rate.

It knows no queues and no objectives; `extproc.planner.sizing.search` does.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Requests a second that one instance serves: homogeneous, and in either pool.

    The long pool of a split fleet has requests of its own, longer than those of all (arXiv
    2604.09613 corrects the first paper in this); the first paper takes long = homogeneous.
    """

    homogeneous: float
    short: float
    long: float


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """Instances without a split, and in the two pools of a split fleet."""

    homogeneous: int
    short: int
    long: int

    @property
    def saving(self) -> float:
        """The saved share of the instances; negative where the split costs."""
        return 1 - (self.short + self.long) / self.homogeneous


def split_fleet(rate_per_s: float, alpha: float, rates: Rates) -> ClosedForm:
    """Size a fleet whose short pool takes the share `alpha` of the requests."""
    return ClosedForm(
        homogeneous=math.ceil(rate_per_s / rates.homogeneous),
        short=math.ceil(alpha * rate_per_s / rates.short),
        long=math.ceil((1 - alpha) * rate_per_s / rates.long),
    )


def ideal_saving(alpha: float, rho: float) -> float:
    """Return `alpha (1 - 1 / rho)`: the saving of a fleet so large that nothing is rounded."""
    return alpha * (1 - 1 / rho)
