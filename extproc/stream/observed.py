"""Read the observer's messages about an answer at a fraction of the cost of a session.

But for the metadata with the note, its first message says the same of most answers. So what the
session makes of the rest is kept by its bytes, and the metadata is read by itself.

Invariant: what is returned is what the session makes of the message as Envoy encodes it, of
metadata the note or the usage alone. For anything else it is None, and the session reads the
message. Metadata that nobody needs is skipped, and not even checked.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value

from extproc.names import NAMESPACE, NOTE
from extproc.protos.envoy.config.core.v3.base_pb2 import Metadata
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.stream.session import (
    Direction,
    Head,
    ProtocolError,
    Session,
    Trailers,
    read_spent,
)
from extproc.stream.wire import MAP_KEY, MAP_VALUE, field, read_varint, tag

_KEPT: Final = 512
_MOST_BYTES: Final = 4096  # of a message: the stream keeps it as long as the answer takes
_RESPONSE_HEADERS: Final = tag(ProcessingRequest, "response_headers")
_RESPONSE_TRAILERS: Final = tag(ProcessingRequest, "response_trailers")
_METADATA: Final = tag(ProcessingRequest, "metadata_context")
_METADATA_FIELD: Final = bytes([_METADATA])
_ENTRY: Final = tag(Metadata, "filter_metadata")
_TEXT: Final = tag(Value, "string_value")
_NAMESPACE: Final = NAMESPACE.encode()
_NOTE: Final = NOTE.encode()
assert tag(Struct, "fields") == _ENTRY, "so that one function walks both"  # noqa: S101


class ObservedHeads:
    """Reads the first messages of observers; `names` are those of the headers that are read."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._kept: dict[bytes, Head] = {}

    def read(self, data: bytes) -> Head | None:
        """Return the headers of an answer that goes on, and its note."""
        if len(data) > _MOST_BYTES:
            return None
        try:
            rest, metadata = _split(data)
            text = _read_note(metadata)
        except (IndexError, UnicodeDecodeError):
            return None
        head = self._kept.get(rest) or self._keep(rest)
        if head is None or text is None:
            return None
        return Head(head.direction, head.headers, False, {NOTE: text}, True, head.attempts)  # noqa: FBT003

    def _keep(self, rest: bytes) -> Head | None:
        """Have the session read what a message says beside its metadata, and keep it."""
        head = self._read(rest)
        if head is None or not _goes_on(head):
            return None
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[rest] = head
        return head

    def _read(self, data: bytes) -> Head | None:
        try:
            message = ProcessingRequest.FromString(data)
            event = Session(self._names).receive(message)
        except (DecodeError, ProtocolError):
            return None
        # Metadata in the rest would be merged with the other.
        has_metadata = message.HasField("metadata_context")
        return event if isinstance(event, Head) and not has_metadata else None


observed_heads = lru_cache(ObservedHeads)
"""Returns the reader of these names."""


def read_end(data: bytes | memoryview) -> Trailers | None:
    """Return the trailers that end an answer of which only the headers came before."""
    short = _without_notes(bytes(data))
    return _read_end(short) if len(short) <= _MOST_BYTES else _read_end.__wrapped__(short)


@lru_cache(_KEPT)
def _read_end(data: bytes) -> Trailers | None:
    try:
        message = ProcessingRequest.FromString(data)
    except DecodeError:
        return None
    if message.WhichOneof("request") != "response_trailers" or not message.observability_mode:
        return None
    return Trailers(Direction.RESPONSE, read_spent(message))


def _without_notes(data: bytes) -> bytes:
    """Return a message about trailers without metadata but the usage, if that is last in it."""
    try:
        end, start, last = _places(data, _RESPONSE_TRAILERS)
        at = start
        while at < last and data[at] == _ENTRY:
            size, at = read_varint(data, at + 1)
            at += size
    except IndexError:
        return data
    if at > last:
        return data
    return data[:end] + field(_METADATA_FIELD, data[at:last]) + data[last:]


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return a message without its metadata, and the metadata. Raises IndexError."""
    end, start, last = _places(data, _RESPONSE_HEADERS)
    return data[:end] + data[last:], data[start:last]


def _places(data: bytes, first: int) -> tuple[int, int, int]:
    """Return where the field `first` ends, and where the metadata behind it starts and ends.

    Raises IndexError.
    """
    if data[0] != first:
        raise IndexError
    size, at = read_varint(data, 1)
    end = at + size
    if data[end] != _METADATA:
        raise IndexError
    size, start = read_varint(data, end + 1)
    last = start + size
    if last > len(data):
        raise IndexError
    return end, start, last


def _read_note(metadata: bytes) -> str | None:
    """Return the note in metadata. Raises IndexError and UnicodeDecodeError."""
    start, end = _find(metadata, 0, len(metadata), _NAMESPACE)
    start, end = _find(metadata, start, end, _NOTE)
    if start == end or metadata[start] != _TEXT:
        return None
    size, start = read_varint(metadata, start + 1)
    return metadata[start:end].decode() if start + size == end else None


def _find(data: bytes, at: int, end: int, key: bytes) -> tuple[int, int]:
    """Return where the value of a key starts and ends in a map that nothing follows.

    The two are the same if it is not there. Raises IndexError.
    """
    found = 0, 0
    while at < end:
        if data[at] != _ENTRY:
            raise IndexError
        size, at = read_varint(data, at + 1)
        last = at + size
        if last > end or data[at] != MAP_KEY:
            raise IndexError
        size, start = read_varint(data, at + 1)
        at = start + size
        if data[at] != MAP_VALUE:
            raise IndexError
        size, value = read_varint(data, at + 1)
        if value + size != last:
            raise IndexError
        if data[start:at] == key:
            found = value, last
        at = last
    return found


def _goes_on(head: Head) -> bool:
    return head.direction is Direction.RESPONSE and head.observed and not head.end_of_stream
