"""What splitting a fleet saves, by the closed form of arXiv 2604.08075: load divided by rate.

It ignores queues and objectives; `extproc.planner.sizing.search` accounts for both.
"""

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Requests per second that one instance serves: in a homogeneous fleet and in either pool.

    The requests of the long pool are longer than the mean (arXiv 2604.09613 corrects the first
    paper in this); the first paper takes long = homogeneous.
    """

    homogeneous: float
    short: float
    long: float


PUBLISHED_RATES: Final = Rates(homogeneous=2.8, short=11.2, long=2.8)
"""arXiv 2604.08075, Table 1: Llama-3-70B on A100s, windows of 8,192 and 65,536 tokens."""


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """Instances of a homogeneous fleet, and of the two pools of a split fleet."""

    homogeneous: int
    short: int
    long: int

    @property
    def saving(self) -> float:
        """The saved share of the instances; negative if the split costs instances."""
        return 1 - (self.short + self.long) / self.homogeneous


def split_fleet(rate_per_s: float, alpha: float, rates: Rates) -> ClosedForm:
    """Size a fleet whose short pool gets the share `alpha` of the requests.

    >>> split_fleet(1000, 0.8, Rates(homogeneous=2.8, short=11.2, long=2.8))
    ClosedForm(homogeneous=358, short=72, long=72)
    """
    # Each pool rounds up by itself, so a split of a small fleet can cost instances: at 0.5
    # requests/s and alpha .5, rates of 1, 2 and 1 give 1 instance alone and 1 + 1 split.
    return ClosedForm(
        homogeneous=math.ceil(rate_per_s / rates.homogeneous),
        short=math.ceil(alpha * rate_per_s / rates.short),
        long=math.ceil((1 - alpha) * rate_per_s / rates.long),
    )


def ideal_saving(alpha: float, rho: float) -> float:
    """Return `alpha (1 - 1 / rho)`: the saving of a fleet too large for rounding to matter."""
    # With rho = short / homogeneous rate and long = homogeneous, alpha / rho of the instances
    # remain for the short pool and 1 - alpha for the long one: .20 + .20 at alpha .80 and rho 4.
    return alpha * (1 - 1 / rho)
