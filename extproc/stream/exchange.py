"""One request, from its headers to what its answer teaches.

Invariant: on any doubt a request passes on unchanged, to the largest pool, and is counted.
"""

import enum
import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from msgspec import structs

from extproc.budget.estimate import Basis
from extproc.budget.values import Observation, Outcome
from extproc.names import HIDE_USAGE, HIDES_USAGE, NOTE, UNDECIDED
from extproc.request.reader import (
    Endpoint,
    Request,
    Unreadable,
    UnreadableRequest,
    endpoint,
    read_request,
)
from extproc.response.reader import Finish, Refused, Unlearnable, Usage
from extproc.routing.ask import is_answered
from extproc.routing.pools import Pool, Reason, Verdict, judge_moved
from extproc.routing.route import (
    Estimating,
    Moving,
    Routed,
    is_informative,
    route,
    route_by_size,
    route_unread,
)
from extproc.stream.answer import PendingAnswer
from extproc.stream.decision import (
    Noted,
    ask_for_usage,
    brief_from_note,
    from_note,
    note_text,
    to_note,
)
from extproc.stream.replies import NOTHING, Note
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
from extproc.stream.stages import Stages
from extproc.stream.usage_asking import UsageForm

_PROCEED = Proceed()
_WAIT = Wait()
_MOST_LENGTH_DIGITS = 18
_LETTER = re.compile(rb"\\u00(?:5[fF]|6[1-9a-fA-F]|7[0-4])")  # `_`, or one from a to t
_MOST_REPLACED_BYTES = 1 << 20  # a body with our field is sent back to Envoy: bounds the copy

_Chosen = TypeVar("_Chosen")


class RetryCause(enum.Enum):
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


class _Lesson(enum.Enum):
    """What an answer that could be read taught; Unlearnable says why another one taught nothing."""

    LEARNT = "learnt"
    REFUSED = "refused"
    NO_OUTPUT = "no_output"


class PendingRequest:
    """A request whose body is still arriving."""

    __slots__ = ("body", "endpoint", "headers", "hides_usage", "pieces", "whole")

    def __init__(
        self, endpoint: Endpoint, headers: Mapping[str, str], *, hides_usage: bool
    ) -> None:
        self.endpoint = endpoint
        self.headers = headers
        self.hides_usage = hides_usage  # Envoy removes from the answer what is asked for here
        self.pieces: bytearray | None = None  # of a body that comes in several
        self.body: bytes | bytearray | memoryview = b""
        self.whole = False  # Envoy accepts another body in its place

    @property
    def replaceable(self) -> bool:
        """Whether a field can be added to the body."""
        utf16 = b"\0" in bytes(self.body[:4])  # or UTF-32
        plain = not utf16 and not self.headers.get("content-encoding")
        if not self.whole or not plain or len(self.body) > _MOST_REPLACED_BYTES:
            return False
        # An error that quotes it would name the field, also if it is spelt with escapes.
        body = bytes(self.body)
        named = b"stream_options" in body or (b"\\u00" in body and _LETTER.search(body))
        return not named


def create_series(stages: Stages) -> None:
    """Create the counters of each pool at 0, so that rate() sees the first increment."""
    metrics = stages.metrics
    for pool in stages.rules.pools:
        for verdict in Verdict:
            metrics.verdicts.labels(pool.name, verdict.value)
        for cause in RetryCause:
            metrics.retries.labels(pool.name, cause.value)
    for row in stages.rules.each_row:
        for pool in row[:-1]:
            for kind in _MisrouteKind:
                metrics.misroutes.labels(pool.name, kind.value)
    for outcome in (*_Lesson, *Unlearnable):
        metrics.answers.labels(outcome.value)


