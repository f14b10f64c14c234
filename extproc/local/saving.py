"""What splitting a fleet saves, by the closed form of arXiv 2604.08075.

It knows no queues: it divides the load by what an instance serves. The planner knows more.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A load and what one instance of each configuration serves, in requests a second.

    The defaults are the paper's: Llama-3-70B on an A100 instance, 2.8 of a 65,536-token window
    with 16 sequences; rho: how many times as many an instance of the short pool serves.
    """

    requests_per_s: float = 1000.0
    long_per_s: float = 2.8
    rho: float = 4.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """GPUs without a split, and in the two pools of a split one."""

    alone: int
    short: int
    long: int

    @property
    def saved(self) -> float:
        """The saved share of the GPUs; negative where the split costs."""
        return 1 - (self.short + self.long) / self.alone


def split_fleet(alpha: float, load: Load) -> Fleet:
    """Size a fleet whose short pool takes the share `alpha` of the requests."""
    each = load.requests_per_s / load.long_per_s
    return Fleet(
        alone=math.ceil(each),
        short=math.ceil(alpha * each / load.rho),
        long=math.ceil((1 - alpha) * each),
    )
