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

from google.protobuf.message import DecodeError

from extproc.protos.envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue
from extproc.protos.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import (
    ProcessingMode,
)
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    ProcessingRequest,
)
from extproc.stream.replies import Note
from extproc.stream.session import read_note
from extproc.stream.wire import NUMBER, read_varint, tag

_MOST_HEAD_BYTES: Final = 12  # two fields with their lengths
_MOST_TAIL_BYTES: Final = 512  # of what is kept by its bytes
_KEPT: Final = 64
_MOST_SIZE: Final = 60  # of a name, in a set of bits
_REQUEST_HEADERS: Final = tag(ProcessingRequest, "request_headers")
_REQUEST_BODY: Final = tag(ProcessingRequest, "request_body")
_HEADER_MAP: Final = tag(HttpHeaders, "headers")
_HEADER: Final = tag(HeaderMap, "headers")
_KEY: Final = tag(HeaderValue, "key")
_RAW_VALUE: Final = tag(HeaderValue, "raw_value")
_BODY: Final = tag(HttpBody, "body")
_ENDS: Final = bytes((tag(HttpBody, "end_of_stream", NUMBER), 1))


class Wanted:
    """The names of the headers that `read_head` reads, in lower case."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = {name.encode(): name for name in names}
        self.sizes = 0
        """A bit for each of their lengths: most other names need no further look."""
        for name in self.names:
            self.sizes |= 1 << min(len(name), _MOST_SIZE)


def read_head(data: bytes, wanted: Wanted) -> tuple[dict[str, str], Note] | None:
    """Return the wanted headers, and the note, of a request whose body will follow whole.

    None if the message says anything else, or if the filter wants more than the decision.
    """
    try:
        return _read_head(data, wanted)
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


def _read_head(data: bytes, wanted: Wanted) -> tuple[dict[str, str], Note] | None:
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
    headers = _read_headers(data, at, end, wanted)
    return None if headers is None else (headers, note)


def _read_headers(data: bytes, at: int, end: int, wanted: Wanted) -> dict[str, str] | None:
    found: dict[str, str] = {}
    names, sizes = wanted.names, wanted.sizes
    while at < end:
        if data[at] != _HEADER:
            return None
        size, start = read_varint(data, at + 1)
        at = start + size
        if at > end or data[start] != _KEY:
            return None
        size, start = read_varint(data, start + 1)
        if not sizes >> min(size, _MOST_SIZE) & 1:
            continue
        name = names.get(data[start : start + size])
        if name is None:
            continue
        # Envoy fills raw_value and leaves value empty.
        if name in found or data[start + size] != _RAW_VALUE:
            return None
        size, start = read_varint(data, start + size + 1)
        if not size or start + size != at:
            return None
        found[name] = data[start:at].decode("latin-1")
    return found


def _read_body(data: bytes | memoryview) -> bytes | memoryview | None:
    head = _copy(data, 0, _MOST_HEAD_BYTES)
    if head[0] != _REQUEST_BODY:
        return None
    size, at = read_varint(head, 1)
    end = at + size
    if not 0 <= len(data) - end <= _MOST_TAIL_BYTES or head[at] != _BODY:
        return None
    size, at = read_varint(head, at + 1)
    last = at + size
    if end - last not in (0, len(_ENDS)):
        return None
    rest, more = _copy(data, last, end), _copy(data, end, len(data))
    return data[at:last] if (not rest or rest == _ENDS) and _says_nothing(more) else None


def _copy(data: bytes | memoryview, start: int, end: int) -> bytes:
    return data[start:end] if isinstance(data, bytes) else bytes(data[start:end])


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
