"""The panels of the Grafana dashboard: their queries and their places.

Most queries read series that deploy/prometheus/rules.yml records.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_COLUMNS: Final = 24
_FIRING: Final = 'ALERTS{alertname=~"Dualpool.+", alertstate="firing"}'
TARGET: Final = "target"
"""The legend of the series that others are compared with."""


class Kind(enum.Enum):
    """How a panel shows its values."""

    STAT = "stat"
    LINES = "timeseries"


class Unit(enum.Enum):
    """Grafana's name of a unit."""

    COUNT = "none"
    SHARE = "percentunit"
    PER_SECOND = "reqps"
    EVENTS_PER_SECOND = "cps"
    SECONDS = "s"


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and the legend of each of its series, with {{labels}}."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel; `width` and `height` in Grafana's columns and rows.

    signed: values may be negative.
    alarming: a STAT is red from this value on; None: never.
    """

    title: str
    note: str
    queries: tuple[Query, ...]
    kind: Kind = Kind.LINES
    unit: Unit = Unit.COUNT
    width: int = 8
    height: int = 8
    stacked: bool = False
    signed: bool = False
    alarming: float | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a panel in the grid, in columns and rows."""

    x: int
    y: int
    width: int
    height: int


def _stat(
    title: str, query: Query, note: str, unit: Unit = Unit.COUNT, alarming: float | None = None
) -> Panel:
    return Panel(
        title=title, note=note, queries=(query,), kind=Kind.STAT, unit=unit, width=4, height=4,
        alarming=alarming,
    )  # fmt: skip


def _error(quantile: float) -> Query:
    buckets = "sum by (le) (rate(dualpool_budget_relative_error_bucket[30m]))"
    return Query(f"histogram_quantile({quantile}, {buckets})", f"P{quantile * 100:g}")


