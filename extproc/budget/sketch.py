"""Distributions in bounded memory: counts in fixed bins that fade, blended with a parent's.

The rule kept here: a quantile is that of the counts and of `BORROWED` more observations spread
as the parent's, so that a new category answers with what its parent knows.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, Protocol

BORROWED: Final = 30.0
"""Observations that the parent's distribution counts for."""
_RENORMALISE: Final = 1e9
_GOLDEN: Final = 0.6180339887498949


class Shape(Protocol):
    """Where the bins are: values to bins, and bins to values at a fraction of their width."""

    @property
    def size(self) -> int:
        """How many bins there are."""

    def bin(self, value: float) -> int:
        """The bin of a value; values beyond the ends are in the end bins."""

    def value(self, position: float) -> float:
        """The value at a position, in bins from the lowest edge."""


class Scores:
    """Standardised errors, a quarter of a deviation each, from -6 to 12."""

    size: Final = 72

    def bin(self, value: float) -> int:
        """See `Shape`."""
        return int(max(0.0, min(71.0, (value + 6.0) * 4.0)))

    def value(self, position: float) -> float:
        """See `Shape`."""
        return position / 4.0 - 6.0


class Counts:
    """Completion tokens, six bins to every doubling, to 262,144."""

    size: Final = 109

    def bin(self, value: float) -> int:
        """See `Shape`."""
        return min(108, int(6.0 * math.log2(max(value, 1.0)) + 1e-9)) if value >= 1.0 else 0

    def value(self, position: float) -> float:
        """See `Shape`."""
        return float(2.0 ** (position / 6.0))


class Sketch:
    """One distribution. `parent` is the wider one that this one borrows from."""

    def __init__(self, shape: Shape, parent: "Sketch | Sequence[float]", memory: float) -> None:
        self._shape = shape
        self._parent = parent
        self._growth = 1.0 + 1.0 / memory
        self._weight = 1.0
        self._counts = [0.0] * shape.size
        self._total = 0.0
        self._shares: list[float] = []
        self._tails: list[float] = []
        self._fresh_until = 0
        self._golden = 0.0
        self.observations = 0

    def add(self, value: float) -> None:
        """Count a value; all that was counted before weighs a little less."""
        self._counts[self._shape.bin(value)] += self._weight
        self._total += self._weight
        self._weight *= self._growth
        self.observations += 1
        if self._weight > _RENORMALISE:
            self._rescale()

    def add_censored(self, value: float) -> None:
        """Count a value of which only is known that it is larger than this.

        It is taken from the distribution's own part above it (Efron's redistribution to the
        right, one observation at a time), so that a bound that says nothing changes nothing.
        """
        self._golden = (self._golden + _GOLDEN) % 1.0
        self.add(max(value, self.upper(self._golden * self.exceeding(value))))

    def exceeding(self, value: float) -> float:
        """The probability of the bins above a value's."""
        self.shares()
        return self._tails[self._shape.size - 1 - self._shape.bin(value)] - self._share_of(value)

    def shares(self) -> Sequence[float]:
        """The probability of every bin, the parent's part in it; at most 1/32 of it is stale."""
        if not self._shares or self.observations >= self._fresh_until:
            self._refresh()
        return self._shares

    def upper(self, level: float) -> float:
        """The value that a share of `level` exceeds."""
        shares = self.shares()
        # _tails[i] is the probability of the i + 1 highest bins
        index = min(bisect_left(self._tails, level), self._shape.size - 1)
        below = self._tails[index - 1] if index else 0.0
        top = self._shape.size - index
        return self._shape.value(top - min((level - below) / shares[top - 1], 1.0))

    def _share_of(self, value: float) -> float:
        return self._shares[self._shape.bin(value)]

    def _refresh(self) -> None:
        wider = self._parent.shares() if isinstance(self._parent, Sketch) else self._parent
        borrowed = BORROWED * self._weight
        scale = 1.0 / (self._total + borrowed)
        pairs = zip(self._counts, wider, strict=True)
        self._shares = [(n + borrowed * w) * scale for n, w in pairs]
        self._tails = list(accumulate(reversed(self._shares)))
        self._fresh_until = self.observations + min(self.observations // 32, 32) + 1

    def _rescale(self) -> None:
        self._counts = [n / self._weight for n in self._counts]
        self._total /= self._weight
        self._weight = 1.0


def score_prior() -> list[float]:
    """Student's t with four degrees of freedom: errors have heavier tails than the normal."""
    centres = [Scores().value(i + 0.5) for i in range(Scores.size)]
    return _normalised([(1.0 + z * z / 4.0) ** -2.5 for z in centres])


def count_prior(median: float = 200.0, spread: float = 1.3) -> list[float]:
    """A log-normal of completion tokens; the defaults put one answer in a hundred over 4,000."""
    logs = [math.log(Counts().value(i + 0.5)) for i in range(Counts.size)]
    return _normalised([math.exp(-(((x - math.log(median)) / spread) ** 2) / 2) for x in logs])


def _normalised(weights: list[float]) -> list[float]:
    total = sum(weights)
    return [w / total for w in weights]
