"""One ext_proc stream as a state machine without I/O: message to event, action to replies.

Invariants: Envoy gets exactly the replies that the protocol requires, in its order, whatever the
exchange decides and whenever. A message that is illegal here raises ProtocolError and changes
nothing. Envoy's external_processor.proto says what each body mode requires.
"""

import enum
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError

from extproc.frozen import Frozen
from extproc.names import NAMESPACE, USAGE_METADATA
from extproc.protos.envoy.config.core.v3.base_pb2 import HeaderMap
from extproc.protos.envoy.data.ai.v3.token_usage_pb2 import TokenUsage
from extproc.protos.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import (
    ProcessingMode,
)
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.stream.replies import NO_HEADERS, NOTHING, Note, chunk, reply

CHUNK_BYTES = 62_000
"""The longest full-duplex body chunk that is sent: below Envoy's 64 KiB flow-control window."""

_NOTED = ("string_value", "number_value", "bool_value")  # a Value may also have no kind at all
_ATTEMPTS = "upstream.request_attempt_count"
_MOST_ATTEMPTS = 1000.0  # an attribute is a double from outside: larger ones are not believed


class ProtocolError(Exception):
    """Envoy sent a message that the ext_proc protocol does not allow here."""


class Direction(enum.StrEnum):
    """Which half of the HTTP exchange a part belongs to."""

    REQUEST = "request"
    RESPONSE = "response"


class Head(Frozen, frozen=True):
    """Request or response headers; `note` is the routing filter's note on this request."""

    direction: Direction
    headers: Mapping[str, str]
    end_of_stream: bool
    note: Note = NOTHING
    observed: bool = False  # Envoy does not wait for a reply: nothing can be decided
    attempts: int = 1  # of a response: how many servers Envoy sent the request to


class Body(Frozen, frozen=True):
    """A piece of a body, or all of it if Envoy buffers; the last one has end_of_stream."""

    direction: Direction
    data: bytes
    end_of_stream: bool
    whole: bool = False  # Envoy holds all of it, and accepts another in its place


class Spent(Frozen, frozen=True):
    """The tokens of an answer as Envoy read them; 0 if unknown."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class Trailers(Frozen, frozen=True):
    """The end of a body with trailers: real ones, or those that Envoy adds to carry metadata."""

    direction: Direction
    spent: Spent | None = None


class FlowControl(Frozen, frozen=True):
    """A window update of Envoy's: it needs no reply and carries nothing for the exchange."""


Event = Head | Body | Trailers | FlowControl


class Wait(Frozen, frozen=True):
    """No decision yet: send only the replies that cannot be deferred."""


class Proceed(Frozen, frozen=True):
    """Release everything held in this direction.

    If headers are set, Envoy chooses the route again. The note reaches the observing filter. A body
    that came whole may be replaced; the caller then sets its content-length, if it has one.
    """

    set_headers: Mapping[str, str] = NO_HEADERS
    note: Note = NOTHING
    body: bytes | None = None


Action = Wait | Proceed

_PROCEED: Final = Proceed()


class _MessagePart(enum.IntEnum):
    NOTHING = 0
    HEADERS = 1
    BODY = 2
    TRAILERS = 3


_NOTHING, _HEADERS, _BODY, _TRAILERS = _MessagePart
_KINDS: Final = {
    f"{direction.value}_{part.name.lower()}": (direction, part)
    for direction in Direction
    for part in (_HEADERS, _BODY, _TRAILERS)
}
_NAMES: Final = {key: name for name, key in _KINDS.items()}
_BUFFERED: Final = (ProcessingMode.BUFFERED, ProcessingMode.BUFFERED_PARTIAL)


class _Mode:
    """How Envoy sends a body."""

    __slots__ = ("buffered", "deferrable", "duplex", "none", "whole")

    def __init__(self, mode: int, *, observing: bool, early: bool = False) -> None:
        """`early`: the body is sent before the headers are answered."""
        self.none = mode == ProcessingMode.NONE
        # There is at most one body message, and it is the whole body.
        self.buffered = mode in _BUFFERED and not observing
        self.whole = mode == ProcessingMode.BUFFERED and not observing
        # The reply must carry the bytes of the body.
        self.duplex = mode == ProcessingMode.FULL_DUPLEX_STREAMED and not observing
        # The reply to the headers may wait for the body.
        self.deferrable = self.duplex or (early and mode == ProcessingMode.STREAMED)


