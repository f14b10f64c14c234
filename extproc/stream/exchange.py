"""One request, from its headers to what its answer teaches.

Invariant: on any doubt a request passes on unchanged, to the largest pool, and is counted.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from msgspec import structs

from extproc.budget.learner import Learner
from extproc.budget.values import Observation, Outcome
from extproc.names import HIDE_USAGE, HIDES_USAGE
from extproc.request.reader import (
    Endpoint,
    Unreadable,
    UnreadableRequest,
    endpoint,
    read_request,
)
from extproc.response.reader import Finish, Refused, Unlearnable, Usage
from extproc.routing.ask import is_answered
from extproc.routing.pools import Pool, Verdict, judge
from extproc.routing.route import (
    Routed,
    Rules,
    is_informative,
    route,
    route_by_size,
    route_unread,
)
from extproc.stream.answer import PendingAnswer
from extproc.stream.decision import (
    ask_for_usage,
    decision_headers,
    from_note,
    to_note,
    usage_from_note,
    usage_note,
)
from extproc.stream.metrics import Metrics
from extproc.stream.sampling import Sampling
from extproc.stream.session import (
    Action,
    Body,
    Direction,
    Event,
    FlowControl,
    Head,
    Proceed,
    Trailers,
    Wait,
)
from extproc.stream.usage_asking import UsageAsking, UsageForm

_HEADERS = (
    *(":method", ":path", ":status"),
    *(f"content-{name}" for name in ("encoding", "length", "type")),
)
_PROCEED = Proceed()
_MOST_LENGTH_DIGITS = 18
_MOST_REPLACED_BYTES = 1 << 20  # a body with our field is sent back to Envoy: bounds the copy


@dataclass(frozen=True)
class Stages:
    """What all exchanges share."""

    rules: Rules
    learner: Learner
    learn: Callable[[Observation], None]
    """Takes observations: the learner's own `learn`, or one that also tells other processes."""
    metrics: Metrics
    clock: Callable[[], float]
    """Returns seconds, monotonic."""
    draw: Callable[[], float]
    """Returns a new random number from 0 to 1."""
    sampling: Sampling
    usage_asking: UsageAsking = field(default_factory=UsageAsking)
    is_late: Callable[[], bool] = lambda: False
    """Returns whether requests wait so long that only their size can decide in time."""
    decided: Callable[[Routed], None] = lambda _: None
    """Is told each decision."""

    @cached_property
    def header_names(self) -> frozenset[str]:
        """The headers of requests and answers that are read."""
        tenants = self.rules.tenants
        named = (self.rules.category_header, tenants.header if tenants else "")
        return frozenset({*_HEADERS, *named})


class _RetryCause(enum.Enum):
    """Why Envoy asked a second server."""

    MISROUTED = "misrouted"  # the pool could not hold the request
    FAILED = "failed"  # it could, but was absent or broken
    UNKNOWN = "unknown"  # the answer does not show it


class _MisrouteKind(enum.Enum):
    """What became of a misrouted request."""

    RETRIED = "retried"  # the largest pool answered it
    REFUSED = "refused"  # the client got the refusal
    CLAMPED = "clamped"  # the client got a shorter answer
    HARMLESS = "harmless"  # the answer was complete all the same


@dataclass(slots=True)
class _PendingRequest:
    """A request whose body is still arriving."""

    endpoint: Endpoint
    headers: Mapping[str, str]
    hides_usage: bool  # Envoy removes from the answer what is asked for here
    body: bytes | bytearray = field(default_factory=bytearray)
    whole: bool = False  # Envoy accepts another body in its place

    @property
    def replaceable(self) -> bool:
        """Whether a field can be added to the body."""
        utf16 = b"\0" in self.body[:4]  # or UTF-32
        plain = not utf16 and not self.headers.get("content-encoding")
        return self.whole and plain and len(self.body) <= _MOST_REPLACED_BYTES


def create_series(stages: Stages) -> None:
    """Create the counters of each pool at 0, so that rate() sees the first increment."""
    metrics = stages.metrics
    for pool in stages.rules.pools:
        for verdict in Verdict:
            metrics.verdicts.labels(pool.name, verdict.value)
        for cause in _RetryCause:
            metrics.retries.labels(pool.name, cause.value)
    for pool in stages.rules.pools[:-1]:
        for kind in _MisrouteKind:
            metrics.misroutes.labels(pool.name, kind.value)
    for outcome in ("learnt", "refused", "no_output", *(each.value for each in Unlearnable)):
        metrics.answers.labels(outcome)


