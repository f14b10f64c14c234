"""How much risk a single request may carry so that the share of misrouted requests is the target.

For each request the *risk* is the chance that it does not fit the threshold. Sending it short
where its risk is at most a level, the same for all, misroutes the fewest for the requests sent
long. The share of misrouted requests is then the mean risk below the level: it is forecast from
how many requests had which risk lately, and corrected by how many of them truly did not fit.
Answers of both pools teach, since a request that was sent long shows whether it would have fitted.
The rule kept here: the level never leaves [FLOOR, CEILING], whatever is reported.
"""

import math
from itertools import pairwise
from typing import Final

LEVELS: Final = (0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.06, 0.04, 0.025, 0.015, 0.008, 0.004)
"""Risks that part the bins, falling. Bin 0 is riskier than all, the last bin safer than all."""
CEILING: Final = LEVELS[0]
FLOOR: Final = LEVELS[-1]
MEMORY: Final = 5000.0
AIM: Final = 0.6
"""The share of the target that is steered to: the rest is for the noise of a few rare events."""
_BINS: Final = len(LEVELS) + 1
_PRIOR_REQUESTS: Final = 400.0
_PRIOR_SHARE: Final = 0.006  # of requests in each of the bins between the levels
_PRIOR_EVENTS: Final = 4.0
_RISK: Final = tuple(math.sqrt(a * b) for a, b in pairwise(LEVELS))


class Steering:
    """The level for one threshold and one target (a share of all requests)."""

    def __init__(self, target: float) -> None:
        self.target = target
        self._growth = 1.0 + 1.0 / MEMORY
        self._weight = 1.0
        self._requests = [0.0] * _BINS
        self._exceeded = [0.0] * _BINS
        self._level = self._steer()
        self._stale = 0

    @property
    def level(self) -> float:
        """The highest risk at which a request is sent short."""
        if self._stale >= 8:
            self._level, self._stale = self._steer(), 0
        return self._level

    def observe(self, risk_bin: int, *, exceeds: bool) -> None:
        """Count a request of a bin of risk (0 to len(LEVELS)) whose truth is known."""
        self._requests[risk_bin] += self._weight
        self._exceeded[risk_bin] += self._weight * exceeds
        self._weight *= self._growth
        self._stale += 1
        if self._weight > 1e9:
            self._rescale()

    def forecast(self) -> float:
        """The share of requests that the level is expected to misroute."""
        costs, total = self._costs()
        spent = sum(c for risk, c in zip(_RISK, costs, strict=True) if risk <= self.level)
        return (spent + self._exceeded[-1] / self._weight) / total

    def _costs(self) -> tuple[list[float], float]:
        """Expected misroutes of each bin between the levels, and the number of requests."""
        seen = [n / self._weight for n in self._requests]
        density = [n + _PRIOR_REQUESTS * _PRIOR_SHARE for n in seen[1:-1]]
        total = sum(seen) + _PRIOR_REQUESTS
        expected = sum(r * n for r, n in zip(_RISK, seen[1:-1], strict=True))
        happened = sum(self._exceeded[1:-1]) / self._weight
        correction = (happened + _PRIOR_EVENTS) / (expected + _PRIOR_EVENTS)
        correction = max(0.5, min(4.0, correction))
        return [correction * r * n for r, n in zip(_RISK, density, strict=True)], total

    def _steer(self) -> float:
        costs, total = self._costs()
        allowed = AIM * self.target * total
        # What exceeds although it looked safe cannot be steered: it uses up to half the target.
        left = max(allowed - self._exceeded[-1] / self._weight, allowed / 2)
        for index in range(len(costs) - 1, -1, -1):
            if costs[index] > left:
                return _between(LEVELS[index + 1], LEVELS[index], left / costs[index])
            left -= costs[index]
        return CEILING

    def _rescale(self) -> None:
        self._requests = [n / self._weight for n in self._requests]
        self._exceeded = [n / self._weight for n in self._exceeded]
        self._weight = 1.0


def _between(low: float, high: float, share: float) -> float:
    return float(low * (high / low) ** share)
