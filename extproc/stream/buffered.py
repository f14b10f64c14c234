"""Read the router's two messages about a request from their bytes, at a fraction of the cost.

Envoy's default form sends the headers of a request, then its whole body. Of the headers few are
needed, and all that follows them in either message is the same for most requests.

Invariant: what is returned is what the session would make of the message, as Envoy encodes it:
fields in the order of their numbers, keys before values, and no control characters in headers,
which Envoy refuses. For anything else it is None, and the session reads the message. Headers that
nobody needs are skipped, and not even checked.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError, Message

from extproc.protos.envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue
from extproc.protos.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import (
    ProcessingMode,
)
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
)
from extproc.stream.replies import Note, field
from extproc.stream.session import read_note

_MOST_TAIL_BYTES: Final = 512  # of what is kept by its bytes
_KEPT: Final = 64
_MORE: Final = 0x80  # the bit of a varint's byte that another one follows


def tag(message: type[Message], name: str, wire_type: int = 2) -> int:
    """Return the byte before a field; wire types: 0 a number, 2 bytes or a message."""
    return message.DESCRIPTOR.fields_by_name[name].number << 3 | wire_type


_REQUEST_HEADERS: Final = tag(ProcessingRequest, "request_headers")
_REQUEST_BODY: Final = tag(ProcessingRequest, "request_body")
_HEADER_MAP: Final = tag(HttpHeaders, "headers")
_HEADER: Final = tag(HeaderMap, "headers")
_KEY: Final = tag(HeaderValue, "key")
_RAW_VALUE: Final = tag(HeaderValue, "raw_value")
_BODY: Final = tag(HttpBody, "body")
_ENDS: Final = bytes((tag(HttpBody, "end_of_stream", 0), 1))


Mark = tuple[bytes, str]
"""How a header begins in a message, and its name."""


def marks(names: Iterable[str]) -> tuple[Mark, ...]:
    """Return what `read_head` looks for; names are in lower case."""
    return tuple((field(bytes((_KEY,)), name.encode()), name) for name in names)


def read_head(data: bytes, marked: Iterable[Mark]) -> tuple[dict[str, str], Note] | None:
    """Return the marked headers, and the note, of a request whose body will follow whole.

    None if the message says anything else, or if the filter wants more than the decision.
    """
    try:
        return _read_head(data, marked)
    except IndexError:
        return None


def read_body(data: bytes | memoryview) -> bytes | memoryview | None:
    """Return the body in the second message; None if the message says anything else.

    Of a view, the body is a view too.
    """
    try:
        return _read_body(data)
    except IndexError:
        return None


def _read_head(data: bytes, marked: Iterable[Mark]) -> tuple[dict[str, str], Note] | None:
    if data[0] != _REQUEST_HEADERS:
        return None
    size, at = read_varint(data, 1)
    end = at + size
    note = _opening_note(data[end:]) if 0 < len(data) - end <= _MOST_TAIL_BYTES else None
    if note is None or data[at] != _HEADER_MAP:
        return None
    size, at = read_varint(data, at + 1)
    if at + size != end:  # also if no body follows
        return None
    headers = _read_headers(data, at, end, marked)
    return None if headers is None else (headers, note)


def _read_headers(data: bytes, at: int, end: int, marked: Iterable[Mark]) -> dict[str, str] | None:
    found = dict[str, str]()
    for mark, name in marked:
        # No name or value contains a mark: its length would be a control character there.
        place = data.find(mark, at, end)
        if place < 0:
            continue
        place += len(mark)
        # Envoy fills raw_value and leaves value empty.
        if data[place] != _RAW_VALUE:
            return None
        size, start = data[place + 1], place + 2
        if size >= _MORE:
            size, start = read_varint(data, place + 1)
        last = start + size
        ends = last == end or (last < end and data[last] == _HEADER)
        if not size or not ends or data.find(mark, last, end) >= 0:
            return None
        found[name] = data[start:last].decode("latin-1")
    return found


def _read_body(data: bytes | memoryview) -> bytes | memoryview | None:
    if data[0] != _REQUEST_BODY:
        return None
    size, at = read_varint(data, 1)
    end = at + size
    if (
        not 0 <= len(data) - end <= _MOST_TAIL_BYTES
        or not _says_nothing(bytes(data[end:]))
        or data[at] != _BODY
    ):
        return None
    size, at = read_varint(data, at + 1)
    last = at + size
    return data[at:last] if last == end or data[last:end] == _ENDS else None


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return a number, and where what follows it starts. Raises IndexError."""
    number = data[at]
    at += 1
    if number < _MORE:
        return number, at
    number &= 0x7F
    for shift in (7, 14, 21, 28):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < _MORE:
            return number, at
    raise IndexError


@lru_cache(_KEPT)
def _opening_note(tail: bytes) -> Note | None:
    """Return the note in what follows the headers; None if the stream takes another way."""
    message = _parsed(tail)
    if message is None or message.observability_mode:
        return None
    config, mode = message.protocol_config, ProcessingMode
    wanted = (mode.BUFFERED, mode.NONE, False)
    stated = (
        config.request_body_mode,
        config.response_body_mode,
        config.send_body_without_waiting_for_header_response,
    )
    return read_note(message) if stated == wanted else None


@lru_cache(_KEPT)
def _says_nothing(tail: bytes) -> bool:
    """Return whether what follows a body changes nothing."""
    message = _parsed(tail)
    return message is not None and not message.observability_mode


def _parsed(tail: bytes) -> ProcessingRequest | None:
    """Return what a message says beside its part of the request; None if it has another part."""
    try:
        message = ProcessingRequest.FromString(tail)
    except DecodeError:
        return None
    other = ("flow_control_init", "client_window_update")
    if message.WhichOneof("request") or any(map(message.HasField, other)):
        return None
    return message
