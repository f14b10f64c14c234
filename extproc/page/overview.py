"""All serving processes as the page shows them: what they count, its last hour, what is wrong."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from extproc.names import UNDECIDED
from extproc.page.alerts import ALERTS, MINUTE, Seen, judged
from extproc.page.counts import ANY, Counts
from extproc.page.decisions import LATEST, Shown
from extproc.page.digest import Digest
from extproc.page.history import MOST_KEYS, STEP_S, History
from extproc.routing.pools import Pool

HOUR_S: Final = 60 * MINUTE
_RATE_S: Final = 20.0  # over which the present rate is a mean
_WINDOW_POINTS: Final = 60  # ten minutes: over which the plotted shares are taken


@dataclass(frozen=True, slots=True)
class Facts:
    """What the settings say."""

    estimator: str
    target: float
    """The share of requests that may be misrouted; 0: the estimator has none."""
    rows: tuple[tuple[Pool, ...], ...]
    """The pools of each row, in ascending order."""
    is_shadow: bool = False
    """Whether the decisions move nothing: Envoy sends all requests to the largest pool."""

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The pools of all rows."""
        return tuple(pool for row in self.rows for pool in row)


@dataclass(frozen=True, slots=True)
class Around:
    """What is shown beside the streams; each is asked when it is needed."""

    counts: Callable[[], Mapping[str, float]] = dict
    """Returns counters by key, of the processes, the pools' servers and the state."""
    pools: Callable[[], Mapping[str, Mapping[str, object]]] = dict
    """Returns by a pool's name its `load`, and its window in the settings as `stated`."""
    state: Callable[[], Mapping[str, object]] = dict
    """Returns how what is learnt is kept or shared, as GET /state describes it."""