class _Modes:
    """The modes of a stream; streams of one filter share them. Raises ProtocolError."""

    __slots__ = ("observing", "request", "response")

    def __init__(self, request: int, response: int, *, early: bool, observing: bool) -> None:
        if ProcessingMode.GRPC in (request, response):
            raise ProtocolError("body mode GRPC: this service reads JSON bodies")
        self.request = _Mode(request, observing=observing, early=early)
        self.response = _Mode(response, observing=observing)
        self.observing = observing


_known_modes = lru_cache(_Modes)


def _read_modes(message: ProcessingRequest) -> _Modes:
    """Return the modes that the first message of a stream states. Raises ProtocolError."""
    observing = message.observability_mode
    if not message.HasField("protocol_config"):
        # An Envoy older than protocol_config, or a test client, does not tell: nothing is refused.
        streamed = ProcessingMode.STREAMED
        return _known_modes(streamed, streamed, early=False, observing=observing)
    config = message.protocol_config
    return _known_modes(
        config.request_body_mode,
        config.response_body_mode,
        early=config.send_body_without_waiting_for_header_response,
        observing=observing,
    )


class _Side:
    """The progress of one direction, and which of its messages are still owed a reply."""

    __slots__ = ("direction", "ended", "held", "owed", "reached")

    def __init__(self, direction: Direction) -> None:
        self.direction = direction
        self.reached = _NOTHING
        self.ended = False
        self.owed: list[_MessagePart] = []
        self.held = bytearray()  # full duplex: bytes not passed on yet


class Session:
    """One stream: pass each message to `receive`, and the action on its event to `reply`."""

    __slots__ = ("_current", "_header_names", "_modes", "_released", "_request", "_response")

    def __init__(self, names: Collection[str] | None = None) -> None:
        """Read only the headers of these names, which are in lower case; None: all."""
        self._header_names = names
        self._modes: _Modes | None = None
        self._request, self._response = _Side(Direction.REQUEST), _Side(Direction.RESPONSE)
        # The side whose replies are due; None after a message of neither direction.
        self._current: _Side | None = self._request
        self._released = False  # the request was released

    @property
    def finished(self) -> bool:
        """Whether no message can follow that matters, so that the service can end the stream.

        A filter that sends no response body is there for the decision alone: the stream ends with
        the reply to it. Otherwise it would count against Envoy's limit of open streams for as long
        as the pool generates.
        """
        request, response = self._request, self._response
        if response.ended:
            return True
        if self._modes is None or self._modes.observing or request.owed:
            return False
        if not self._modes.response.none or response.reached:
            return False
        return request.ended or (self._released and self._modes.request.buffered)

    def receive(self, message: ProcessingRequest) -> Event:
        """Return the event of one message; raises ProtocolError if it is illegal here."""
        kind = message.WhichOneof("request")
        if kind is None:
            event = _flow_control(message)
            self._current = None
            return event
        direction, part = _KINDS[kind]
        modes = self._modes or _read_modes(message)
        if direction is Direction.REQUEST:
            side, mode = self._request, modes.request
        else:
            side, mode = self._response, modes.response
        if message.observability_mode != modes.observing:
            raise ProtocolError("observability_mode changes within a stream")
        _check_order(side, part, mode)
        if kind == "request_headers" and self._response.reached:
            raise ProtocolError("request headers after the response has begun")
        self._modes, self._current = modes, side
        side.reached = part
        # Pieces of a full-duplex body get one reply together.
        if not modes.observing and not (mode.duplex and part is _BODY and _BODY in side.owed):
            side.owed.append(part)
        if part is _HEADERS:
            return self._take_headers(side, message)
        if part is _BODY:
            return _take_body(side, mode, message)
        side.ended = True
        return Trailers(direction, read_spent(message))

    def reply(self, action: Action) -> list[bytes]:
        """Return the replies that are due after `action` on the event received last."""
        side, modes = self._current, self._modes
        if side is None or modes is None or modes.observing:
            return []
        mode = modes.request if side is self._request else modes.response
        if isinstance(action, Wait):
            return [] if mode.deferrable else _pay(side, mode, _PROCEED)
        self._released |= side is self._request
        return _pay(side, mode, action)

    def _take_headers(self, side: _Side, message: ProcessingRequest) -> Head:
        is_request = side is self._request
        headers = message.request_headers if is_request else message.response_headers
        side.ended = headers.end_of_stream
        found, note = _headers(headers.headers, self._header_names), read_note(message)
        observed = message.observability_mode
        return Head(side.direction, found, side.ended, note, observed, _attempts(message))


