"""The story of one request: which stage follows which, and what is learnt at the end.

The rule it keeps: on any doubt a request passes on unchanged, to the largest pool, and is counted.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from extproc.budget.learner import Learner, name_category
from extproc.budget.values import Basis, Observation, Outcome
from extproc.request.reader import (
    Endpoint,
    Request,
    Unreadable,
    UnreadableRequest,
    endpoint,
    read_request,
)
from extproc.response.reader import Finish, Refused, Unlearnable, Usage, UsageReader
from extproc.routing.pools import Pool, Reason, Verdict, judge
from extproc.routing.route import Routed, Rules, from_note, route, route_unread, to_note
from extproc.stream.metrics import Metrics
from extproc.stream.session import (
    Action,
    Body,
    Direction,
    Event,
    Head,
    Proceed,
    Spent,
    Trailers,
    Wait,
)
from extproc.stream.usage_request import ask_for_usage

_MOST_ASKED_BYTES = 1 << 20  # a body with our field in it goes back to Envoy: a bounded copy
_HIDES_USAGE = "hides_usage"  # set by Envoy's filter that takes usage out of answers
_HIDE_USAGE = "hide_usage"  # set for it


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
    draw: Callable[[], float]
    """A number from 0 to 1, another one each time."""


class _Cause(enum.Enum):
    """Why Envoy asked a second server."""

    MISROUTED = "misrouted"  # the pool could not hold it
    FAILED = "failed"  # it could, but was absent or broken
    UNKNOWN = "unknown"  # the answer does not tell


@dataclass(slots=True)
class _Asked:
    """A request whose body is still coming."""

    endpoint: Endpoint
    headers: Mapping[str, str]
    hides_usage: bool  # Envoy takes out of the answer what we ask for
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False  # Envoy takes another body in its place

    @property
    def replaceable(self) -> bool:
        """Whether a field can be added to the body."""
        plain = not self.headers.get("content-encoding")
        return self.whole and plain and len(self.body) <= _MOST_ASKED_BYTES


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer that is coming."""

    reader: UsageReader
    attempts: int


def begin_counting(stages: Stages) -> None:
    """Let the counters of each pool stand at 0: no rate sees the 1 that a series is born with."""
    metrics = stages.metrics
    for pool in stages.rules.pools:
        for verdict in Verdict:
            metrics.verdicts.labels(pool.name, verdict.value)
        for cause in _Cause:
            metrics.retries.labels(pool.name, cause.value)
    for pool in stages.rules.pools[:-1]:
        for kind in ("retried", "refused", "clamped", "harmless"):
            metrics.misroutes.labels(pool.name, kind)
    for outcome in ("learnt", "refused", "no_output", *(each.value for each in Unlearnable)):
        metrics.answers.labels(outcome)


