"""Of how many requests whose answers tell little one is observed.

While there are few, all of them are: a small fleet learns as quickly as it can.
"""

import math
from collections.abc import Callable
from typing import Final

ALL_BELOW: Final = 10.0
"""Requests a second, in one process, up to which all are observed."""
MOST: Final = 1000
"""The most requests that one stands for."""
_SECONDS: Final = 10.0
"""The time that the rate is a mean of."""


class Sampling:
    """Counts requests; up to `all_below` a second all are observed.

    `clock` returns seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float], all_below: float = ALL_BELOW) -> None:
        self._clock, self._all_below = clock, all_below
        self._rate = 0.0
        self._at = clock()

    def one_in(self, share: float, processes: int = 1) -> int:
        """Count a request; return of how many one is observed, which then stands for all of them.

        At least `share` of the requests are observed, above 0. `processes` is how many observe at
        the rate of this one; `all_below` is the rate of all of them together.
        """
        now = self._clock()
        self._rate = self._rate * math.exp((self._at - now) / _SECONDS) + 1.0 / _SECONDS
        self._at = now
        enough = processes * self._rate / self._all_below
        if enough <= 1.0:
            return 1
        most = min(MOST, round(1.0 / share))
        return min(most, math.ceil(enough))
