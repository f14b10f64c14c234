"""Every metric of the service: its name, its help, its labels and their bound.

`category` is bounded by categories.max, `pool` by the settings, the rest by enumerations.
"""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from extproc.budget.values import Figures, Learnt

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


class Metrics:
    """The metrics that are counted as things happen."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.decisions = Counter(
            "dualpool_decisions",
            "Requests routed, by pool, category, reason and what the estimate rested on.",
            ["pool", "category", "reason", "basis"],
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
            "Requests sent to a pool that could not hold them, by what became of it: retried on "
            "the largest pool, refused, clamped, harmless.",
            ["pool", "kind"],
            registry=registry,
        )
        self.retries = Counter(
            "dualpool_retries",
            "Answers for which Envoy asked a second server, by the pool that was asked first and "
            "why: too long for it (misrouted), failed, or unknown.",
            ["pool", "cause"],
            registry=registry,
        )
        self.usage_asked = Counter(
            "dualpool_usage_asked",
            "Streamed requests that the service asked for usage, since their client did not.",
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

    def __init__(self, learnt: Callable[[], Learnt]) -> None:
        self._learnt = learnt

    def collect(self) -> Iterator[Metric]:
        """Yield a gauge for each figure: of a category, a model, or a limit that budgets have."""
        learnt = self._learnt()
        yield from _gauges("category", learnt.categories)
        yield from _gauges("model", learnt.models)
        yield from _gauges("limit", learnt.limits)


def _gauges(subject: str, rows: Mapping[str, Figures]) -> Iterator[Metric]:
    families: dict[str, GaugeMetricFamily] = {}
    for label, figures in rows.items():
        for name, value in figures.items():
            if not isinstance(value, str):
                help_text = f"What the estimator learnt of a {subject}: its {name}."
                family = families.setdefault(
                    name,
                    GaugeMetricFamily(f"dualpool_{subject}_{name}", help_text, labels=[subject]),
                )
                family.add_metric([label], value)
    yield from families.values()