class Exchange:
    """One request and its answer, or the half of them that this stream carries.

    Pass each event to `on`, then call `finish`, however the stream ended.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._request: _PendingRequest | None = None
        self._routed: Routed | None = None
        self._answer: PendingAnswer | None = None
        self._usage_form = UsageForm.OTHER

    @property
    def awaits_request(self) -> bool:
        """Whether a request's body is still arriving."""
        return self._request is not None

    @property
    def awaits_chunks(self) -> bool:
        """Whether a request's body of unstated length is still arriving."""
        return self._request is not None and "content-length" not in self._request.headers

    def on(self, event: Event) -> Action:
        """Return the action on an event."""
        if isinstance(event, FlowControl):
            return _PROCEED
        if event.direction is Direction.REQUEST:
            return self._on_request(event)
        self._on_answer(event)
        return _PROCEED

    def _on_request(self, event: Head | Body | Trailers) -> Action:
        if isinstance(event, Head):
            if not event.observed:
                return self._begin(event)
            self._routed = from_note(event.note, self._stages.rules)
            self._usage_form = usage_from_note(event.note)
        elif self._request and isinstance(event, Body):
            return self._read(self._request, event)
        elif self._request:
            return self._decide(self._request)
        return _PROCEED

    def _on_answer(self, event: Head | Body | Trailers) -> None:
        if isinstance(event, Head):
            self._answer = PendingAnswer(event)
        elif self._answer is None:
            return
        elif isinstance(event, Body):
            self._answer.feed(event.data)
        elif event.spent is None:
            self._answer.reader.tell_none()
        else:
            self._answer.reader.tell(*structs.astuple(event.spent))

    def finish(self) -> None:
        """Judge the decision and learn from the answer; idempotent, and never waits."""
        routed, answer = self._routed, self._answer
        self._request = self._routed = self._answer = None
        if routed is None or answer is None or not routed.reason.is_read:
            return
        rules, retried = self._stages.rules, answer.attempts > 1
        # Envoy's second attempt goes to the largest pool.
        pool = rules.pools[-1] if retried else rules.pool(routed.pool)
        outcome = answer.reader.finish()
        asking, model = self._stages.usage_asking, routed.asked.model
        asking.learn(pool.name, model, self._usage_form, answer.shows(outcome))
        cause = self._conclude(routed, pool, outcome)
        if retried:
            self._stages.metrics.retries.labels(routed.pool, cause.value).inc()

    def _conclude(
        self, routed: Routed, pool: Pool, outcome: Usage | Refused | Unlearnable
    ) -> _RetryCause:
        """Judge the answer of `pool`; return why another pool may have been asked before it."""
        match outcome:
            case Usage() as usage:
                return self._answered(routed, pool, usage)
            case Refused():
                self._count("refused")
                self._misrouted(routed, _MisrouteKind.REFUSED, 1)
                # Seen of every request, whether it was asked for its usage or not.
                self._stages.learn(Observation(routed.asked, Outcome.REFUSED, pool.max_model_len))
                return _RetryCause.MISROUTED
            case reason:
                self._count(reason.value)
                return _RetryCause.UNKNOWN

    def _begin(self, head: Head) -> Action:
        kind = endpoint(head.headers.get(":path", ""))
        if kind is None or head.end_of_stream or head.headers.get(":method") != "POST":
            self._stages.metrics.unread.inc()
            return _PROCEED
        if self._stages.is_late():
            return self._go(route_by_size(_plain_bytes(head.headers), self._stages.rules))
        self._request = _PendingRequest(kind, head.headers, head.note.get(HIDES_USAGE) is True)
        return Wait()

    def _read(self, pending: _PendingRequest, body: Body) -> Action:
        if body.end_of_stream and not pending.body:
            pending.body = body.data  # whole, so not copied: it may have 32 MiB
        else:
            pending.body += body.data
        pending.whole = body.whole
        if len(pending.body) > self._stages.rules.max_body_bytes:
            return self._unreadable(Unreadable.TOO_LARGE)
        return self._decide(pending) if body.end_of_stream else Wait()

    def _decide(self, pending: _PendingRequest) -> Action:
        stages = self._stages
        rules, start = stages.rules, stages.clock()
        encoding = pending.headers.get("content-encoding", "")
        try:
            request = read_request(
                pending.endpoint, bytes(pending.body), encoding, max_bytes=rules.max_body_bytes
            )
        except UnreadableRequest as error:
            return self._unreadable(error.reason)
        named = pending.headers.get(rules.category_header, "")
        tenant = rules.tenants.digest(pending.headers) if rules.tenants else ""
        routed = route(request, named, stages.learner, rules, tenant)
        action = self._see_to_usage(pending, routed) if request.usage_unstated else self._go(routed)
        stages.metrics.decision_seconds.observe(stages.clock() - start)
        return action

    def _see_to_usage(self, pending: _PendingRequest, routed: Routed) -> Proceed:
        may_ask = pending.hides_usage and pending.replaceable
        one_in = self._ask_one_in(routed) if may_ask else None
        self._usage_form = UsageForm.ASKED if one_in else UsageForm.UNASKED
        action = self._go(structs.replace(routed, stands_for=one_in or 1))
        action = structs.replace(action, note={**action.note, **usage_note(self._usage_form)})
        return self._with_usage(pending, action) if one_in else action

    def _ask_one_in(self, routed: Routed) -> int | None:
        """Return of how many such requests this one is asked for its usage; None if it is not."""
        stages, rules = self._stages, self._stages.rules
        share = rules.usage_sample
        if share == 0:
            return None
        informative = is_informative(routed.budget, rules.pools)
        one_in = 1 if informative else stages.sampling.one_in(share)
        drawn = one_in == 1 or stages.draw() * one_in < 1.0
        may_ask = drawn and stages.usage_asking.may_ask(routed.pool, routed.asked.model)
        return one_in if may_ask else None

    def _with_usage(self, pending: _PendingRequest, action: Proceed) -> Proceed:
        self._stages.metrics.usage_asked.inc()
        body = ask_for_usage(bytes(pending.body))
        length = {"content-length": str(len(body))} if "content-length" in pending.headers else {}
        return Proceed({**action.set_headers, **length}, {**action.note, HIDE_USAGE: True}, body)

    def _unreadable(self, reason: Unreadable) -> Proceed:
        self._stages.metrics.unreadable.labels(reason.value).inc()
        return self._go(route_unread(self._stages.rules))

    def _go(self, routed: Routed) -> Proceed:
        self._request, self._routed = None, routed
        metrics = self._stages.metrics
        metrics.decisions.labels(
            routed.pool,
            self._stages.learner.label(routed.asked),
            routed.reason.value,
            routed.budget.basis.value,
        ).inc()
        metrics.sequences.labels(routed.pool).inc(routed.asked.sequences)
        self._stages.decided(routed)
        return Proceed(set_headers=decision_headers(routed), note=to_note(routed))

    def _answered(self, routed: Routed, pool: Pool, usage: Usage) -> _RetryCause:
        counts = usage.prompt_tokens, usage.completion_tokens
        window, times = pool.max_model_len, routed.stands_for
        seen = Observation(routed.asked, Outcome.COMPLETE, window, *counts, times)
        cut = _is_cut(seen, usage.finish)
        if cut:
            seen = structs.replace(seen, outcome=Outcome.CUT)
        verdict = self._judge(routed, seen)
        if verdict is Verdict.MISROUTED:
            here = _MisrouteKind.CLAMPED if cut else _MisrouteKind.HARMLESS
            kind = here if pool.name == routed.pool else _MisrouteKind.RETRIED
            self._misrouted(routed, kind, routed.stands_for)
        if _teaches(routed, usage):
            self._count("learnt")
            self._stages.learn(seen)
        else:
            self._count("no_output")
        return _RetryCause.MISROUTED if verdict is Verdict.MISROUTED else _RetryCause.FAILED

    def _judge(self, routed: Routed, seen: Observation) -> Verdict:
        metrics, pools = self._stages.metrics, self._stages.rules.pools
        verdict = judge(routed.pool, seen.needed, pools, seen.used)
        metrics.verdicts.labels(routed.pool, verdict.value).inc(seen.stands_for)
        error = routed.budget.prompt_tokens / seen.largest_prompt - 1
        errors = metrics.budget_error.labels(self._stages.learner.label(routed.asked))
        for _ in range(seen.stands_for):
            errors.observe(error)
        return verdict

    def _misrouted(self, routed: Routed, kind: _MisrouteKind, times: int) -> None:
        if routed.pool != self._stages.rules.pools[-1].name:
            self._stages.metrics.misroutes.labels(routed.pool, kind.value).inc(times)

    def _count(self, outcome: str) -> None:
        self._stages.metrics.answers.labels(outcome).inc()


def _plain_bytes(headers: Mapping[str, str]) -> int | None:
    """Return the length of the body as the pool reads it; None if the headers do not tell."""
    stated = headers.get("content-length", "")
    if headers.get("content-encoding", "").strip().lower() not in {"", "identity"}:
        return None
    is_number = stated.isascii() and stated.isdigit() and len(stated) <= _MOST_LENGTH_DIGITS
    return int(stated) if is_number else None


def _teaches(routed: Routed, usage: Usage) -> bool:
    """Return whether the prompt was counted, and as it was sent."""
    return is_answered(routed.asked, usage.completion_tokens) and not routed.truncates


def _is_cut(seen: Observation, finish: Finish) -> bool:
    """Return whether a limit ended the answer, by its counts if it does not state why it ended."""
    if finish is not Finish.UNTOLD:
        return finish is Finish.LENGTH
    room, stated = seen.window - seen.largest_prompt, seen.asked.output_limit
    # Of several sequences the longest may have had all tokens but one for each other.
    longest = seen.completion_tokens - (seen.asked.sequences - 1)
    return stated != 0 and longest >= min(stated or room, room)
