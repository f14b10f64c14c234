"""Distributions in bounded memory: fading counts in fixed bins, blended with a parent's.

Invariants: a quantile is that of the counts and of `BORROWED` more observations distributed like
the parent's, so that a new category starts from what its parent has learnt. A value that stands for
several, since only one in so many is seen, counts as that many. To read a distribution changes
nothing, so that processes which learn the same in the same order hold the same.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, Protocol

import msgspec

from extproc.budget.saved import Amount, Count, Growing, Share, doubles, require_one

BORROWED: Final = 30.0
"""The weight of the parent's distribution, in observations."""
_RENORMALISE: Final = 1e9
_MOST_UPPERS: Final = 16
_GOLDEN: Final = 0.6180339887498949
_MOST_WEIGHT: Final = 1e9
"""More than the weight of any one value."""


class Shape(Protocol):
    """The bins: which bin a value falls into, and which value a position among the bins has."""

    @property
    def size(self) -> int:
        """The number of bins."""

    def bin(self, value: float) -> int:
        """Return the bin of a value; the end bins also hold all values beyond them."""

    def value(self, position: float) -> float:
        """Return the value at a position, in bins from the lowest edge."""


class Scores:
    """Standardised errors, a quarter of a deviation each, from -6 to 12."""

    size: Final = 72

    def bin(self, value: float) -> int:
        """See `Shape`."""
        return int(max(0.0, min(self.size - 1.0, (value + 6.0) * 4.0)))

    def value(self, position: float) -> float:
        """See `Shape`."""
        return position / 4.0 - 6.0


class Counts:
    """Completion tokens, six bins to every doubling, to 262,144."""

    size: Final = 109

    def bin(self, value: float) -> int:
        """See `Shape`."""
        return min(self.size - 1, int(6.0 * math.log2(max(1.0, value)) + 1e-9))

    def value(self, position: float) -> float:
        """See `Shape`."""
        return float(2.0 ** (position / 6.0))


