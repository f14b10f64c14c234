"""Steer the risk that one request may carry so that the share of misrouted requests is the target.

The *risk* of a request is the probability that it exceeds the limit. Sending requests short if
their risk is at most one level, the same for all, misroutes the fewest for a given number sent
long. The share of misrouted requests is then the sum of the risks below the level. It is forecast
from how many recent requests had which risk, and corrected by how many of them really exceeded the
limit. Answers of all pools count, since a request that was sent long also shows whether it fits.

For example, of 10,000 requests 100 have a risk of about .02 and 100 one of about .2. A target of
.001 permits ten misroutes, of which `AIM` allows six to be planned. The first hundred cost 2, the
second 20: the level lies between the two risks, and the second hundred are sent long.

Invariant: the level stays in [FLOOR, CEILING], whatever is reported.
"""

import math
from itertools import pairwise
from typing import Final

LEVELS: Final = (0.5, 0.35, 0.25, 0.18, 0.125, 0.09, 0.06, 0.04, 0.025, 0.015, 0.008, 0.004)
"""Risks between the bins, descending: bin 0 has the highest risks, the last bin the lowest."""
CEILING: Final = LEVELS[0]
FLOOR: Final = LEVELS[-1]
MEMORY: Final = 5000.0
AIM: Final = 0.6
"""The share of the target that is aimed at; the rest is for the noise of rare events."""
_BINS: Final = len(LEVELS) + 1
_PRIOR_REQUESTS: Final = 400.0
_PRIOR_SHARE: Final = 0.006  # of requests in each of the bins between the levels
_PRIOR_EVENTS: Final = 4.0
_RISK: Final = tuple(math.sqrt(a * b) for a, b in pairwise(LEVELS))


class Steering:
    """The level for one threshold and one target (a share of all requests).

    With a `parent`, a wider steering, it counts some of the parent's requests as its own, fewer the
    more it has counted.
    """

    def __init__(self, target: float, parent: "Steering | None" = None) -> None:
        self.target = target
        self._parent = parent
        self._growth = 1.0 + 1.0 / MEMORY
        self._weight = 1.0
        self._requests = [0.0] * _BINS
        self._exceeded = [0.0] * _BINS
        self._level = self._steer()
        self._stale = 0

    @property
    def level(self) -> float:
        """The highest risk with which a request is sent short."""
        if self._stale >= 8:
            self._level, self._stale = self._steer(), 0
        return self._level

    def observe(self, risk_bin: int, *, exceeds: bool, weight: float = 1.0) -> None:
        """Count a request of a bin of risk (0 to len(LEVELS)) that did or did not fit the limit."""
        self._requests[risk_bin] += weight * self._weight
        self._exceeded[risk_bin] += weight * self._weight * exceeds
        self._weight *= self._growth
        self._stale += 1
        if self._weight > 1e9:
            self._rescale()

    def forecast(self) -> float:
        """Return the share of requests that the level is expected to misroute."""
        costs, safe, total = self._costs()
        spent = sum(c for risk, c in zip(_RISK, costs, strict=True) if risk <= self.level)
        return (spent + safe) / total

    def _costs(self) -> tuple[list[float], float, float]:
        """Return misroutes: expected in each bin, and of what looked safe; then the requests."""
        seen, exceeded = self.counted()
        density = [n + _PRIOR_REQUESTS * _PRIOR_SHARE for n in seen[1:-1]]
        total = sum(seen) + _PRIOR_REQUESTS
        expected = sum(r * n for r, n in zip(_RISK, seen[1:-1], strict=True))
        happened = sum(exceeded[1:-1])
        correction = (happened + _PRIOR_EVENTS) / (expected + _PRIOR_EVENTS)
        correction = max(0.5, min(4.0, correction))
        costs = [correction * r * n for r, n in zip(_RISK, density, strict=True)]
        return costs, exceeded[-1], total

    def counted(self) -> tuple[list[float], list[float]]:
        """Return the requests and those that exceeded, by bin, with what the parent lends."""
        requests = [n / self._weight for n in self._requests]
        exceeded = [n / self._weight for n in self._exceeded]
        if self._parent is None:
            return requests, exceeded
        wider = self._parent.counted()
        lent = _PRIOR_REQUESTS * _PRIOR_REQUESTS / (_PRIOR_REQUESTS + sum(requests))
        scale = min(1.0, lent / max(sum(wider[0]), 1.0))
        return (
            [n + scale * w for n, w in zip(requests, wider[0], strict=True)],
            [n + scale * w for n, w in zip(exceeded, wider[1], strict=True)],
        )

    def _steer(self) -> float:
        costs, safe, total = self._costs()
        allowed = AIM * self.target * total
        # Requests that exceed although they looked safe cannot be steered: up to half is theirs.
        left = max(allowed - safe, allowed / 2)
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
