"""How often estimators misroute and over-route: what an estimate's error does to the pools' loads.

The figures are those of `dualpool evaluate` on 14 classes of text and 11 tokenizers (README, "How
good it is"), shares of all requests, the mean over the tokenizers.
"""

import math
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class RoutingError:
    """Shares of all requests: sent to a pool that they exceed, and to one larger than needed."""

    misrouted: float
    over_routed: float

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        if min(self.misrouted, self.over_routed) < 0 or self.misrouted + self.over_routed >= 1:
            raise ValueError("the shares of misrouted and over-routed requests lie in [0, 1)")


@dataclass(frozen=True, slots=True)
class Estimator:
    """An estimator and its errors, measured at some thresholds in tokens."""

    name: str
    errors: tuple[tuple[int, RoutingError], ...]

    def at(self, threshold: int) -> RoutingError:
        """Return the error at the measured threshold that is nearest by ratio."""
        return min(self.errors, key=lambda row: abs(math.log(row[0] / threshold)))[1]


def measured(misrouted: float, over_routed: float) -> Estimator:
    """Return an estimator of the user's own, with the same error at every threshold."""
    return Estimator("given", ((1, RoutingError(misrouted, over_routed)),))


PERFECT: Final = Estimator("perfect", ((1, RoutingError(0, 0)),))
CALIBRATED: Final = Estimator(
    "calibrated",
    (
        (2048, RoutingError(0.00050, 0.0167)),
        (8192, RoutingError(0.00023, 0.0024)),
        (32768, RoutingError(0.00014, 0.0009)),
    ),
)
PAPER: Final = Estimator(
    "paper",
    (
        (2048, RoutingError(0.00640, 0.1178)),
        (8192, RoutingError(0.00297, 0.0519)),
        (32768, RoutingError(0.00081, 0.0190)),
    ),
)
STATIC: Final = Estimator(
    "static 4.0",
    (
        (2048, RoutingError(0.07061, 0.0277)),
        (8192, RoutingError(0.03168, 0.0092)),
        (32768, RoutingError(0.00780, 0.0025)),
    ),
)
ESTIMATORS: Final = (PERFECT, CALIBRATED, PAPER, STATIC)
