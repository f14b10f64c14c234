"""What the counters of the service and of Envoy say of the traffic.

Invariant: a share is judged only after as many requests as make it mean something.
"""

from collections.abc import Iterator
from math import sqrt
from pathlib import PurePath
from typing import Final

from extproc.doctor.facts import EnvoyFacts, Facts, ServiceFacts
from extproc.doctor.finding import Ailment, Conclusion, Unchecked
from extproc.page.alerts import judged
from extproc.page.counts import ANY, matching

# The shares of deploy/prometheus/alerts.yml.
MOST_ABSENT: Final = 0.05
MOST_RETRIED: Final = 0.01
LEAST_LEARNT: Final = 0.5
LEAST_REQUESTS: Final = 20
LEAST_ANSWERS: Final = 100
# Of each pool: a server is asked for the usage of streams after up to eight that state none.
LEAST_LEARNING: Final = 50
LEAST_MISROUTES: Final = 3

_FIXES: Final = {
    "absent": "start vLLM with --enable-force-include-usage, or use Envoy's Lua filter of "
    "`dualpool config envoy`, which lets the service ask for usage",
    "encoding": "remove accept-encoding from requests, as `dualpool config envoy` does",
    "error": "look at the pools' logs: their answers are errors",
    "incomplete": "look for clients that leave, and for pools whose answers state no usage: start "
    "vLLM with --enable-force-include-usage",
    "no_output": "look at the pools' logs: their answers hold no output",
    "too_large": "use form trailers or observed: single answers above the limit teach nothing",
    "implausible": "ask the pools for usage that fits their requests: what they state cannot be",
}


def traffic_checks(facts: Facts) -> Iterator[Conclusion]:
    """Judge what has been counted."""
    if isinstance(facts.service, ServiceFacts):
        yield from _learning(facts, facts.service)
        yield from _misroutes(facts, facts.service)
        yield from _retries(facts, facts.service)
        yield from _lateness(facts, facts.service)
        yield from _streams(facts, facts.service)
        yield from _load(facts, facts.service)
        yield from _state(facts, facts.service)
    if isinstance(facts.envoy, EnvoyFacts):
        yield from _fail_open(facts, facts.envoy)


def _learning(facts: Facts, service: ServiceFacts) -> Iterator[Conclusion]:
    decisions = service.counts.sum("dualpool_decisions_total")
    outcomes = service.counts.by_label("dualpool_answers_total")
    answers = sum(outcomes.values())
    learnt = outcomes.pop("learnt", 0.0)
    if decisions < LEAST_REQUESTS:
        yield Unchecked("usage", f"only {decisions:.0f} requests {facts.when}")
    elif not answers:
        yield Ailment(
            "usage",
            f"{decisions:.0f} requests {facts.when}, and the service has seen no answer",
            "add the observer filter of `dualpool config envoy` to the routes of the pools",
        )
    elif answers >= LEAST_LEARNING * len(facts.settings.pools) and learnt < LEAST_LEARNT * answers:
        worst = max(outcomes, key=lambda name: outcomes[name])
        yield Ailment(
            "learning",
            f"nothing is learnt from {sum(outcomes.values()) / answers:.0%} of {answers:.0f} "
            f"answers {facts.when}, mostly: {worst}",
            _FIXES.get(worst, "read docs/runbooks.md, DualpoolLearningStalled"),
        )


def _misroutes(facts: Facts, service: ServiceFacts) -> Iterator[Conclusion]:
    target, answers = facts.settings.budget.target, judged(service.counts)
    allowed = answers * target
    for pool in facts.settings.pools:
        count = service.counts.sum("dualpool_misroutes_total", pool.name)
        # Three standard deviations of a Poisson count, as in the alert.
        if count >= LEAST_MISROUTES and count > allowed + 3 * sqrt(allowed):
            yield Ailment(
                "misroutes",
                f"{count:.0f} of {answers:.0f} answers {facts.when} were too long for "
                f"{pool.name}; the target is a share of {target:g}",
                "compare the windows with /v1/models, then read docs/runbooks.md, "
                "DualpoolMisroutesOverTarget",
            )


