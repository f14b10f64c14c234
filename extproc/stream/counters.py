"""Counters that a request may increment at the price of an addition.

The client library's counters take a lock for each increment, and write into a file where several
processes serve. Here the figures are plain numbers, which `publish` hands to the library: when its
metrics are collected, and from time to time where another process reads them.

Invariant: what is published is the figure itself, never a difference, so that it does not matter
which thread publishes, and how often; a series that one removes while another publishes is gone
with the next publication.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Protocol

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric


class _Value(Protocol):
    """The library's value of a series, shared with the processes that read it."""

    def get(self) -> float: ...

    def set(self, value: float) -> None: ...


class _Figure:
    """What a value had before this process counted, and what it was last given."""

    __slots__ = ("_before", "_given", "_value")

    def __init__(self, value: _Value) -> None:
        self._value = value
        # The file of a process that ended may have our number.
        self._before, self._given = value.get(), 0.0

    def set(self, counted: float) -> None:
        if counted != self._given:
            self._given = counted
            self._value.set(self._before + counted)


class TallyCounter(Counter):
    """A counter of events by their labels."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._totals: dict[tuple[str, ...], int] = {}
        self._figures: dict[tuple[str, ...], _Figure] = {}

    def count(self, *values: str, times: int = 1) -> None:
        """Count events with these values of the labels."""
        totals = self._totals
        try:
            totals[values] += times
        except KeyError:
            totals[values] = times

    def publish(self) -> None:
        """Hand the figures to the library."""
        for values, total in list(self._totals.items()):
            figure = self._figures.get(values)
            if figure is None:
                series = self.labels(*values) if values else self
                figure = self._figures[values] = _Figure(series._value)  # noqa: SLF001
            figure.set(total)
        for values in list(self._figures):
            if values not in self._totals:  # removed by another thread in the meantime
                self._drop(values)

    def collect(self) -> Iterable[Metric]:
        """Return the metric."""
        self.publish()
        return super().collect()

    def remove_by_labels(self, labels: dict[str, str]) -> None:
        """Remove the series with these labels."""
        wanted = {self._labelnames.index(name): value for name, value in labels.items()}
        for values in list(self._totals):
            if all(values[place] == value for place, value in wanted.items()):
                del self._totals[values]
                self._drop(values)
        super().remove_by_labels(labels)

    def _drop(self, values: tuple[str, ...]) -> None:
        self._figures.pop(values, None)
        self.remove(*values)


class TallyHistogram(Histogram):
    """A histogram without labels."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._counts = [0] * len(self._upper_bounds)
        self._total = 0.0
        self._figures = [_Figure(bucket) for bucket in self._buckets]
        self._total_figure = _Figure(self._sum)

    def count(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._upper_bounds, value)] += 1
        self._total += value

    def publish(self) -> None:
        """Hand the figures to the library."""
        for figure, count in zip(self._figures, self._counts, strict=True):
            figure.set(count)
        self._total_figure.set(self._total)

    def collect(self) -> Iterable[Metric]:
        """Return the metric."""
        self.publish()
        return super().collect()


class TallyGauge(Gauge):
    """What is there now."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.now = 0

    def publish(self) -> None:
        """Hand the figure to the library."""
        self.set(self.now)

    def collect(self) -> Iterable[Metric]:
        """Return the metric."""
        self.publish()
        return super().collect()
