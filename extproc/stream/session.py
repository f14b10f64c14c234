"""One ext_proc stream as a state machine without I/O: message to event, action to replies.

Invariants: Envoy gets exactly the replies that the protocol requires, in its order, whatever the
exchange decides and whenever. A message that is illegal here raises ProtocolError and changes
nothing. Envoy's external_processor.proto says what each body mode requires.
"""

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from extproc.names import NAMESPACE, USAGE_METADATA
from extproc.protos.envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValueOption
from extproc.protos.envoy.data.ai.v3.token_usage_pb2 import TokenUsage
from extproc.protos.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import (
    ProcessingMode,
)
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    CommonResponse,
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
    ProcessingResponse,
)

CHUNK_BYTES = 62_000
"""The longest full-duplex body chunk that is sent: below Envoy's 64 KiB flow-control window."""

_ATTEMPTS = "upstream.request_attempt_count"
_MOST_ATTEMPTS = 1000.0  # an attribute is a double from outside: larger ones are not believed

Note = Mapping[str, str | float | bool]


class ProtocolError(Exception):
    """Envoy sent a message that the ext_proc protocol does not allow here."""


class Direction(enum.Enum):
    """Which half of the HTTP exchange a part belongs to."""

    REQUEST = "request"
    RESPONSE = "response"


@dataclass(frozen=True, slots=True)
class Head:
    """Request or response headers; `note` is the routing filter's note on this request."""

    direction: Direction
    headers: Mapping[str, str]
    end_of_stream: bool
    note: Note = field(default_factory=dict)
    observed: bool = False  # Envoy does not wait for a reply: nothing can be decided
    attempts: int = 1  # of a response: how many servers Envoy sent the request to


@dataclass(frozen=True, slots=True)
class Body:
    """A piece of a body, or all of it if Envoy buffers; the last one has end_of_stream."""

    direction: Direction
    data: bytes
    end_of_stream: bool
    whole: bool = False  # Envoy holds all of it, and accepts another in its place


@dataclass(frozen=True, slots=True)
class Spent:
    """The tokens of an answer as Envoy read them; 0 if unknown."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Trailers:
    """The end of a body with trailers: real ones, or those that Envoy adds to carry metadata."""

    direction: Direction
    spent: Spent | None = None


@dataclass(frozen=True, slots=True)
class FlowControl:
    """A window update of Envoy's: it needs no reply and carries nothing for the exchange."""


Event = Head | Body | Trailers | FlowControl


@dataclass(frozen=True, slots=True)
class Wait:
    """No decision yet: send only the replies that cannot be deferred."""


@dataclass(frozen=True, slots=True)
class Proceed:
    """Release everything held in this direction.

    If headers are set, Envoy chooses the route again. The note reaches the observing filter. A body
    that came whole may be replaced; the caller then sets its content-length, if it has one.
    """

    set_headers: Mapping[str, str] = field(default_factory=dict)
    note: Note = field(default_factory=dict)
    body: bytes | None = None


Action = Wait | Proceed


class _MessagePart(enum.IntEnum):
    NOTHING = 0
    HEADERS = 1
    BODY = 2
    TRAILERS = 3