PANELS: Final = (
    _stat(
        "Alerts firing",
        Query(f"count({_FIRING}) or vector(0)", "alerts"),
        "What each means and what to do: docs/runbooks.md.",
        alarming=1,
    ),
    _stat(
        "Requests",
        Query("pool:dualpool_decisions:rate5m", "{{pool}}"),
        "Requests a second that the service sent to each pool.",
        Unit.PER_SECOND,
    ),
    _stat(
        "Misroutes of those allowed",
        Query("max(pool:dualpool_misroutes:ratio1h) / max(dualpool:misroute_target:max)", "used"),
        "In the last hour, in the worst pool; 100 % is exactly the target.",
        Unit.SHARE,
        alarming=1,
    ),
    _stat(
        "Routed without the service",
        Query("dualpool:fail_open:ratio5m", "of all requests"),
        "Requests that Envoy routed by their size because the service did not answer, or refused "
        "a body in chunks as too large.",
        Unit.SHARE,
        alarming=0.05,
    ),
    _stat(
        "Time to decide, P99",
        Query('dualpool:decision_seconds:quantile5m{quantile="0.99"}', "P99"),
        "From the last byte of a body to the decision. Envoy's own part is in its access log.",
        Unit.SECONDS,
        alarming=0.05,
    ),
    _stat(
        "Share of the requests",
        Query(
            "sum by (pool) (pool:dualpool_decisions:rate5m)"
            " / scalar(sum(pool:dualpool_decisions:rate5m))",
            "{{pool}}",
        ),
        "What a pool gets of all requests. Whether the split saves GPUs: dualpool plan --from.",
        Unit.SHARE,
    ),
    Panel(
        title="Traffic by pool and reason",
        note="fits: within the smallest pool. threshold, capacity: too large for the next smaller "
        "pool. oversize: too large for every pool. unreadable: the body could not be read. "
        "busy: the service was late, the size decided. stateful: the answer may be stored. "
        "spill: the load moved it from a saturated pool. sticky: its conversation is there.",
        queries=(
            Query("pool_reason:dualpool_decisions:rate5m", "{{pool}}: {{reason}}"),
            Query("dualpool:fail_open:rate5m", "largest: without the service"),
        ),
        unit=Unit.PER_SECOND,
        width=12,
        stacked=True,
    ),
    Panel(
        title="Misroutes against the target",
        note="Share of all answers in the last hour that their pool could not hold, the service's "
        "forecast for each window and in all, and the target.",
        queries=(
            Query("pool:dualpool_misroutes:ratio1h", "{{pool}}"),
            Query(
                "avg by (limit) (dualpool_limit_misroute_forecast)", "forecast at {{limit}} tokens"
            ),
            Query("sum(avg by (limit) (dualpool_limit_misroute_forecast))", "forecast"),
            Query("dualpool:misroute_target:max", TARGET),
        ),
        unit=Unit.SHARE,
        width=12,
    ),
    Panel(
        title="Estimate error by category",
        note="Mean of |estimated - true| / true prompt tokens, of the last 1000 answers.",
        queries=(Query("category:dualpool_relative_error:avg", "{{category}}"),),
        unit=Unit.SHARE,
    ),
    Panel(
        title="Estimate error, all categories",
        note="(Estimated - true) / true prompt tokens in the last 30 minutes, without the margin.",
        queries=(_error(0.01), _error(0.5), _error(0.99)),
        unit=Unit.SHARE,
        signed=True,
    ),
    Panel(
        title="Bytes per token by category",
        note="Text bytes divided by prompt tokens, mean of the last 1000 answers.",
        queries=(Query("category:dualpool_bytes_per_token:avg", "{{category}}"),),
    ),
    Panel(
        title="Over-routed",
        note="Share of the answers in the last hour that a smaller pool would have held, and of "
        "those that it would have held but for the rest of their stated output limit.",
        queries=(
            Query("dualpool:over_routed:ratio1h", "over-routed"),
            Query("dualpool:reserved:ratio1h", "reserved, unused"),
        ),
        unit=Unit.SHARE,
    ),
    Panel(
        title="Coverage",
        note="Share of the requests in the last 30 minutes from whose answers the service learnt.",
        queries=(Query("dualpool:coverage:ratio30m", "learnt"),),
        unit=Unit.SHARE,
    ),
    Panel(
        title="Added latency: time to decide",
        note="From the last byte of a body to the decision. Envoy's own part (header_us, body_us) "
        "is only in its access log.",
        queries=(Query("dualpool:decision_seconds:quantile5m", "quantile {{quantile}}"),),
        unit=Unit.SECONDS,
    ),
    Panel(
        title="KV cache use",
        note="Mean over the pool's servers.",
        queries=(Query("pool:vllm_kv_cache_usage:avg", "{{pool}}"),),
        unit=Unit.SHARE,
    ),
    Panel(
        title="Requests in each pool",
        note="Running in a batch, and waiting for a place in one.",
        queries=(
            Query("pool:vllm_requests_running:sum", "{{pool}}: running"),
            Query("pool:vllm_requests_waiting:sum", "{{pool}}: waiting"),
        ),
    ),
    Panel(
        title="Preemptions",
        note="Sequences a second that lost their KV cache to others and are computed again.",
        queries=(Query("pool:vllm_preemptions:rate5m", "{{pool}}"),),
        unit=Unit.EVENTS_PER_SECOND,
    ),
    Panel(
        title="Load as the service sees it",
        note="What the pools' servers told it last, with load.spill; no data while it is unknown.",
        queries=(Query("max by (pool, state) (dualpool_pool_requests)", "{{pool}}: {{state}}"),),
        width=12,
    ),
    Panel(
        title="Servers as the service sees them",
        note="reporting: told their load of late; silent; down: refuse connections now (with "
        "load.spill). Windows that disagree: among a pool's servers, and with the settings (with "
        "load.discover).",
        queries=(
            Query("min by (pool, state) (dualpool_pool_servers)", "{{pool}}: {{state}}"),
            Query(
                'sum by (pool) (max by (pool, kind) '
                '(dualpool_pool_disagreements{kind=~"window|servers"}))',
                "{{pool}}: windows that disagree",
            ),
        ),
        width=12,
    ),
    Panel(
        title="Retries and failing open",
        note="Answers a second that needed a second server, by the first server's pool and the "
        "cause; and requests routed without the service.",
        queries=(
            Query(
                "pool_cause:dualpool_retries:rate5m"
                ' or on () label_replace(vector(0), "cause", "no retry", "", "")',
                "{{cause}} {{pool}}",
            ),
            Query("dualpool:fail_open:rate5m", "without the service"),
        ),
        unit=Unit.PER_SECOND,
        width=24,
    ),
    Panel(
        title="Streams by outcome",
        note="finished: all messages were exchanged. left: Envoy or the client closed it. "
        "left_chunked: the same while a body in chunks was due, or that was too large. "
        "protocol: Envoy broke the protocol. fault: the service failed.",
        queries=(Query("outcome:dualpool_streams:rate5m", "{{outcome}}"),),
        unit=Unit.EVENTS_PER_SECOND,
        width=12,
    ),
    Panel(
        title="Workers missing",
        note="Serving processes of each instance that are configured but not ready.",
        queries=(Query("instance:dualpool_workers_missing:current", "{{instance}}"),),
        width=12,
    ),
    Panel(
        title="Tenants",
        note="Tenants kept apart (tenants.max at most), and token weights that one of them has for "
        "itself. No data without tenants.header.",
        queries=(
            Query("max(dualpool_tenants_kept)", "kept apart"),
            Query("max(dualpool_tenants_own_weights)", "weights of their own"),
            Query("max(increase(dualpool_tenants_evicted_total[1h]))", "forgotten in an hour"),
        ),
        width=12,
    ),
    Panel(
        title="The tenant that fares worst",
        note="The highest share of misrouted requests that is forecast for one tenant, for each "
        "limit, and the target. No data without tenants.header.",
        queries=(
            Query("max by (limit) (dualpool_limit_tenant_forecast_max)", "at {{limit}} tokens"),
            Query("dualpool:misroute_target:max", TARGET),
        ),
        unit=Unit.SHARE,
        width=12,
    ),
)  # fmt: skip


def place_panels(panels: tuple[Panel, ...]) -> Iterator[tuple[Panel, Place]]:
    """Place panels in rows from left to right; all panels of a row have the same height."""
    x = y = 0
    for panel in panels:
        yield panel, Place(x, y, panel.width, panel.height)
        x += panel.width
        if x >= _COLUMNS:
            x, y = 0, y + panel.height