def _retries(facts: Facts, service: ServiceFacts) -> Iterator[Conclusion]:
    answers = service.counts.sum("dualpool_answers_total")
    retries = service.counts.sum("dualpool_retries_total")
    if answers >= LEAST_ANSWERS and retries > MOST_RETRIED * answers:
        causes = service.counts.by_label("dualpool_retries_total", ANY)
        listed = ", ".join(f"{cause} {count:.0f}" for cause, count in causes.items())
        yield Ailment(
            "retries",
            f"{retries / answers:.1%} of {answers:.0f} answers came from a second server "
            f"{facts.when} ({listed})",
            "misrouted: see the windows; failed: look at the logs of the pool's servers",
        )


def _lateness(facts: Facts, service: ServiceFacts) -> Iterator[Conclusion]:
    decisions = service.counts.sum("dualpool_decisions_total")
    late = service.counts.by_label("dualpool_decisions_total", ANY).get("busy", 0.0)
    if decisions >= LEAST_REQUESTS and late > MOST_ABSENT * decisions:
        yield Ailment(
            "lateness",
            f"{late / decisions:.0%} of {decisions:.0f} requests {facts.when} were decided by "
            "their size alone, because the service was late",
            "raise workers, or give the service more CPU",
        )


def _streams(facts: Facts, service: ServiceFacts) -> Iterator[Conclusion]:
    for outcome, fix in (
        ("fault", "report the trace in the service's log: it is a bug of the service"),
        ("protocol", "compare Envoy's filters with `dualpool config envoy`"),
    ):
        if count := service.counts.sum("dualpool_streams_total", outcome):
            text = f"{count:.0f} streams ended with outcome {outcome} {facts.when}"
            yield Ailment("streams", text, fix)
    missing = service.counts.sum("dualpool_workers") - service.counts.sum("dualpool_workers_ready")
    if missing > 0:
        text = f"{missing:.0f} workers are missing"
        yield Ailment("workers", text, "read the service's log: why its workers end is there")


def _load(facts: Facts, service: ServiceFacts) -> Iterator[Conclusion]:
    """Find pools of which the service has no report: no request leaves or enters these."""
    name = "dualpool_pool_servers"
    if not facts.settings.load.spill or not matching(service.counts.values, name):
        return
    for pool in facts.settings.pools:
        seen = (service.counts.sum(name, pool.name, state) for state in ("reporting", "down"))
        if not sum(seen):
            yield Ailment(
                "load",
                f"load.spill is set, and no server of {pool.name} reports its load to the service",
                "let the service resolve and reach /metrics of pools.address, without a key: "
                "dualpool_pool_polls_total counts what it got",
            )


def _state(facts: Facts, service: ServiceFacts) -> Iterator[Conclusion]:
    """Find a file of the state to which the last snapshot could not be written."""
    name, kind = "dualpool_state_snapshots_total", "file:"
    if facts.settings.state.startswith(kind) and service.counts.sum("dualpool_state_failing"):
        path = PurePath(facts.settings.state.removeprefix(kind))
        count = {
            outcome: service.counts.sum(name, outcome)
            for outcome in ("saved", "failed", "too_large")
        }
        yield Ailment(
            "state",
            f"what was learnt is lost with a restart: the last snapshot was not saved to {path} "
            f"({facts.when} {count['saved']:.0f} saved, {count['failed']:.0f} failed, "
            f"{count['too_large']:.0f} too large)",
            f"let the service write to the folder {path.parent}, which must exist; if it is too "
            "large, read docs/runbooks.md, DualpoolStateNotSaved; the reason is in its log",
        )


def _fail_open(facts: Facts, envoy: EnvoyFacts) -> Iterator[Conclusion]:
    allowed, started = envoy.count("failure_mode_allowed"), envoy.count("streams_started")
    if started is None and allowed is None:
        if any(not each.observes for each in envoy.processors()):
            reason = f"Envoy has counted no request of the routing filter {facts.when}"
            yield Unchecked("fail open", reason)
        return
    failed, requests = allowed or 0.0, max(started or 0.0, allowed or 0.0)
    if isinstance(facts.service, ServiceFacts):
        # The service refuses bodies in chunks that are too large; it is not absent.
        failed -= facts.service.counts.sum("dualpool_streams_total", "left_chunked")
    if requests >= LEAST_REQUESTS and failed > MOST_ABSENT * requests:
        late = envoy.count("message_timeouts") or 0.0
        raise_limits = "late: raise workers or envoy.message_timeout_ms; else "
        yield Ailment(
            "fail open",
            f"Envoy routed {failed / requests:.0%} of {requests:.0f} requests {facts.when} by "
            f"their size, without the service ({late:.0f} because it was late)",
            f"{raise_limits if late else ''}see `reach` and the log of the service",
        )
