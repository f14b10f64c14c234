"""The alerts of deploy/prometheus/alerts.yml that the service's own counters decide.

The others need Envoy's or the pools' metrics, or those of a day. A test holds the names, times and
summaries to that file, and pins the expressions that the conditions here repeat.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Final

from extproc.page.counts import ANY, Counts

MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What conditions ask."""

    target: float
    """The share of requests that may be misrouted; 0: none is set."""
    pools: tuple[str, ...]
    rise: Callable[[float], Counts]
    """Returns by how much the counters rose in the last seconds."""
    least_missing: float
    """The least number of workers that were missing at once in the last five minutes."""


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert: the condition returns what it found, empty if it does not hold."""

    name: str
    summary: str
    for_s: float
    """How long the condition must hold before the alert fires."""
    condition: Callable[[Seen], str]

    @property
    def runbook(self) -> str:
        """Where the repository says what to do."""
        return f"docs/runbooks.md#{self.name.lower()}"


def judged(rise: Counts) -> float:
    """Return the answers that were judged; a refusal has no usage, hence no verdict."""
    return rise.sum("dualpool_verdicts_total") + rise.sum(
        "dualpool_misroutes_total", ANY, "refused"
    )


def _misroutes_over_target(seen: Seen) -> str:
    rise = seen.rise(60 * MINUTE)
    allowed = judged(rise) * seen.target
    if allowed < 1:
        return ""
    counts = {pool: rise.sum("dualpool_misroutes_total", pool) for pool in seen.pools}
    over = {pool: n for pool, n in counts.items() if n > allowed + 3 * sqrt(allowed)}
    return ", ".join(f"{pool}: {n:.0f} in the last hour" for pool, n in over.items())


def _learning_stalled(seen: Seen) -> str:
    rise = seen.rise(30 * MINUTE)
    decisions = rise.sum("dualpool_decisions_total")
    if decisions < 100 or rise.sum("dualpool_answers_total", "learnt"):
        return ""
    return f"{decisions:.0f} requests in the last 30 minutes, nothing learnt"


def _streams(outcome: str) -> Callable[[Seen], str]:
    def condition(seen: Seen) -> str:
        count = seen.rise(15 * MINUTE).sum("dualpool_streams_total", outcome)
        return f"{count:.0f} in the last 15 minutes" if count else ""

    return condition


def _reload_refused(seen: Seen) -> str:
    count = seen.rise(15 * MINUTE).sum("dualpool_reloads_total", "refused")
    return f"{count:.0f} in the last 15 minutes" if count else ""


def _worker_missing(seen: Seen) -> str:
    if seen.least_missing:
        return f"{seen.least_missing:.0f} missing for 5 minutes"
    restarts = seen.rise(15 * MINUTE).sum("dualpool_worker_restarts_total")
    return f"{restarts:.0f} restarts in the last 15 minutes" if restarts > 2 else ""


ALERTS: Final = (
    Alert(
        "DualpoolMisroutesOverTarget",
        "More requests than budget.target allows were too long for their pool",
        5 * MINUTE,
        _misroutes_over_target,
    ),
    Alert(
        "DualpoolLearningStalled",
        "Requests are routed, but the service learns from no answer",
        5 * MINUTE,
        _learning_stalled,
    ),
    Alert(
        "DualpoolStreamFaults",
        "The service fails on some requests, which are routed by their size",
        0,
        _streams("fault"),
    ),
    Alert(
        "DualpoolProtocolErrors",
        "Envoy sends the service messages that break the ext_proc protocol",
        0,
        _streams("protocol"),
    ),
    Alert(
        "DualpoolReloadRefused",
        "A change of the settings was refused; those before it are in use",
        0,
        _reload_refused,
    ),
    Alert(
        "DualpoolWorkerMissing",
        "Workers are missing, or restarted again and again",
        MINUTE,
        _worker_missing,
    ),
)