class Exchange:
    """One request and its answer, or the half of them that this stream sees.

    Give `on` each event, then call `finish`, however the stream ended.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._asked: _Asked | None = None
        self._routed: Routed | None = None
        self._answer: _Answer | None = None

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
                self._answer = _Answer(_usage_reader(event.headers), event.attempts)
            case Body(direction=Direction.RESPONSE) if self._answer:
                self._answer.reader.feed(event.data)
            case Trailers(spent=Spent(prompt, completion, cached)) if self._answer:
                self._answer.reader.tell(prompt, completion, cached)
            case _:
                pass
        return Proceed()

    def finish(self) -> None:
        """Judge and learn what there is to learn; idempotent, and never waits."""
        routed, answer = self._routed, self._answer
        self._asked = self._routed = self._answer = None
        if routed is None or answer is None or routed.reason is Reason.UNREADABLE:
            return
        rules, retried = self._stages.rules, answer.attempts > 1
        # Envoy's second attempt is at the largest pool.
        pool = rules.pools[-1] if retried else rules.pool(routed.pool)
        cause = self._conclude(routed, pool, answer.reader.finish())
        if retried:
            self._stages.metrics.retries.labels(routed.pool, cause.value).inc()

    def _conclude(
        self, routed: Routed, pool: Pool, outcome: Usage | Refused | Unlearnable
    ) -> _Cause:
        """Judge what `pool` has answered; say why another one may have been asked before it."""
        match outcome:
            case Usage() as usage:
                return self._answered(routed, pool, usage)
            case Refused():
                self._count("refused")
                self._misrouted(routed, "refused")
                self._learn(routed, Outcome.REFUSED, pool)
                return _Cause.MISROUTED
            case reason:
                self._count(reason.value)
                return _Cause.UNKNOWN

    def _begin(self, head: Head) -> Action:
        kind = endpoint(head.headers.get(":path", ""))
        if kind is None or head.end_of_stream or head.headers.get(":method") != "POST":
            self._stages.metrics.unread.inc()
            return Proceed()
        self._asked = _Asked(kind, head.headers, head.note.get(_HIDES_USAGE) is True)
        return Wait()

    def _read(self, asked: _Asked, body: Body) -> Action:
        asked.body += body.data
        asked.whole = body.whole
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
        routed = route(request, named, stages.learner, rules)
        action = self._go(routed)
        if asked.hides_usage and self._wants_usage(request, routed) and asked.replaceable:
            action = self._asking(asked, action)
        stages.metrics.decision_seconds.observe(stages.clock() - start)
        return action

    def _wants_usage(self, request: Request, routed: Routed) -> bool:
        """Tell whether to ask: all until the category is calibrated, then a sample of them."""
        if not request.usage_unstated:
            return False
        known = routed.budget.basis is Basis.CALIBRATED
        return not known or self._stages.draw() < self._stages.rules.usage_sample

    def _asking(self, asked: _Asked, action: Proceed) -> Proceed:
        self._stages.metrics.usage_asked.inc()
        body = ask_for_usage(bytes(asked.body))
        length = {"content-length": str(len(body))} if "content-length" in asked.headers else {}
        return Proceed({**action.set_headers, **length}, {**action.note, _HIDE_USAGE: True}, body)

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

    def _answered(self, routed: Routed, pool: Pool, usage: Usage) -> _Cause:
        cut = _is_cut(routed, pool, usage)
        verdict = self._judge(routed, usage, cut=cut)
        if verdict is Verdict.MISROUTED:
            kept = "clamped" if cut else "harmless"
            self._misrouted(routed, kept if pool.name == routed.pool else "retried")
        if usage.completion_tokens:
            self._count("learnt")
            outcome = Outcome.CUT if cut else Outcome.COMPLETE
            self._learn(routed, outcome, pool, usage.prompt_tokens, usage.completion_tokens)
        else:
            # What generates nothing (embeddings, scores) may have been truncated to any length.
            self._count("no_output")
        return _Cause.MISROUTED if verdict is Verdict.MISROUTED else _Cause.FAILED

    def _judge(self, routed: Routed, usage: Usage, *, cut: bool) -> Verdict:
        metrics, pools = self._stages.metrics, self._stages.rules.pools
        total = usage.prompt_tokens + _output(routed, usage, cut=cut)
        verdict = judge(routed.pool, total, pools)
        metrics.verdicts.labels(routed.pool, verdict.value).inc()
        error = routed.budget.prompt_tokens / usage.prompt_tokens - 1
        label = self._stages.learner.label(routed.asked)
        metrics.budget_error.labels(label).observe(error)
        return verdict

    def _misrouted(self, routed: Routed, kind: str) -> None:
        if routed.pool != self._stages.rules.pools[-1].name:
            self._stages.metrics.misroutes.labels(routed.pool, kind).inc()

    def _learn(
        self, routed: Routed, outcome: Outcome, pool: Pool, prompt: int = 0, completion: int = 0
    ) -> None:
        self._stages.learn(Observation(routed.asked, outcome, pool.limit, prompt, completion))

    def _count(self, outcome: str) -> None:
        self._stages.metrics.answers.labels(outcome).inc()


def _is_cut(routed: Routed, pool: Pool, usage: Usage) -> bool:
    """Tell whether a limit ended the answer; where its reason to end is not told, by the counts."""
    if usage.finish is not Finish.UNTOLD:
        return usage.finish is Finish.LENGTH
    most = routed.max_tokens * routed.sequences or pool.max_model_len
    full = usage.prompt_tokens + usage.completion_tokens >= pool.max_model_len
    return full or usage.completion_tokens >= most


def _output(routed: Routed, usage: Usage, *, cut: bool) -> int:
    """Return the output that each sequence was promised, or had; one token more if it was cut."""
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
    if routed.refusable:
        headers["x-llm-retryable"] = "1"
    if routed.reason is Reason.UNREADABLE:
        return headers
    return headers | {
        "x-llm-budget": str(routed.budget.tokens),
        "x-llm-category": name_category(routed.asked),
        "x-llm-basis": routed.budget.basis.value,
    }
