"""Counters over the last hour, one point every ten seconds, in bounded memory."""

from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from extproc.page.counts import matching

STEP_S: Final = 10.0
"""Seconds between two points."""

POINTS: Final = 361
"""Points kept: an hour, and the one that it begins with."""

MOST_KEYS: Final = 2048
"""Counters kept; further ones are ignored. 16 pools have some 300."""


@dataclass(frozen=True, slots=True)
class _Point:
    at: float
    values: "array[float]"


class History:
    """The values of counters at past times; all were 0 at the start."""

    def __init__(self, start: float) -> None:
        """`start` in seconds of any clock that `add` uses too."""
        self._places: dict[str, int] = {}
        self._points: deque[_Point] = deque([_Point(start, array("d"))], maxlen=POINTS)

    @property
    def times(self) -> list[float]:
        """When each point was added, oldest first."""
        return [point.at for point in self._points]

    @property
    def newest(self) -> float:
        """When the newest point was added."""
        return self._points[-1].at

    def add(self, at: float, counts: Mapping[str, float]) -> None:
        """Add a point."""
        for key in counts:
            if key not in self._places and len(self._places) < MOST_KEYS:
                self._places[key] = len(self._places)
        self._points.append(_Point(at, array("d", [counts.get(key, 0.0) for key in self._places])))

    def before(self, at: float) -> dict[str, float]:
        """Return the values of the newest point that is not after `at`, else of the oldest."""
        found = next((each for each in reversed(self._points) if each.at <= at), self._points[0])
        return dict(zip(self._places, found.values, strict=False))

    def sums(self, name: str, *labels: str) -> list[float]:
        """Return at each point the sum over a metric's series, see Counts.sum."""
        places = [self._places[key] for key in matching(self._places, name, *labels)]
        return [
            sum([point.values[place] for place in places if place < len(point.values)])
            for point in self._points
        ]
