"""What one serving process tells the page: its counters since it started, and latest decisions."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.registry import Collector

from extproc.page.counts import read_counts
from extproc.page.decisions import Decisions, Shown

EVERY_S: Final = 2.0
"""How often a process tells."""


@dataclass(frozen=True, slots=True)
class Digest:
    """The counters of a process by key, and its decisions since the digest before."""

    counts: dict[str, float] = field(default_factory=dict)
    latest: list[Shown] = field(default_factory=list)


class Reporter:
    """Makes the digests of a process. The metrics must have few series each."""

    def __init__(self, decisions: Decisions, metrics: Iterable[Collector]) -> None:
        self._decisions, self._metrics = decisions, tuple(metrics)

    def digest(self) -> Digest:
        """Return a digest."""
        counts = read_counts(self._metrics) | self._decisions.counts()
        return Digest(counts, self._decisions.take_latest())
