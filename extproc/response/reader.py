"""Read the tokens that an answer used from its bytes, in pieces of any size.

Invariants: an answer teaches only if its own bytes show that it is complete, as a JSON document
that ends or an event stream with its last event. Nothing here raises, and memory is bounded.
"""

from collections.abc import Iterator
from typing import Final, Protocol

from extproc.encoding import Decoder, EncodingError
from extproc.frozen import Frozen
from extproc.response.refusal import is_refusal, states_refusal
from extproc.response.sse import Event, EventReader
from extproc.response.usage import (
    Finish,
    Record,
    Tally,
    Unlearnable,
    Usage,
    read_record,
    usage_by_envoy,
)

__all__ = ["Finish", "Refused", "Unlearnable", "Usage", "UsageReader"]

MAX_DOCUMENT_BYTES: Final = 8 << 20
"""The longest JSON answer that is read, in bytes after decompression."""


class Refused(Frozen, frozen=True):
    """The pool answered that the prompt, or prompt plus output, exceeds its window."""

    status: int


class _AnswerBody(Protocol):
    @property
    def done(self) -> bool:
        """Whether further bytes cannot change the outcome."""

    def feed(self, piece: bytes) -> None: ...

    def conclude(self) -> Usage | Refused | Unlearnable: ...


class UsageReader:
    """Reads one answer: create it from the head, feed it the body, `finish` returns the outcome."""

    __slots__ = ("_body", "_decoder", "_is_fed", "_status")

    def __init__(self, status: int, content_type: str, content_encoding: str = "") -> None:
        self._status = status
        self._is_fed = False
        self._body = _body(status, content_type)
        self._decoder: Decoder | None = None
        if content_encoding.strip().lower() not in {"", "identity"}:
            self._choose_decoder(content_encoding)

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the body as they were sent. Never raises."""
        self._is_fed = True
        if self._body.done:
            return
        if self._decoder is None:
            self._body.feed(data)
            return
        try:
            self._feed_decoded(self._decoder.feed(data))
        except EncodingError:
            self._give_up(Unlearnable.ENCODING)

    def tell(self, prompt_tokens: int, completion_tokens: int, cached_tokens: int) -> None:
        """Take the counts that Envoy read from the body, which is then not read here."""
        if _is_success(self._status):
            usage = usage_by_envoy(prompt_tokens, completion_tokens, cached_tokens)
            self._body = _Concluded(usage)

    def tell_none(self) -> None:
        """Note that the answer ended and that Envoy found no usage in it."""
        if not self._is_fed:
            self._give_up(Unlearnable.ABSENT)

    def finish(self) -> Usage | Refused | Unlearnable:
        """Return the outcome of all that was fed; nothing changes it from here on."""
        outcome = self._body.conclude()
        self._body = _Concluded(outcome)
        return outcome

    def _feed_decoded(self, pieces: Iterator[bytes]) -> None:
        decoded = 0
        for piece in pieces:
            decoded += len(piece)
            if decoded > MAX_DOCUMENT_BYTES:  # a bomb costs time even if it costs no memory
                self._give_up(Unlearnable.TOO_LARGE)
            self._body.feed(piece)
            if self._body.done:
                break

    def _choose_decoder(self, content_encoding: str) -> None:
        try:
            self._decoder = Decoder(content_encoding)
        except EncodingError:
            self._give_up(Unlearnable.ENCODING)

    def _give_up(self, reason: Unlearnable) -> None:
        self._body = _Concluded(reason if _is_success(self._status) else Unlearnable.ERROR)


class _Concluded(Frozen, frozen=True):
    """An outcome that is final."""

    outcome: Usage | Refused | Unlearnable

    @property
    def done(self) -> bool:
        return True

    def feed(self, piece: bytes) -> None:
        """Ignore the bytes."""

    def conclude(self) -> Usage | Refused | Unlearnable:
        return self.outcome


class _JsonAnswer:
    """A JSON answer: buffered up to the bound, read at its end."""

    __slots__ = ("_kept", "done")

    def __init__(self) -> None:
        self._kept = bytearray()
        self.done = False

    def feed(self, piece: bytes) -> None:
        self.done = len(self._kept) + len(piece) > MAX_DOCUMENT_BYTES
        if self.done:
            self._kept.clear()
        else:
            self._kept += piece

    def conclude(self) -> Usage | Refused | Unlearnable:
        if self.done:
            return Unlearnable.TOO_LARGE
        record = read_record(self._kept)
        if record is None:
            return Unlearnable.INCOMPLETE
        if record.error is not None:
            return Refused(_OK) if states_refusal(record) else Unlearnable.ERROR
        tally = Tally()
        tally.open(record)
        tally.add(record)
        return tally.usage()


class _ErrorAnswer(_JsonAnswer):
    """The body of a 4xx or 5xx answer: a refusal for length, or another error."""

    __slots__ = ("_status",)

    def __init__(self, status: int) -> None:
        super().__init__()
        self._status = status

    def conclude(self) -> Usage | Refused | Unlearnable:
        return Refused(self._status) if is_refusal(self._kept) else Unlearnable.ERROR


_OK: Final = 200
_MILESTONES: Final = frozenset(
    {
        "message_start",
        "message_delta",
        "message_stop",
        "error",
        "response.failed",
        "response.completed",  # vLLM's last event, whatever status it states
        "response.incomplete",
        "message-end",
    }
)
"""The event types that carry usage or an end: of Anthropic messages, Responses, Cohere's chats."""