class Overview:
    """Is told the digests of all processes. Call `tick` as often as they come."""

    def __init__(
        self, facts: Facts, around: Around, clock: Callable[[], float] | None = None
    ) -> None:
        """`clock` returns seconds since 1970 and never runs back; the default is the machine's."""
        self.facts, self._around, self._clock = facts, around, clock or _steady_clock()
        self._totals: dict[str, float] = {}
        self._told: dict[int, Mapping[str, float]] = {}
        self._latest: deque[Shown] = deque(maxlen=LATEST)
        self._started = self._clock()
        self._history = History(self._started)
        self._held_since: dict[str, float] = {}  # by alert
        self._missing: deque[tuple[float, float]] = deque()  # the last five minutes

    @property
    def points(self) -> float:
        """Changes whenever the history does."""
        return self._history.newest

    def tell(self, source: int, digest: Digest) -> None:
        """Add what a process counted since its last digest; it may have been restarted."""
        told = self._told.get(source, {})
        for key, value in digest.counts.items():
            known = told.get(key, 0.0)
            if key in self._totals or len(self._totals) < MOST_KEYS:
                # A counter that fell began again at 0.
                rise = value - known if value >= known else value
                self._totals[key] = self._totals.get(key, 0.0) + rise
        self._told[source] = digest.counts
        self._latest.extend(digest.latest[-LATEST:])

    def tick(self) -> None:
        """Add a point to the history if it is time, and note which alerts hold."""
        now, counts = self._clock(), self._counts()
        self._note_missing(now, counts)
        for alert in ALERTS:
            if alert.condition(self._seen(now, counts)):
                self._held_since.setdefault(alert.name, now)
            else:
                self._held_since.pop(alert.name, None)
        if now - self._history.newest >= STEP_S - 0.5:  # a tick may come a little early
            self._history.add(now, counts)

    def now(self) -> dict[str, object]:
        """Return the figures of this moment, for JSON."""
        now, counts = self._clock(), self._counts()
        hour = self._rise(now, counts, HOUR_S)
        answers = judged(hour)
        seen = self._around.pools()
        return {
            "at": now,
            "started": self._started,
            "seconds": min(HOUR_S, now - self._history.times[0]),
            "estimator": self.facts.estimator,
            "target": self.facts.target,
            "shadow": self.facts.is_shadow,
            "workers": [
                int(counts.get(name, 0))
                for name in (
                    "dualpool_workers",
                    "dualpool_workers_ready",
                    "dualpool_worker_restarts_total",
                )
            ],
            "rate": self._rate(now, counts, ANY),
            "pools": [
                {
                    "row": number,
                    **self._pool(pool, now, counts, hour),
                    **seen.get(pool.name, {}),
                }
                for number, row in enumerate(self.facts.rows)
                for pool in row
            ],
            "state": self._around.state(),
            "below": self._share_below(hour),
            "undecided": hour.by_label("dualpool_decisions_total", UNDECIDED),
            "judged": answers,
            "misrouted": hour.sum("dualpool_misroutes_total"),
            "over_routed": hour.sum("dualpool_verdicts_total", ANY, "over_routed"),
            "reserved": hour.sum("dualpool_verdicts_total", ANY, "reserved"),
            "learnt": hour.sum("dualpool_answers_total", "learnt"),
            "unread": hour.sum("dualpool_unread_requests_total"),
            "decision_s": [_quantile(hour, 0.5), _quantile(hour, 0.99)],
            "alerts": self._alerts(now, counts),
            "latest": [asdict(shown) for shown in reversed(self._latest)],
        }

    def hour(self) -> dict[str, object]:
        """Return the series of the last hour, for JSON: rates per second, shares from 0 to 1."""
        times = self._history.times
        answers = [
            verdicts + refused
            for verdicts, refused in zip(
                self._history.sums("dualpool_verdicts_total"),
                self._history.sums("dualpool_misroutes_total", ANY, "refused"),
                strict=True,
            )
        ]
        over_routed = self._history.sums("dualpool_verdicts_total", ANY, "over_routed")
        return {
            "times": times[1:],
            "pools": {
                pool.name: _rates(times, self._history.sums("dualpool_decisions_total", pool.name))
                for pool in self.facts.pools
            },
            "misrouted": _shares(self._history.sums("dualpool_misroutes_total"), answers),
            "over_routed": _shares(over_routed, answers),
        }

    def _counts(self) -> dict[str, float]:
        return {**self._totals, **self._around.counts()}

    def _rise(self, now: float, counts: Mapping[str, float], seconds: float) -> Counts:
        return Counts.since(self._history.before(now - seconds), counts)

    def _share_below(self, hour: Counts) -> float | None:
        """Return the share of requests in pools below the largest of their row; None if none."""
        counts = [
            [hour.sum("dualpool_decisions_total", pool.name) for pool in row]
            for row in self.facts.rows
        ]
        total = sum(map(sum, counts))
        return sum(sum(row[:-1]) for row in counts) / total if total else None

    def _rate(self, now: float, counts: Mapping[str, float], pool: str) -> float:
        since = max((at for at in self._history.times if at <= now - _RATE_S), default=0.0)
        since = since or self._history.times[0]
        rise = Counts.since(self._history.before(since), counts)
        return rise.sum("dualpool_decisions_total", pool) / max(now - since, STEP_S)

    def _pool(
        self, pool: Pool, now: float, counts: Mapping[str, float], hour: Counts
    ) -> dict[str, object]:
        return {
            "name": pool.name,
            "window": pool.max_model_len,
            "threshold": pool.threshold,
            "rate": self._rate(now, counts, pool.name),
            "reasons": hour.by_label("dualpool_decisions_total", pool.name),
            "misroutes": hour.by_label("dualpool_misroutes_total", pool.name),
            "verdicts": hour.by_label("dualpool_verdicts_total", pool.name),
            "retries": hour.by_label("dualpool_retries_total", pool.name),
        }

    def _seen(self, now: float, counts: Mapping[str, float]) -> Seen:
        full = bool(self._missing) and now - self._missing[0][0] >= 5 * MINUTE - STEP_S
        return Seen(
            target=self.facts.target,
            pools=tuple(pool.name for pool in self.facts.pools),
            rise=lambda seconds: self._rise(now, counts, seconds),
            least_missing=min(n for _, n in self._missing) if full else 0.0,
            state=self._around.state(),
        )

    def _note_missing(self, now: float, counts: Mapping[str, float]) -> None:
        missing = counts.get("dualpool_workers", 0.0) - counts.get("dualpool_workers_ready", 0.0)
        self._missing.append((now, missing))
        while now - self._missing[0][0] > 5 * MINUTE:
            self._missing.popleft()

    def _alerts(self, now: float, counts: Mapping[str, float]) -> list[dict[str, object]]:
        seen = self._seen(now, counts)
        return [
            {
                "name": alert.name,
                "summary": alert.summary,
                "detail": detail,
                "fires": now - self._held_since.get(alert.name, now) >= alert.for_s,
                "runbook": alert.runbook,
            }
            for alert in ALERTS
            if (detail := alert.condition(seen))
        ]


def _steady_clock() -> Callable[[], float]:
    # The machine's time as it is now: if it is set back later, the history must go on.
    epoch = time.time() - time.monotonic()
    return lambda: epoch + time.monotonic()


def _rates(times: Sequence[float], sums: Sequence[float]) -> list[float]:
    return [
        round((sums[i] - sums[i - 1]) / max(times[i] - times[i - 1], 1e-9), 3)
        for i in range(1, len(times))
    ]


def _shares(sums: Sequence[float], answers: Sequence[float]) -> list[float | None]:
    """Return the shares over the last ten minutes at each point; None without an answer."""
    firsts = [max(0, i - _WINDOW_POINTS) for i in range(len(sums))]
    return [
        round((sums[i] - sums[first]) / (answers[i] - answers[first]), 6)
        if answers[i] > answers[first]
        else None
        for i, first in enumerate(firsts)
    ][1:]


def _quantile(rise: Counts, share: float) -> float | None:
    """Return a quantile of the seconds that decisions took, as Prometheus does; None if none."""
    buckets = rise.by_label("dualpool_decision_seconds_bucket")
    total = buckets.pop("+Inf", 0.0)
    low, below = 0.0, 0.0
    for bound, count in sorted((float(le), count) for le, count in buckets.items()):
        if total and count >= share * total:
            return low + (bound - low) * (share * total - below) / (count - below)
        low, below = bound, count
    return low if total else None