class Exchange:
    """One request and its answer, or the half of them that this stream carries.

    Pass each event to `on`, then call `finish`, however the stream ended.
    """

    __slots__ = ("_answer", "_noted", "_request", "_stages")

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._request: PendingRequest | None = None
        # None: the answer is not observed. As text, in a fifth of the memory, if another stream has
        # decided: an answer may take minutes.
        self._noted: Noted | str | None = None
        self._answer: PendingAnswer | None = None

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
                return self.begin(event.headers, event.note, ends=event.end_of_stream)
            self._take_note(event)
        elif self._request and isinstance(event, Body):
            return self._read(self._request, event)
        elif self._request:
            return self._decide(self._request, self._choose)
        return _PROCEED

    def _on_answer(self, event: Head | Body | Trailers) -> None:
        if isinstance(event, Head):
            self._take_note(event)
            if self._noted:
                self._answer = PendingAnswer(event)
                if self._answer.calls_request_wrong:
                    self._note_wrong(self._noted, self._answer)
        elif self._answer is None:
            return
        elif isinstance(event, Body):
            self._answer.feed(event.data)
        elif event.spent is None:
            self._answer.reader.tell_none()
        else:
            self._answer.reader.tell(*structs.astuple(event.spent))

    def _take_note(self, head: Head) -> None:
        """Read the note of the router's stream, with the first headers that this one gets."""
        if head.observed and self._noted is None:
            self._noted = note_text(head.note)

    def _note_wrong(self, noted: Noted | str, answer: PendingAnswer) -> None:
        # Of an observer that gets no bodies, the stream ends seconds after the answer.
        read = from_note({NOTE: noted}, self._stages.rules) if isinstance(noted, str) else noted
        self._noted = read
        if read is not None and read.usage is UsageForm.ASKED:
            pool = self._answering_pool(read, answer)
            self._stages.usage_asking.note_wrong(pool.name, read.asked.model)

    def _is_retried(self, answer: PendingAnswer) -> bool:
        # In a shadow Envoy's second attempt is one to the same pool.
        return answer.attempts > 1 and not self._stages.rules.is_shadow

    def _answering_pool(self, noted: Noted, answer: PendingAnswer) -> Pool:
        rules = self._stages.rules
        # A second attempt goes to the largest pool of the row.
        largest = self._is_retried(answer) or rules.is_shadow
        return rules.row(noted.asked.model)[-1] if largest else rules.pool(noted.pool)

    def finish(self) -> None:
        """Judge the decision and learn from the answer; idempotent, and never waits."""
        noted, answer = self._noted, self._answer
        self._request = self._noted = self._answer = None
        if noted is None or answer is None:
            return
        outcome = answer.reader.finish()
        if isinstance(noted, str):
            teaches = not isinstance(outcome, Unlearnable)
            rules = self._stages.rules
            noted = from_note({NOTE: noted}, rules) if teaches else brief_from_note(noted, rules)
        if noted is None:
            return
        pool = self._answering_pool(noted, answer)
        asking, model = self._stages.usage_asking, noted.asked.model
        asking.learn(pool.name, model, noted.usage, answer.shows(outcome))
        cause = self._conclude(noted, pool, outcome)
        if self._is_retried(answer):
            retries = self._stages.metrics.retries
            retries.count(noted.pool, cause.value, times=noted.stands_for)

    def _conclude(
        self, noted: Noted, pool: Pool, outcome: Usage | Refused | Unlearnable
    ) -> RetryCause:
        """Judge the answer of `pool`; return why another pool may have been asked before it."""
        match outcome:
            case Usage() as usage:
                return self._answered(noted, pool, usage)
            case Refused():
                self._count(_Lesson.REFUSED, noted)
                self._misrouted(noted, _MisrouteKind.REFUSED)
                self._stages.learn(
                    Observation(
                        noted.asked,
                        Outcome.REFUSED,
                        pool.max_model_len,
                        stands_for=noted.stands_for,
                    )
                )
                return RetryCause.MISROUTED
            case reason:
                self._count(reason, noted)
                return RetryCause.UNKNOWN

    def begin(self, headers: Mapping[str, str], note: Note, *, ends: bool = False) -> Action:
        """Return the action on the headers of a request; `ends`: it has no body."""
        kind = endpoint(headers.get(":path", ""))
        if kind is None or ends or headers.get(":method") != "POST":
            self._stages.metrics.unread.count()
            return _PROCEED
        if self._stages.is_late():
            return self._go(route_by_size(_plain_bytes(headers), self._stages.rules))
        self._request = PendingRequest(kind, headers, hides_usage=note.get(HIDES_USAGE) is True)
        return _WAIT

    def read_whole(self, body: bytes | memoryview) -> Proceed | bytes:
        """Return the action on a body that came whole, behind headers that wait for it.

        Bytes are the reply itself.
        """
        pending = self._request
        assert pending is not None, "begin has returned Wait"  # noqa: S101 - for the type
        pending.body, pending.whole = body, True
        return self._decide(pending, self._choose_plain)

    def _read(self, pending: PendingRequest, body: Body) -> Action:
        if body.end_of_stream and not pending.pieces:
            pending.body = body.data  # whole, so not copied: it may have 32 MiB
        else:
            if pending.pieces is None:
                pending.pieces = bytearray()
            pending.pieces += body.data
            pending.body = pending.pieces
        pending.whole = body.whole
        if body.end_of_stream or len(pending.body) > self._stages.rules.max_body_bytes:
            return self._decide(pending, self._choose)
        return _WAIT

    def _decide(
        self, pending: PendingRequest, choose: Callable[[PendingRequest, Request], _Chosen]
    ) -> _Chosen | Proceed:
        stages, start = self._stages, self._stages.clock()
        if len(pending.body) > stages.rules.max_body_bytes:
            return self._unreadable(Unreadable.TOO_LARGE)
        try:
            request = self._read_body(pending)
        except UnreadableRequest as error:
            return self._unreadable(error.reason)
        chosen = choose(pending, request)
        stages.metrics.decision_seconds.count(stages.clock() - start)
        return chosen

    def _choose(self, pending: PendingRequest, request: Request) -> Proceed:
        routed = self._route(pending, request, self._stages.learner)
        if not routed.pool:
            return self._go(routed)
        told = is_informative(routed.budget, routed.row)
        one_in = self._observe_one_in(is_informative=told)
        return self._answer_for(pending, request, routed, one_in)

    def _choose_plain(self, pending: PendingRequest, request: Request) -> Proceed | bytes:
        """Choose in one step if the text alone decides, and mostly encode the reply at once."""
        stages, router = self._stages, self._stages.plain_router
        if router is None:
            return self._choose(pending, request)
        named = pending.headers.get(stages.rules.category_header, "")
        found = router.decide(request, named, stages.learner)
        if found is None:
            return self._choose(pending, request)
        one_in = self._observe_one_in(is_informative=found.is_informative)
        if one_in is not None:
            return self._answer_for(pending, request, router.collect(request, found), one_in)
        self._request = None
        label = stages.learner.label_of(found.category_name)
        self._count_decision(found.pool.name, label, found.reason, found.budget.basis)
        collect = partial(router.collect, request, found)
        stages.decided(found.pool.name, found.reason, collect)
        return stages.replies.encode(found, collect)

    def _read_body(self, pending: PendingRequest) -> Request:
        """Return what the body says. Raises UnreadableRequest."""
        rules = self._stages.rules
        return read_request(
            pending.endpoint,
            pending.body,
            pending.headers.get("content-encoding", ""),
            max_bytes=rules.max_body_bytes,
            turns=self._stages.reads_turns,
        )

    def _route(self, pending: PendingRequest, request: Request, learner: Estimating) -> Routed:
        stages, rules = self._stages, self._stages.rules
        named = pending.headers.get(rules.category_header, "")
        tenant = rules.tenants.digest(pending.headers) if rules.tenants else ""
        session = pending.headers.get(rules.sticky.header, "") if rules.sticky else ""
        moving = Moving(stages.spill, stages.sticky_pools, session)
        return route(request, named, learner, rules, tenant, moving=moving)

    def _answer_for(
        self, pending: PendingRequest, request: Request, routed: Routed, one_in: int | None
    ) -> Proceed:
        if one_in is None:
            return self._go(routed)
        unstated = request.usage_unstated
        may_ask = unstated and self._may_ask(pending, routed)
        unasked = UsageForm.UNASKED if unstated else UsageForm.OTHER
        form = UsageForm.ASKED if may_ask else unasked
        action = self._go(routed, Noted.of(routed, one_in, form, pending.endpoint))
        return self._with_usage(pending, action) if may_ask else action

    def _observe_one_in(self, *, is_informative: bool) -> int | None:
        """Return of how many such requests this one is observed; None if it is not.

        What is known of the request decides, never its answer: so the one stands for all of them.
        """
        if is_informative:
            return 1
        stages = self._stages
        one_in = stages.sampling.one_in(stages.rules.observe_sample)
        return one_in if one_in == 1 or stages.draw() * one_in < 1.0 else None

    def _may_ask(self, pending: PendingRequest, routed: Routed) -> bool:
        """Return whether to ask for the usage of an observed stream that does not state it."""
        may_add = self._stages.rules.asks_usage and pending.hides_usage and pending.replaceable
        asking = self._stages.usage_asking
        return may_add and asking.may_ask(routed.pool, routed.asked.model)

    def _with_usage(self, pending: PendingRequest, action: Proceed) -> Proceed:
        self._stages.metrics.usage_asked.count()
        body = ask_for_usage(bytes(pending.body))
        length = {"content-length": str(len(body))} if "content-length" in pending.headers else {}
        return Proceed({**action.set_headers, **length}, {**action.note, HIDE_USAGE: True}, body)

    def _unreadable(self, reason: Unreadable) -> Proceed:
        self._stages.metrics.unreadable.count(reason.value)
        return self._go(route_unread(self._stages.rules))

    def _go(self, routed: Routed, noted: Noted | None = None) -> Proceed:
        self._request, self._noted = None, noted
        stages, label = self._stages, self._stages.learner.label(routed.asked)
        sequences = routed.asked.sequences
        self._count_decision(routed.pool, label, routed.reason, routed.budget.basis, sequences)
        if stages.spill is not None and routed.pool:
            stages.spill.count(routed.pool)
        stages.decided(routed.pool, routed.reason, lambda: routed)
        if noted:
            stages.metrics.observed.count()
        return Proceed(stages.headers(routed), to_note(noted) if noted else NOTHING)

    def _count_decision(
        self, pool: str, label: str, reason: Reason, basis: Basis, sequences: int = 1
    ) -> None:
        metrics = self._stages.metrics
        metrics.decisions.count(pool or UNDECIDED, label, reason, basis)
        metrics.sequences.count(pool or UNDECIDED, times=sequences)

    def _answered(self, noted: Noted, pool: Pool, usage: Usage) -> RetryCause:
        self._stages.spent(noted, pool, usage)
        counts = usage.prompt_tokens, usage.completion_tokens
        window, times = pool.max_model_len, noted.stands_for
        seen = Observation(noted.asked, Outcome.COMPLETE, window, *counts, times)
        cut = _is_cut(seen, usage.finish)
        if cut:
            seen = structs.replace(seen, outcome=Outcome.CUT)
        verdict = self._judge(noted, seen)
        if verdict is Verdict.MISROUTED:
            self._misrouted(noted, self._kind(noted, pool, cut=cut))
        if _teaches(noted, usage):
            self._count(_Lesson.LEARNT, noted)
            self._stages.learn(seen)
        else:
            self._count(_Lesson.NO_OUTPUT, noted)
        return RetryCause.MISROUTED if verdict is Verdict.MISROUTED else RetryCause.FAILED

    def _kind(self, noted: Noted, pool: Pool, *, cut: bool) -> _MisrouteKind:
        """Return what became of a misrouted request that `pool` has answered."""
        if self._stages.rules.is_shadow:
            return _MisrouteKind.HARMLESS
        if pool.name != noted.pool:
            return _MisrouteKind.RETRIED
        return _MisrouteKind.CLAMPED if cut else _MisrouteKind.HARMLESS

    def _judge(self, noted: Noted, seen: Observation) -> Verdict:
        metrics, pools = self._stages.metrics, self._stages.rules.row(noted.asked.model)
        home = noted.home or noted.pool
        verdict = judge_moved(noted.pool, home, seen.needed, pools, seen.used)
        metrics.verdicts.count(noted.pool, verdict.value, times=seen.stands_for)
        error = noted.prompt_tokens / seen.largest_prompt - 1
        label = self._stages.learner.label(noted.asked)
        metrics.budget_error.count(error, label, times=seen.stands_for)
        return verdict

    def _misrouted(self, noted: Noted, kind: _MisrouteKind) -> None:
        if noted.pool != self._stages.rules.row(noted.asked.model)[-1].name:
            misroutes = self._stages.metrics.misroutes
            misroutes.count(noted.pool, kind.value, times=noted.stands_for)

    def _count(self, outcome: _Lesson | Unlearnable, noted: Noted) -> None:
        self._stages.metrics.answers.count(outcome.value, times=noted.stands_for)


