"""Counters by name and labels, to be added up and subtracted.

A key is a metric's name and the values of its labels, with spaces between:
`dualpool_verdicts_total short right`.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Self

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

ANY: Final = ""
"""Stands for every value of a label."""


class Counts:
    """Values by key."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self.values = values

    @classmethod
    def since(cls, before: Mapping[str, float], now: Mapping[str, float]) -> Self:
        """Return by how much values rose."""
        return cls({key: value - before.get(key, 0.0) for key, value in now.items()})

    def sum(self, name: str, *labels: str) -> float:
        """Return the sum over the series of a metric whose first labels are these, or ANY."""
        return sum([self.values[key] for key in matching(self.values, name, *labels)])

    def by_label(self, name: str, *labels: str) -> dict[str, float]:
        """Return the sums by the value of the label after these, without zeros."""
        sums: dict[str, float] = {}
        for key in matching(self.values, name, *labels, ANY):
            if value := self.values[key]:
                label = key.split(" ")[len(labels) + 1]
                sums[label] = sums.get(label, 0.0) + value
        return sums


def matching(keys: Iterable[str], name: str, *labels: str) -> list[str]:
    """Return the keys of a metric whose first labels are these, or ANY."""
    found = [key for key in keys if key.startswith(name)]
    return [key for key in found if _has(key.split(" "), (name, *labels))]


def _has(words: list[str], wanted: tuple[str, ...]) -> bool:
    pairs = zip(words, wanted, strict=False)
    return len(words) >= len(wanted) and all(want in (ANY, word) for word, want in pairs)


def read_counts(metrics: Iterable[Collector]) -> dict[str, float]:
    """Return the values of metrics by key, without zeros. They must have few series each."""
    families: Iterable[Metric] = (family for metric in metrics for family in metric.collect())
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
        if sample.value and not sample.name.endswith("_created")
    }