class _EventStream:
    """An event stream: each event is read as it passes, none is buffered."""

    __slots__ = ("_events", "_failure", "_has_usage_event", "_tally", "done")

    def __init__(self) -> None:
        self._events = EventReader()
        self._tally = Tally()
        self._failure: Refused | Unlearnable | None = None
        self._has_usage_event = False  # the last event was one
        self.done = False

    def feed(self, piece: bytes) -> None:
        for event in self._events.feed(piece):
            self._take(event)

    def conclude(self) -> Usage | Refused | Unlearnable:
        for event in self._events.finish():
            self._take(event)
        if self._failure is not None:
            return self._failure
        complete = self.done or self._has_usage_event
        return self._tally.usage() if complete else Unlearnable.INCOMPLETE

    def _take(self, event: Event) -> None:
        kind, data = event
        if self.done:
            return
        if data.strip() == b"[DONE]":
            self.done = True
        elif kind == b"error":
            self._fail(read_record(data) or Record())
        elif record := read_record(data):
            self._learn(record)

    def _learn(self, record: Record) -> None:
        if record.error is not None or record.error_type is not None:
            self._fail(record)
        elif record.type in _MILESTONES:
            self._learn_milestone(record)
        else:
            self._tally.add(record)
            # OpenAI's last event but for [DONE], which some servers leave out.
            self._has_usage_event = record.choices == [] and record.states_usage

    def _learn_milestone(self, record: Record) -> None:
        match record:
            case Record(type="message_start", message=Record() as message):
                self._tally.open(message)
            case Record(type="message_delta", delta=Record() as delta):
                self._tally.add(record)
                self._tally.add(delta)
            case Record(type="message-end", delta=Record(error=None) as delta):
                self._tally.add(delta)
                self.done = True
            case Record(type="message-end", delta=Record() as delta):
                self._fail(delta)
            case Record(type="message_stop"):
                self.done = True
            case Record(type="response.failed", response=Record() as response):
                self._fail(response)
            case Record(type="error" | "response.failed"):
                self._fail(record)
            case Record(response=Record(error=None) as response):
                self._tally.add(response)
                self.done = True
            case Record(response=Record() as response):
                self._fail(response)

    def _fail(self, record: Record) -> None:
        self._failure = Refused(_OK) if states_refusal(record) else Unlearnable.ERROR
        self.done = True


def _is_success(status: int) -> bool:
    return 200 <= status < 300


def _body(status: int, content_type: str) -> _AnswerBody:
    if 400 <= status < 600:
        return _ErrorAnswer(status)
    if not _is_success(status):
        return _Concluded(Unlearnable.ERROR)
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "text/event-stream":
        return _EventStream()
    if media_type.endswith("json") or not media_type:
        return _JsonAnswer()
    return _Concluded(Unlearnable.ABSENT)