class SavedSketch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A distribution in a snapshot."""

    counts: bytes
    shares: bytes
    weight: Growing
    total: Amount
    squares: Amount
    golden: Share
    fresh_until: Count
    observations: Count


class Sketch:
    """One distribution; `parent` is a wider one, or fixed shares of the bins.

    With `outgrows` it borrows less and less once it has more than BORROWED observations of its own.
    """

    def __init__(
        self,
        shape: Shape,
        parent: "Sketch | Sequence[float]",
        memory: float,
        *,
        outgrows: bool = False,
    ) -> None:
        self._shape = shape
        self._parent = parent
        self._outgrows = outgrows
        self._growth = 1.0 + 1.0 / memory
        self._weight = 1.0
        # Arrays: lists of floats would take four times the memory.
        self._counts = array("d", bytes(8 * shape.size))
        self._total = 0.0
        self._squares = 0.0
        # Until it has a value of its own it is its parent.
        self._as = parent if isinstance(parent, Sketch) else None
        self._show([] if isinstance(parent, Sketch) else parent)
        self._fresh_until = 0
        self._golden = 0.0
        self.observations = 0

    def add(self, value: float, weight: float = 1.0) -> None:
        """Count a value as `weight` observations; earlier values lose a little weight."""
        self._counts[self._shape.bin(value)] += weight * self._weight
        self._total += weight * self._weight
        self._squares += weight * weight * self._weight
        self._weight *= self._growth
        self.observations += 1
        if self._weight > _RENORMALISE:
            self._rescale()
        if self.observations >= self._fresh_until:
            self._refresh()

    def add_censored(self, value: float, weight: float = 1.0) -> None:
        """Count a value that is known to be larger than this.

        It is placed by the distribution's own part above the bound: Efron's redistribution to the
        right, one observation at a time. A bound that says nothing thus changes nothing.
        """
        self._golden = (self._golden + _GOLDEN) % 1.0
        self.add(max(value, self.upper(self._golden * self.exceeding(value))), weight)

    def exceeding(self, value: float) -> float:
        """Return the probability of the bins above that of a value."""
        if self._as:
            return self._as.exceeding(value)
        return self._tails[self._shape.size - 1 - self._shape.bin(value)] - self._share_of(value)

    def shares(self) -> Sequence[float]:
        """Return the probability of every bin, with the parent's part; at most 1/32 is stale."""
        return self._as.shares() if self._as else self._shares

    def upper(self, level: float) -> float:
        """Return the value that a share of `level` exceeds."""
        if self._as:
            return self._as.upper(level)
        if (known := self._uppers.get(level)) is not None:
            return known
        if len(self._uppers) >= _MOST_UPPERS:
            self._uppers.clear()
        self._uppers[level] = found = self._find_upper(level, self._shares)
        return found

    def save(self) -> SavedSketch:
        """Return what is kept in a snapshot."""
        return SavedSketch(
            self._counts.tobytes(),
            self._shares.tobytes(),
            self._weight,
            self._total,
            self._squares,
            self._golden,
            self._fresh_until,
            self.observations,
        )

    def load(self, saved: SavedSketch) -> None:
        """Continue as the distribution that was saved. Raises ValueError if there was none such."""
        if not saved.observations:
            return
        self._counts = doubles(saved.counts, self._shape.size)
        self._weight, self._total, self._squares = saved.weight, saved.total, saved.squares
        if not 0.0 < saved.squares <= _MOST_WEIGHT * saved.total:
            raise ValueError("counts of no values")
        self._golden, self.observations = saved.golden, saved.observations
        self._fresh_until = min(saved.fresh_until, saved.observations + 33)
        shares = doubles(saved.shares, self._shape.size, most=1.0)
        require_one(sum(shares))
        self._show(shares)

    def _find_upper(self, level: float, shares: Sequence[float]) -> float:
        # _tails[i] is the probability of the i + 1 highest bins
        index = min(bisect_left(self._tails, level), self._shape.size - 1)
        below = self._tails[index - 1] if index else 0.0
        top = self._shape.size - index
        return self._shape.value(top - min((level - below) / shares[top - 1], 1.0))

    def _share_of(self, value: float) -> float:
        return self._shares[self._shape.bin(value)]

    def _refresh(self) -> None:
        wider = self._parent.shares() if isinstance(self._parent, Sketch) else self._parent
        # Of values that count as several, fewer were seen: the parent's part grows likewise.
        usual = max(1.0, self._squares / self._total) if self._total else 1.0
        borrowed = BORROWED * self._weight * usual
        if self._outgrows and self._total > borrowed:
            borrowed *= (borrowed / self._total) ** 2
        scale = 1.0 / (self._total + borrowed)
        pairs = zip(self._counts, wider, strict=True)
        self._show([(n + borrowed * w) * scale for n, w in pairs])
        self._fresh_until = self.observations + min(self.observations // 32, 32) + 1

    def _show(self, shares: Sequence[float]) -> None:
        self._as = self._as if not shares else None
        self._shares = array("d", shares)
        self._tails = array("d", accumulate(reversed(self._shares)))
        self._uppers: dict[float, float] = {}  # what `upper` has found in these shares

    def _rescale(self) -> None:
        self._counts = array("d", [n / self._weight for n in self._counts])
        self._total /= self._weight
        self._squares /= self._weight
        self._weight = 1.0


def score_prior() -> list[float]:
    """Return Student's t with four degrees of freedom: errors have heavier tails than a normal."""
    centres = [Scores().value(i + 0.5) for i in range(Scores.size)]
    return _normalised([(1.0 + z * z / 4.0) ** -2.5 for z in centres])


def count_prior(median: float = 200.0, spread: float = 1.3) -> list[float]:
    """Return a log-normal of completion tokens; by default 1 % of answers exceed 4,000."""
    logs = [math.log(Counts().value(i + 0.5)) for i in range(Counts.size)]
    return _normalised([math.exp(-(((x - math.log(median)) / spread) ** 2) / 2) for x in logs])


def _normalised(weights: list[float]) -> list[float]:
    total = sum(weights)
    return [w / total for w in weights]
