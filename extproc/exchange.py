"""The story of one request: which stage follows which, and what is learnt at the end.

The rule it keeps: on any doubt a request passes on unchanged, to the largest pool, and is counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from extproc.budget import Observation, Outcome
from extproc.learner import Learner, name_category
from extproc.metrics import Metrics
from extproc.pools import Reason, Verdict, judge
from extproc.request import Endpoint, Unreadable, UnreadableRequest, endpoint, read_request
from extproc.response import Finish, Refused, Usage, UsageReader
from extproc.routing import Routed, Rules, from_note, route, route_unread, to_note
from extproc.session import Action, Body, Direction, Event, Head, Proceed, Trailers, Wait


@dataclass(frozen=True, slots=True)
class Stages:
    """All that exchanges share."""

    rules: Rules
    learner: Learner
    learn: Callable[[Observation], None]
    """Where observations go: the learner's own `learn`, or one that tells other processes too."""
    metrics: Metrics
    clock: Callable[[], float]
    """Seconds, monotonic."""


@dataclass(slots=True)
class _Asked:
    """A request whose body is still coming."""

    endpoint: Endpoint
    headers: Mapping[str, str]
    body: bytearray = field(default_factory=bytearray)


class Exchange:
    """One request and its answer, or the half of them that this stream sees.

    Give `on` each event, then call `finish`, however the stream ended.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._asked: _Asked | None = None
        self._routed: Routed | None = None
        self._reader: UsageReader | None = None

    def on(self, event: Event) -> Action:
        """Say what to do about an event."""
        match event:
            case Head(direction=Direction.REQUEST, observed=True):
                self._routed = from_note(event.note, self._stages.rules)
            case Head(direction=Direction.REQUEST):
                return self._begin(event)
            case Body(direction=Direction.REQUEST) if self._asked:
                return self._read(self._asked, event)
            case Trailers(direction=Direction.REQUEST) if self._asked:
                return self._decide(self._asked)
            case Head():
                self._reader = _usage_reader(event.headers)
            case Body(direction=Direction.RESPONSE) if self._reader:
                self._reader.feed(event.data)
            case _:
                pass
        return Proceed()

    def finish(self) -> None:
        """Judge and learn what there is to learn; idempotent, and never waits."""
        routed, reader = self._routed, self._reader
        self._asked = self._routed = self._reader = None
        if routed is None or reader is None or routed.reason is Reason.UNREADABLE:
            return
        match reader.finish():
            case Usage() as usage:
                self._answered(routed, usage)
            case Refused():
                self._count("refused")
                self._misrouted(routed, "refused")
                self._learn(routed, Outcome.REFUSED, 0, 0)
            case reason:
                self._count(reason.value)

    def _begin(self, head: Head) -> Action:
        kind = endpoint(head.headers.get(":path", ""))
        if kind is None or head.end_of_stream or head.headers.get(":method") != "POST":
            self._stages.metrics.unread.inc()
            return Proceed()
        self._asked = _Asked(kind, head.headers)
        return Wait()

    def _read(self, asked: _Asked, body: Body) -> Action:
        asked.body += body.data
        if len(asked.body) > self._stages.rules.max_body_bytes:
            return self._unreadable(Unreadable.TOO_LARGE)
        return self._decide(asked) if body.end_of_stream else Wait()

    def _decide(self, asked: _Asked) -> Action:
        stages = self._stages
        rules, start = stages.rules, stages.clock()
        encoding = asked.headers.get("content-encoding", "")
        try:
            request = read_request(
                asked.endpoint, bytes(asked.body), encoding, max_bytes=rules.max_body_bytes
            )
        except UnreadableRequest as error:
            return self._unreadable(error.reason)
        named = asked.headers.get(rules.category_header, "")
        action = self._go(route(request, named, stages.learner, rules))
        stages.metrics.decision_seconds.observe(stages.clock() - start)
        return action

    def _unreadable(self, reason: Unreadable) -> Proceed:
        self._stages.metrics.unreadable.labels(reason.value).inc()
        return self._go(route_unread(self._stages.rules))

    def _go(self, routed: Routed) -> Proceed:
        self._asked, self._routed = None, routed
        self._stages.metrics.decisions.labels(
            routed.pool,
            self._stages.learner.label(routed.asked),
            routed.reason.value,
            routed.budget.basis.value,
        ).inc()
        return Proceed(set_headers=_headers(routed), note=to_note(routed))

    def _answered(self, routed: Routed, usage: Usage) -> None:
        self._judge(routed, usage)
        if not usage.completion_tokens:
            # What generates nothing (embeddings, scores) may have been truncated to any length.
            self._count("no_output")
            return
        self._count("learnt")
        outcome = Outcome.CUT if usage.finish is Finish.LENGTH else Outcome.COMPLETE
        self._learn(routed, outcome, usage.prompt_tokens, usage.completion_tokens)

    def _judge(self, routed: Routed, usage: Usage) -> None:
        metrics, pools = self._stages.metrics, self._stages.rules.pools
        verdict = judge(routed.pool, usage.prompt_tokens + _output(routed, usage), pools)
        metrics.verdicts.labels(routed.pool, verdict.value).inc()
        if verdict is Verdict.MISROUTED:
            self._misrouted(routed, "clamped" if usage.finish is Finish.LENGTH else "harmless")
        error = routed.budget.prompt_tokens / usage.prompt_tokens - 1
        label = self._stages.learner.label(routed.asked)
        metrics.budget_error.labels(label).observe(error)

    def _misrouted(self, routed: Routed, kind: str) -> None:
        if routed.pool != self._stages.rules.pools[-1].name:
            self._stages.metrics.misroutes.labels(routed.pool, kind).inc()

    def _learn(self, routed: Routed, outcome: Outcome, prompt: int, completion: int) -> None:
        limit = self._stages.rules.pool(routed.pool).limit
        self._stages.learn(Observation(routed.asked, outcome, limit, prompt, completion))

    def _count(self, outcome: str) -> None:
        self._stages.metrics.answers.labels(outcome).inc()


def _output(routed: Routed, usage: Usage) -> int:
    """Return the output that each sequence was promised, or had; one token more if it was cut."""
    cut = usage.finish is Finish.LENGTH
    return routed.max_tokens or usage.completion_tokens // routed.sequences + cut


def _usage_reader(headers: Mapping[str, str]) -> UsageReader:
    status = headers.get(":status", "")
    return UsageReader(
        int(status) if status.isdigit() else 0,
        headers.get("content-type", ""),
        headers.get("content-encoding", ""),
    )


def _headers(routed: Routed) -> dict[str, str]:
    headers = {"x-llm-pool": routed.pool, "x-llm-reason": routed.reason.value}
    if routed.reason is Reason.UNREADABLE:
        return headers
    return headers | {
        "x-llm-budget": str(routed.budget.tokens),
        "x-llm-category": name_category(routed.asked),
        "x-llm-basis": routed.budget.basis.value,
    }
