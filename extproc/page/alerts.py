"""The alerts of deploy/prometheus/alerts.yml that the service's own counters decide.

The others need Envoy's or the pools' metrics, or those of a day. A test holds the names, times and
summaries to that file, and pins the expressions that the conditions here repeat.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    state: Mapping[str, object] = field(default_factory=dict)
    """How what is learnt is kept or shared, as GET /state describes it."""


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


def _pool_silent(seen: Seen) -> str:
    rise = seen.rise(10 * MINUTE)
    polls = "dualpool_pool_polls_total"
    silent = (
        f"{pool}: {question}"
        for pool in seen.pools
        for question in rise.by_label(polls, pool)
        # A server may decline to count samples.
        if question != "tokenize" and not rise.sum(polls, pool, question, "reported")
    )
    return ", ".join(silent)


def _state_not_saved(seen: Seen) -> str:
    rise, saves = seen.rise(15 * MINUTE), "dualpool_state_snapshots_total"
    count = rise.sum(saves, "failed") + rise.sum(saves, "too_large")
    return f"{count:.0f} in the last 15 minutes" if count else ""


def _replicas_apart(seen: Seen) -> str:
    if seen.state.get("connected") is False:
        return "no connection to the store"
    return "it holds something else" if seen.state.get("agree") is False else ""


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
        "DualpoolPoolSilent",
        "No server of a pool has answered the service's questions for ten minutes",
        10 * MINUTE,
        _pool_silent,
    ),
    Alert(
        "DualpoolStateNotSaved",
        "What is learnt could not be saved, and would be lost at a restart",
        0,
        _state_not_saved,
    ),
    Alert(
        "DualpoolReplicasApart",
        "This replica does not share what it learns, or holds something else",
        10 * MINUTE,
        _replicas_apart,
    ),
    Alert(
        "DualpoolWorkerMissing",
        "Workers are missing, or restarted again and again",
        MINUTE,
        _worker_missing,
    ),
)