_KINDS = {
    "request_headers": (Direction.REQUEST, _MessagePart.HEADERS),
    "request_body": (Direction.REQUEST, _MessagePart.BODY),
    "request_trailers": (Direction.REQUEST, _MessagePart.TRAILERS),
    "response_headers": (Direction.RESPONSE, _MessagePart.HEADERS),
    "response_body": (Direction.RESPONSE, _MessagePart.BODY),
    "response_trailers": (Direction.RESPONSE, _MessagePart.TRAILERS),
}
_BUFFERED = (ProcessingMode.BUFFERED, ProcessingMode.BUFFERED_PARTIAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Modes:
    """The modes of the stream, from its first message."""

    # An Envoy older than protocol_config, or a test client, does not tell: nothing is refused.
    request: int = ProcessingMode.STREAMED
    response: int = ProcessingMode.STREAMED
    early_body: bool = False  # the body is sent before the headers are answered
    observing: bool

    def body(self, direction: Direction) -> int:
        return self.request if direction is Direction.REQUEST else self.response

    def buffered(self, direction: Direction) -> bool:
        """Whether there is at most one body message."""
        return self.body(direction) in _BUFFERED and not self.observing

    def whole(self, direction: Direction) -> bool:
        """Whether that one message is the whole body."""
        return self.body(direction) == ProcessingMode.BUFFERED and not self.observing

    def duplex(self, direction: Direction) -> bool:
        """Whether the reply must carry the bytes of the body."""
        return self.body(direction) == ProcessingMode.FULL_DUPLEX_STREAMED and not self.observing

    def deferrable(self, direction: Direction) -> bool:
        """Whether the reply to the headers may wait for the body."""
        return self.duplex(direction) or (direction is Direction.REQUEST and self.early_body)


@dataclass(slots=True)
class _Side:
    """The progress of one direction, and which of its messages are still owed a reply."""

    direction: Direction
    reached: _MessagePart = _MessagePart.NOTHING
    ended: bool = False
    owed: list[_MessagePart] = field(default_factory=list)
    held: bytearray = field(default_factory=bytearray)  # full duplex: bytes not passed on yet


class Session:
    """One stream: pass each message to `receive`, and the action on its event to `reply`."""

    def __init__(self) -> None:
        self._modes: _Modes | None = None
        self._sides = {direction: _Side(direction) for direction in Direction}
        # The side whose replies are due; None after a message of neither direction.
        self._current: _Side | None = self._sides[Direction.REQUEST]
        self._released = False  # the request was released

    @property
    def finished(self) -> bool:
        """Whether no message can follow that matters, so that the service can end the stream.

        A filter that sends no response body is there for the decision alone: the stream ends with
        the reply to it. Otherwise it would count against Envoy's limit of open streams for as long
        as the pool generates.
        """
        request, response = self._sides.values()
        if response.ended:
            return True
        if self._modes is None or self._modes.observing or request.owed:
            return False
        if self._modes.response != ProcessingMode.NONE or response.reached:
            return False
        return request.ended or (self._released and self._modes.buffered(Direction.REQUEST))

    def receive(self, message: ProcessingRequest) -> Event:
        """Return the event of one message; raises ProtocolError if it is illegal here."""
        kind = message.WhichOneof("request")
        if kind is None:
            event = _flow_control(message)
            self._current = None
            return event
        direction, part = _KINDS[kind]
        side, modes = self._sides[direction], self._modes or _read_modes(message)
        _check_modes(modes, message)
        _check_order(side, part, modes)
        if kind == "request_headers" and self._sides[Direction.RESPONSE].reached:
            raise ProtocolError("request headers after the response has begun")
        self._modes, self._current = modes, side
        return _advance(side, part, modes, message)

    def reply(self, action: Action) -> list[ProcessingResponse]:
        """Return the replies that are due after `action` on the event received last."""
        side, modes = self._current, self._modes
        if side is None or modes is None or modes.observing:
            return []
        if isinstance(action, Wait):
            deferred = modes.deferrable(side.direction)
            return [] if deferred else list(_pay(side, modes, Proceed()))
        self._released |= side.direction is Direction.REQUEST
        return list(_pay(side, modes, action))


def _flow_control(message: ProcessingRequest) -> FlowControl:
    if message.HasField("client_window_update") or message.HasField("flow_control_init"):
        return FlowControl()
    raise ProtocolError("a message without a part of the request or the response")


def _read_modes(message: ProcessingRequest) -> _Modes:
    if not message.HasField("protocol_config"):
        return _Modes(observing=message.observability_mode)
    config = message.protocol_config
    return _Modes(
        request=config.request_body_mode,
        response=config.response_body_mode,
        early_body=config.send_body_without_waiting_for_header_response
        and config.request_body_mode == ProcessingMode.STREAMED,
        observing=message.observability_mode,
    )


def _check_modes(modes: _Modes, message: ProcessingRequest) -> None:
    if message.observability_mode != modes.observing:
        raise ProtocolError("observability_mode changes within a stream")
    if ProcessingMode.GRPC in (modes.request, modes.response):
        raise ProtocolError("body mode GRPC: this service reads JSON bodies")


def _check_order(side: _Side, part: _MessagePart, modes: _Modes) -> None:
    name = f"{side.direction.value} {part.name.lower()}"
    if side.ended:
        raise ProtocolError(f"{name} after the end of the {side.direction.value}")
    if part < side.reached or (part == side.reached and part != _MessagePart.BODY):
        raise ProtocolError(f"{name} after {side.reached.name.lower()}")
    if part == _MessagePart.BODY and modes.body(side.direction) == ProcessingMode.NONE:
        raise ProtocolError(f"{name} though its mode is NONE")
    if part == side.reached and modes.buffered(side.direction):
        raise ProtocolError(f"a second {name} though it is buffered")


def _advance(side: _Side, part: _MessagePart, modes: _Modes, message: ProcessingRequest) -> Event:
    content = _content(message)
    side.reached = part
    side.ended = isinstance(content, HttpTrailers) or content.end_of_stream
    duplex = modes.duplex(side.direction)
    if not modes.observing and not (duplex and side.owed[-1:] == [_MessagePart.BODY] == [part]):
        side.owed.append(part)
    match content:
        case HttpHeaders():
            headers, note = _headers(content.headers), _note(message)
            attempts = _attempts(message)
            return Head(side.direction, headers, side.ended, note, modes.observing, attempts)
        case HttpBody():
            side.held += content.body if duplex else b""
            # A buffered body is whole, though Envoy does not end the stream if trailers follow.
            whole = modes.whole(side.direction)
            return Body(side.direction, content.body, side.ended or whole, whole)
        case _:
            return Trailers(side.direction, _spent(message))


def _content(message: ProcessingRequest) -> HttpHeaders | HttpBody | HttpTrailers:
    # The member of a oneof is known by its name alone.
    content: HttpHeaders | HttpBody | HttpTrailers = getattr(
        message, str(message.WhichOneof("request"))
    )
    return content


def _headers(headers: HeaderMap) -> dict[str, str]:
    # Envoy fills raw_value and leaves value empty; some clients do the reverse.
    return {h.key: h.raw_value.decode("latin-1") or h.value for h in headers.headers}


def _note(message: ProcessingRequest) -> Note:
    metadata = message.metadata_context.filter_metadata
    if NAMESPACE not in metadata:
        return {}
    items = metadata[NAMESPACE].items()
    return {key: value for key, value in items if isinstance(value, str | float | bool)}


def _attempts(message: ProcessingRequest) -> int:
    # Each filter's attributes are listed under its own name.
    told = (each[_ATTEMPTS] for each in message.attributes.values() if _ATTEMPTS in each)
    known = (each for each in told if isinstance(each, float) and 1 < each < _MOST_ATTEMPTS)
    return max(map(int, known), default=1)


def _spent(message: ProcessingRequest) -> Spent | None:
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


def _pay(side: _Side, modes: _Modes, action: Proceed) -> Iterator[ProcessingResponse]:
    """Yield the replies owed; the first that can carries the headers and the note."""
    owed, side.owed = side.owed, []
    for part in owed:
        if part == _MessagePart.BODY and modes.duplex(side.direction):
            yield from _chunks(side)
        else:
            yield _reply(side.direction, part, action)
            action = Proceed()


def _chunks(side: _Side) -> Iterator[ProcessingResponse]:
    data, side.held = bytes(side.held), bytearray()
    ended = side.ended and side.reached == _MessagePart.BODY
    for start in range(0, len(data) or int(ended), CHUNK_BYTES):
        response, common = _common(side.direction, _MessagePart.BODY)
        chunk = common.body_mutation.streamed_response
        chunk.body = data[start : start + CHUNK_BYTES]
        chunk.end_of_stream = ended and start + CHUNK_BYTES >= len(data)
        yield response


def _reply(direction: Direction, part: _MessagePart, action: Proceed) -> ProcessingResponse:
    if part == _MessagePart.TRAILERS:
        return _trailers(direction)
    response, common = _common(direction, part)
    for key, value in action.set_headers.items():
        option = common.header_mutation.set_headers.add()
        option.header.key, option.header.raw_value = key, value.encode("latin-1", "replace")
        option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    # Envoy ignores it, and counts that, if no header changes.
    common.clear_route_cache = bool(action.set_headers)
    if action.body is not None and part == _MessagePart.BODY:
        common.body_mutation.body = action.body
    if action.note:
        response.dynamic_metadata.update({NAMESPACE: dict(action.note)})
    return response


def _common(direction: Direction, part: _MessagePart) -> tuple[ProcessingResponse, CommonResponse]:
    response = ProcessingResponse()
    match direction, part:
        case Direction.REQUEST, _MessagePart.HEADERS:
            common = response.request_headers.response
        case Direction.REQUEST, _:
            common = response.request_body.response
        case _, _MessagePart.HEADERS:
            common = response.response_headers.response
        case _:
            common = response.response_body.response
    common.SetInParent()
    return response, common


def _trailers(direction: Direction) -> ProcessingResponse:
    response = ProcessingResponse()
    if direction is Direction.REQUEST:
        response.request_trailers.SetInParent()
    else:
        response.response_trailers.SetInParent()
    return response
