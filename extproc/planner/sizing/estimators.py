"""How often each estimator misroutes and over-routes, which shifts load between pools.

The figures come from `dualpool evaluate` on 14 classes of text and 11 tokenizers
(docs/evaluation.md): shares of all requests, mean over the tokenizers.
"""

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class RoutingError:
    """Shares of all requests that are sent to a too small, and to a needlessly large pool."""

    misrouted: float
    over_routed: float

    def __post_init__(self) -> None:
        """Validate. Raises ValueError."""
        if min(self.misrouted, self.over_routed) < 0 or self.misrouted + self.over_routed >= 1:
            raise ValueError("the shares of misrouted and over-routed requests must lie in [0, 1)")


@dataclass(frozen=True, slots=True)
class EstimatorErrors:
    """Routing errors of an estimator, measured at some thresholds in tokens."""

    name: str
    errors: tuple[tuple[int, RoutingError], ...]

    def at(self, threshold: int) -> RoutingError:
        """Return the error at the measured threshold that is nearest by ratio."""
        # By ratio, since the measured thresholds are a factor of four apart. 4096 is as far from
        # 2048 as from 8192; min then takes the first, the smaller threshold, which has more errors.
        return min(self.errors, key=lambda row: abs(math.log(row[0] / threshold)))[1]


def measured(misrouted: float, over_routed: float) -> EstimatorErrors:
    """Return an estimator with the same given error at every threshold."""
    # The only row is the nearest to every threshold; its 1 has no other meaning.
    return EstimatorErrors("given", ((1, RoutingError(misrouted, over_routed)),))


PERFECT: Final = EstimatorErrors("perfect", ((1, RoutingError(0, 0)),))
CALIBRATED: Final = EstimatorErrors(
    "calibrated",
    (
        (2048, RoutingError(0.00050, 0.0167)),
        (8192, RoutingError(0.00023, 0.0024)),
        (32768, RoutingError(0.00014, 0.0009)),
    ),
)
PAPER: Final = EstimatorErrors(
    "paper",
    (
        (2048, RoutingError(0.00640, 0.1178)),
        (8192, RoutingError(0.00297, 0.0519)),
        (32768, RoutingError(0.00081, 0.0190)),
    ),
)
STATIC: Final = EstimatorErrors(
    "static 4.0",
    (
        (2048, RoutingError(0.07061, 0.0277)),
        (8192, RoutingError(0.03168, 0.0092)),
        (32768, RoutingError(0.00780, 0.0025)),
    ),
)
ESTIMATORS: Final = (PERFECT, CALIBRATED, PAPER, STATIC)
