"""Every metric of the service: its name, help and labels.

Invariant: labels are bounded, `category` by categories.max (five times that over the life of
several workers, whose files keep replaced labels), `pool` by the settings, all others by
enumerations.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from extproc.budget.category import label
from extproc.budget.values import Figures, Learnt
from extproc.routing.load.pool_load import PoolLoad, State
from extproc.stream.counters import TallyCounter, TallyGauge, TallyHistogram

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
_TENANT_FIGURES = {
    "kept": "Tenants that are kept apart",
    "evicted": "Tenants that the estimator forgot to keep others apart",
    "own_weights": "Token weights that one tenant has for itself",
}
# Each observed answer counts as those that it stands for.
_ESTIMATED = " Estimated for all answers from those that are observed."
_SECONDS_BUCKETS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2)


class Metrics:
    """The metrics that streams update."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._add_decisions(registry)
        self._add_answers(registry)
        self._add_streams(registry)

    def publish(self) -> None:
        """Hand all figures to the library, for another process that reads them."""
        for metric in vars(self).values():
            metric.publish()

    def forget_category(self, name: str) -> None:
        """Remove the series of a label that was replaced; only where processes share no files."""
        for metric in (self.decisions, self.budget_error):
            metric.remove_by_labels({"category": name})

    def _add_decisions(self, registry: CollectorRegistry) -> None:
        self.decisions = TallyCounter(
            "dualpool_decisions",
            "Requests routed, by pool, category, reason and what the estimate is based on.",
            ["pool", "category", "reason", "basis"],
            registry=registry,
        )
        self.observed = TallyCounter(
            "dualpool_observed",
            "Requests routed whose answers are observed: all that tell much, a sample of others.",
            registry=registry,
        )
        self.sequences = TallyCounter(
            "dualpool_sequences",
            "Sequences that the routed requests ask for, by pool: prompts times n.",
            ["pool"],
            registry=registry,
        )
        self.unreadable = TallyCounter(
            "dualpool_unreadable_requests",
            "Requests sent to the largest pool because their body could not be read, by reason.",
            ["reason"],
            registry=registry,
        )
        self.unread = TallyCounter(
            "dualpool_unread_requests",
            "Requests passed on unread because their path carries no prompt.",
            registry=registry,
        )
        self.decision_seconds = TallyHistogram(
            "dualpool_decision_seconds",
            "Seconds from the last byte of a request's body to the decision.",
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        self.usage_asked = TallyCounter(
            "dualpool_usage_asked",
            "Streamed requests to which the service added stream_options.include_usage.",
            registry=registry,
        )

    def _add_answers(self, registry: CollectorRegistry) -> None:
        self.budget_error = TallyHistogram(
            "dualpool_budget_relative_error",
            "(Estimated - true) / true prompt tokens, by category." + _ESTIMATED,
            ["category"],
            buckets=_ERROR_BUCKETS,
            registry=registry,
        )
        self.verdicts = TallyCounter(
            "dualpool_verdicts",
            "Decisions judged by the answer's tokens, by pool and verdict: right, misrouted "
            "(too long for the pool), over_routed (a smaller pool would have held it)."
            + _ESTIMATED,
            ["pool", "verdict"],
            registry=registry,
        )
        self.misroutes = TallyCounter(
            "dualpool_misroutes",
            "Requests sent to a pool that could not hold them, by outcome: retried on the largest "
            "pool, refused, clamped (the answer was cut), harmless." + _ESTIMATED,
            ["pool", "kind"],
            registry=registry,
        )
        self.retries = TallyCounter(
            "dualpool_retries",
            "Answers that Envoy got from a second server, by the first server's pool and cause: "
            "misrouted (too long for that pool), failed, unknown." + _ESTIMATED,
            ["pool", "cause"],
            registry=registry,
        )
        self.answers = TallyCounter(
            "dualpool_answers",
            "Answers, by outcome: learnt, or the reason why nothing was learnt." + _ESTIMATED,
            ["outcome"],
            registry=registry,
        )

    def _add_streams(self, registry: CollectorRegistry) -> None:
        self.streams = TallyGauge(
            "dualpool_streams_open",
            "Open ext_proc streams.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.streams_ended = TallyCounter(
            "dualpool_streams",
            "ext_proc streams ended, by outcome: finished, left (Envoy or the client closed it), "
            "left_chunked (the same while a body in chunks was due, or that was too large), "
            "protocol (Envoy broke the protocol), fault (a bug of the service).",
            ["outcome"],
            registry=registry,
        )


class WorkerMetrics:
    """The metrics of the serving processes; a service in one process is its own only worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.configured = Gauge(
            "dualpool_workers", "Serving processes configured.", registry=registry
        )
        self.ready = Gauge(
            "dualpool_workers_ready", "Serving processes that accept streams.", registry=registry
        )
        self.restarts = Counter(
            "dualpool_worker_restarts",
            "Serving processes restarted because they had ended.",
            registry=registry,
        )
        self.reloads = Counter(
            "dualpool_reloads",
            "Changes of the settings file and SIGHUPs, by outcome: applied, unchanged, or refused "
            "(the log names each fault).",
            ["outcome"],
            registry=registry,
        )
        self.reloaded = Gauge(
            "dualpool_settings_loaded_timestamp_seconds",
            "When the settings in use were loaded, in seconds since 1970.",
            registry=registry,
        )
        self.dropped = Counter(
            "dualpool_worker_lines_dropped",
            "Lines dropped because no observation could be read from them, by any worker.",
            registry=registry,
        )


class LoadCollector(Collector):
    """The metrics of what the pools' servers report, where they are asked."""

    def __init__(
        self,
        loads: Callable[[], Mapping[str, PoolLoad]],
        polls: Callable[[], Mapping[tuple[str, str, str], int]],
    ) -> None:
        """`polls` returns how often servers were asked, by pool, question and outcome."""
        self._loads, self._polls = loads, polls

    def collect(self) -> Iterator[Metric]:
        """Yield the load of each pool, that of an unknown one without requests and cache."""
        requests = GaugeMetricFamily(
            "dualpool_pool_requests",
            "Requests in the servers of a pool, by state: running, waiting.",
            labels=["pool", "state"],
        )
        usage = GaugeMetricFamily(
            "dualpool_pool_kv_usage",
            "Share of the KV cache in use, mean of a pool's servers.",
            labels=["pool"],
        )
        preemptions = GaugeMetricFamily(
            "dualpool_pool_preemptions_per_second",
            "Preemptions per second in the servers of a pool, over some ten seconds.",
            labels=["pool"],
        )
        servers = GaugeMetricFamily(
            "dualpool_pool_servers",
            "Servers of a pool, by state: reporting, silent (no report that can be read of late), "
            "down (reported before, refuse connections now).",
            labels=["pool", "state"],
        )
        for name, load in self._loads().items():
            silent = load.servers - load.known - load.down
            for state, count in (
                ("reporting", load.known),
                ("silent", silent),
                ("down", load.down),
            ):
                servers.add_metric([name, state], count)
            if load.state is State.KNOWN:
                requests.add_metric([name, "running"], load.running)
                requests.add_metric([name, "waiting"], load.waiting)
                usage.add_metric([name], load.kv_usage)
                preemptions.add_metric([name], load.preemptions)
        polls = CounterMetricFamily(
            "dualpool_pool_polls",
            "Questions to the servers of a pool, for their load or models or to count, by outcome.",
            labels=["pool", "question", "outcome"],
        )
        for values, count in self._polls().items():
            polls.add_metric(values, count)
        yield from (requests, usage, preemptions, servers, polls)


class WindowCollector(Collector):
    """The metrics of what the pools' servers state of themselves, where they are asked."""

    def __init__(
        self,
        sizes: Callable[[], Iterable[tuple[str, str, int]]],
        counts: Callable[[], Iterable[tuple[str, str, int]]],
    ) -> None:
        """`sizes` returns windows by pool and source, `counts` disagreements by pool and kind."""
        self._sizes, self._counts = sizes, counts

    def collect(self) -> Iterator[Metric]:
        """Yield the windows of each pool, and how many things disagree."""
        windows = GaugeMetricFamily(
            "dualpool_pool_window_tokens",
            "max_model_len of a pool, by source: settings, servers (the least that one of them "
            "states), used (what counts for decisions).",
            labels=["pool", "source"],
        )
        for name, source, tokens in self._sizes():
            windows.add_metric([name, source], tokens)
        discords = GaugeMetricFamily(
            "dualpool_pool_disagreements",
            "What a pool's servers disagree in, by kind: window (1: with the settings), servers "
            "(windows beside the first), and names of models: missing (of its row, on some), "
            "unlisted (not of its row), apart (only on some).",
            labels=["pool", "kind"],
        )
        for name, kind, count in self._counts():
            discords.add_metric([name, kind], count)
        yield from (windows, discords)


class StateMetrics:
    """The metrics of what is kept of the state."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.saved = Counter(
            "dualpool_state_snapshots",
            "Snapshots of what was learnt, by outcome: saved, failed (not written), too_large.",
            ["outcome"],
            registry=registry,
        )
        self.unusable = Counter(
            "dualpool_state_unusable",
            "Snapshots set aside, by fault: corrupt, foreign, newer, unreadable.",
            ["fault"],
            registry=registry,
        )
        self.bytes = Gauge("dualpool_state_bytes", "Size of the last snapshot.", registry=registry)
        self.saved_at = Gauge(
            "dualpool_state_saved_timestamp_seconds",
            "When the last snapshot was saved, in seconds since 1970.",
            registry=registry,
        )
        self.failing = Gauge(
            "dualpool_state_failing",
            "1 if the last snapshot was not saved: it failed or was too large.",
            registry=registry,
        )
        for outcome in ("saved", "failed", "too_large"):
            self.saved.labels(outcome)
        for fault in ("corrupt", "foreign", "newer", "unreadable"):
            self.unusable.labels(fault)

    def note_saved(self, size: int) -> None:
        """Count a snapshot of so many bytes."""
        self.saved.labels("saved").inc()
        self.bytes.set(size)
        self.saved_at.set_to_current_time()
        self.failing.set(0)

    def note_lost(self, outcome: str) -> None:
        """Count a snapshot that was not saved: failed or too_large."""
        self.saved.labels(outcome).inc()
        self.failing.set(1)


class SharedMetrics:
    """The metrics of a state that replicas share; what is saved of it is in StateMetrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.kept = StateMetrics(registry)
        self.faults = Counter(
            "dualpool_state_faults",
            "Attempts to use the store that failed; decisions go on from memory.",
            registry=registry,
        )
        self.reloads = Counter(
            "dualpool_state_reloads",
            "Returns to the stored snapshot, by reason: trimmed (the log was trimmed or replaced), "
            "diverged (something else was held at a checkpoint).",
            ["reason"],
            registry=registry,
        )
        self.connected = Gauge(
            "dualpool_state_connected", "1 while this replica follows the log.", registry=registry
        )
        self.replicas = Gauge(
            "dualpool_state_replicas",
            "Replicas that reported at the last checkpoints.",
            registry=registry,
        )
        self.agrees = Gauge(
            "dualpool_state_agrees",
            "1 if all replicas held the same at the last checkpoint.",
            registry=registry,
        )
        self.pending = Gauge(
            "dualpool_state_pending",
            "Observations of this replica that the log does not have yet.",
            registry=registry,
        )
        self.dropped = Counter(
            "dualpool_state_dropped",
            "Observations that the log never gets: there were too many while it was away.",
            registry=registry,
        )
        self.unsound = Counter(
            "dualpool_state_unsound",
            "Entries and observations that were passed over: nothing this service writes.",
            registry=registry,
        )
        for reason in ("trimmed", "diverged"):
            self.reloads.labels(reason)


class LearntCollector(Collector):
    """The metrics of what an estimator has learnt."""

    def __init__(self, learnt: Learnt) -> None:
        self._learnt = learnt

    def collect(self) -> Iterator[Metric]:
        """Yield a gauge for each figure of a category, a model or a limit, and the evictions."""
        yield CounterMetricFamily(
            "dualpool_categories_evicted",
            "Categories that the estimator forgot to learn others, see categories.max.",
            value=self._learnt.evicted,
        )
        for name, value in self._learnt.tenants.items():
            yield _tenant_metric(name, value)
        yield from _gauges("category", self._learnt.categories)
        yield from _gauges("model", self._learnt.models)
        yield from _gauges("limit", self._learnt.limits)


def _tenant_metric(name: str, value: float | str) -> Metric:
    help_text = f"{_TENANT_FIGURES[name]}, see tenants.header."
    kind = CounterMetricFamily if name == "evicted" else GaugeMetricFamily
    return kind(f"dualpool_tenants_{name}", help_text, value=float(value))


def _gauges(subject: str, rows: Mapping[str, Figures]) -> Iterator[Metric]:
    families: dict[str, GaugeMetricFamily] = {}
    for subject_name, figures in rows.items():
        for name, value in figures.items():
            if not isinstance(value, str):
                help_text = f"{name} of each {subject}, as the estimator has learnt it."
                family = families.setdefault(
                    name,
                    GaugeMetricFamily(f"dualpool_{subject}_{name}", help_text, labels=[subject]),
                )
                family.add_metric([label(subject_name)], value)
    yield from families.values()