def _plain_bytes(headers: Mapping[str, str]) -> int | None:
    """Return the length of the body as the pool reads it; None if the headers do not tell."""
    stated = headers.get("content-length", "")
    if headers.get("content-encoding", "").strip().lower() not in {"", "identity"}:
        return None
    is_number = stated.isascii() and stated.isdigit() and len(stated) <= _MOST_LENGTH_DIGITS
    return int(stated) if is_number else None


def _teaches(noted: Noted, usage: Usage) -> bool:
    """Return whether the prompt was counted, and as it was sent."""
    return is_answered(noted.asked, usage.completion_tokens) and not noted.truncates


def _is_cut(seen: Observation, finish: Finish) -> bool:
    """Return whether a limit ended the answer, by its counts if it does not state why it ended."""
    if finish is not Finish.UNTOLD:
        return finish is Finish.LENGTH
    room, stated = seen.window - seen.largest_prompt, seen.asked.output_limit
    # Of several sequences the sum alone is known. The longest is taken to have their mean, and as
    # much again each time that their number doubles: those that reach a window are then about as
    # many as by their true longest, if outputs are log-normal with a deviation of 1.
    sequences = seen.asked.sequences
    longest = seen.completion_tokens / sequences * (1 + math.log2(sequences))
    return stated != 0 and longest >= min(stated or room, room)
