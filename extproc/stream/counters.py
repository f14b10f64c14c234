"""Counters that a request may increment at the price of an addition.

The client library's counters take a lock for each increment, and write into a file where several
processes serve. Here the figures are plain numbers, which `publish` hands to the library: when its
metrics are collected, and from time to time where another process reads them.

Invariant: what is published is the figure itself, never a difference, so that it does not matter
which thread publishes, and how often; a series that one removes while another publishes is gone
with the next publication.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
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


def _drop_gone(metric: Any, totals: Mapping[Any, object], figures: dict[Any, Any]) -> None:
    """Remove the series that another thread removed while they were handed over."""
    for values in list(figures):
        if values not in totals:
            figures.pop(values, None)
            metric.remove(*values)


def _drop_labelled(
    metric: Any, totals: dict[Any, Any], figures: dict[Any, Any], labels: Mapping[str, str]
) -> None:
    """Remove the series with these labels, counted or not handed over yet."""
    names = metric._labelnames  # noqa: SLF001
    wanted = {names.index(name): value for name, value in labels.items()}
    for values in list(totals):
        if all(values[place] == value for place, value in wanted.items()):
            del totals[values]
            figures.pop(values, None)
            metric.remove(*values)


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
        _drop_gone(self, self._totals, self._figures)

    def collect(self) -> Iterable[Metric]:
        """Return the metric."""
        self.publish()
        return super().collect()

    def remove_by_labels(self, labels: dict[str, str]) -> None:
        """Remove the series with these labels."""
        _drop_labelled(self, self._totals, self._figures, labels)
        super().remove_by_labels(labels)


class _Distribution:
    """How often each bucket was hit, and the sum of all values."""

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0


class TallyHistogram(Histogram):
    """A histogram of values by their labels."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._totals: dict[tuple[str, ...], _Distribution] = {}
        self._figures: dict[tuple[str, ...], list[_Figure]] = {}

    def count(self, value: float, *labels: str, times: int = 1) -> None:
        """Count a value with these labels."""
        found = self._totals.get(labels)
        if found is None:
            found = self._totals[labels] = _Distribution(len(self._upper_bounds))
        found.counts[bisect_left(self._upper_bounds, value)] += times
        found.total += value * times

    def publish(self) -> None:
        """Hand the figures to the library."""
        for labels, total in list(self._totals.items()):
            figures = self._figures.get(labels)
            if figures is None:
                series = self.labels(*labels) if labels else self
                values = (*series._buckets, series._sum)  # noqa: SLF001
                figures = self._figures[labels] = [_Figure(value) for value in values]
            for figure, counted in zip(figures, (*total.counts, total.total), strict=True):
                figure.set(counted)
        _drop_gone(self, self._totals, self._figures)

    def remove_by_labels(self, labels: dict[str, str]) -> None:
        """Remove the series with these labels."""
        _drop_labelled(self, self._totals, self._figures, labels)
        super().remove_by_labels(labels)

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
