"""Every metric of the service: its name, its help, its labels and their bound.

`category` is bounded by categories.max, `pool` by the settings, the rest by enumerations.
"""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_ERROR_BUCKETS = (
    -0.5,
    -0.3,
    -0.2,
    -0.1,
    -0.05,
    -0.02,
    0.0,
    0.02,
    0.05,
    0.1,
    0.2,
    0.3,
    0.5,
    1.0,
    2.0,
)
_SECONDS_BUCKETS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2)

Snapshot = Mapping[str, Mapping[str, float]]


class Metrics:
    """The metrics that are counted as things happen."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.decisions = Counter(
            "dualpool_decisions",
            "Requests routed, by pool, category and reason.",
            ["pool", "category", "reason"],
            registry=registry,
        )
        self.unreadable = Counter(
            "dualpool_unreadable_requests",
            "Requests whose body could not be read and that went to the largest pool, by reason.",
            ["reason"],
            registry=registry,
        )
        self.unread = Counter(
            "dualpool_unread_requests",
            "Requests that passed on unread because their path carries no prompt.",
            registry=registry,
        )
        self.decision_seconds = Histogram(
            "dualpool_decision_seconds",
            "Seconds from the last byte of a request's body to the decision.",
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self.budget_error = Histogram(
            "dualpool_budget_relative_error",
            "(Estimated - true) / true prompt tokens, by category.",
            ["category"],
            buckets=_ERROR_BUCKETS,
            registry=registry,
        )
        self.verdicts = Counter(
            "dualpool_verdicts",
            "Answers by pool and by what the decision proved to be: right, misrouted, overrouted.",
            ["pool", "verdict"],
            registry=registry,
        )
        self.misroutes = Counter(
            "dualpool_misroutes",
            "Requests sent to a pool that could not hold them: refused by it or clamped in it.",
            ["pool", "kind"],
            registry=registry,
        )
        self.answers = Counter(
            "dualpool_answers",
            "Answers seen, by what they taught: learnt, or the reason why nothing.",
            ["outcome"],
            registry=registry,
        )
        self.streams = Gauge(
            "dualpool_streams_open",
            "ext_proc streams open now.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.streams_ended = Counter(
            "dualpool_streams",
            "ext_proc streams ended, by outcome: finished, left (by Envoy), protocol, fault.",
            ["outcome"],
            registry=registry,
        )


class LearntCollector(Collector):
    """What was learnt, read when it is asked for."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield one gauge for each figure of the estimator."""
        families: dict[str, GaugeMetricFamily] = {}
        for category, figures in self._snapshot().items():
            for name, value in figures.items():
                family = families.setdefault(name, _family(name))
                family.add_metric([category], value)
        yield from families.values()


def _family(name: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(
        f"dualpool_learnt_{name}", f"The estimator's {name} of a category.", labels=["category"]
    )