def _take_body(side: _Side, mode: _Mode, message: ProcessingRequest) -> Body:
    is_request = side.direction is Direction.REQUEST
    body = message.request_body if is_request else message.response_body
    side.ended, data = body.end_of_stream, body.body
    if mode.duplex:
        side.held += data
    # A buffered body is whole, though Envoy does not end the stream if trailers follow.
    return Body(side.direction, data, side.ended or mode.whole, mode.whole)


def _flow_control(message: ProcessingRequest) -> FlowControl:
    if message.HasField("client_window_update") or message.HasField("flow_control_init"):
        return FlowControl()
    raise ProtocolError("a message without a part of the request or the response")


def _check_order(side: _Side, part: _MessagePart, mode: _Mode) -> None:
    if side.ended:
        fault = f"{_words(side, part)} after the end of the {side.direction.value}"
    elif part < side.reached or (part is side.reached and part is not _BODY):
        fault = f"{_words(side, part)} after {side.reached.name.lower()}"
    elif part is not _BODY:
        return
    elif mode.none:
        fault = f"{_words(side, part)} though its mode is NONE"
    elif part is side.reached and mode.buffered:
        fault = f"a second {_words(side, part)} though it is buffered"
    else:
        return
    raise ProtocolError(fault)


def _words(side: _Side, part: _MessagePart) -> str:
    return _NAMES[side.direction, part].replace("_", " ")


def _headers(headers: HeaderMap, names: Collection[str] | None) -> dict[str, str]:
    found = dict[str, str]()
    for header in headers.headers:
        key = header.key
        if names is None or key in names:
            # Envoy fills raw_value and leaves value empty; some clients do the reverse.
            found[key] = header.raw_value.decode("latin-1") or header.value
    return found


def read_note(message: ProcessingRequest) -> Note:
    """Return the note that Envoy shows of its metadata."""
    if not message.HasField("metadata_context"):
        return NOTHING
    metadata = message.metadata_context.filter_metadata
    if NAMESPACE not in metadata:
        return NOTHING
    fields = metadata[NAMESPACE].fields.items()
    return {
        key: getattr(value, kind)
        for key, value in fields
        if (kind := value.WhichOneof("kind")) in _NOTED
    }


def _attempts(message: ProcessingRequest) -> int:
    if not message.attributes:
        return 1
    # Each filter's attributes are listed under its own name.
    told = (each.fields.get(_ATTEMPTS) for each in message.attributes.values())
    known = (each.number_value for each in told if each and 1 < each.number_value < _MOST_ATTEMPTS)
    return max(map(int, known), default=1)


def read_spent(message: ProcessingRequest) -> Spent | None:
    """Return the tokens that Envoy shows of its own reading of an answer."""
    metadata, usage = message.metadata_context.typed_filter_metadata, TokenUsage()
    if USAGE_METADATA not in metadata:
        return None
    try:
        usage.ParseFromString(metadata[USAGE_METADATA].value)
    except DecodeError:
        return None
    if usage.extraction_status == TokenUsage.FAILED or not usage.HasField("input_tokens"):
        return None
    cached = usage.input_token_details.cached_tokens.value
    return Spent(usage.input_tokens.value, usage.output_tokens.value, cached)


def _pay(side: _Side, mode: _Mode, action: Proceed) -> list[bytes]:
    """Return the replies owed; the first that can carries the headers and the note."""
    replies = list[bytes]()
    for part in side.owed:
        name = _NAMES[side.direction, part]
        if part is _TRAILERS:
            replies.append(reply(name))
        elif part is _BODY and mode.duplex:
            replies += _chunks(side, name)
        else:
            body = action.body if part is _BODY else None
            replies.append(reply(name, action.set_headers, action.note, body))
            action = _PROCEED
    side.owed.clear()
    return replies


def _chunks(side: _Side, name: str) -> Iterator[bytes]:
    data, side.held = bytes(side.held), bytearray()
    ended = side.ended and side.reached is _BODY
    for start in range(0, len(data) or int(ended), CHUNK_BYTES):
        last = start + CHUNK_BYTES >= len(data)
        yield chunk(name, data[start : start + CHUNK_BYTES], ends=ended and last)
