"""Read the observer's messages about an answer at a fraction of the cost of a session.

But for the metadata with the note, its first message says the same of most answers. So what the
session makes of the rest is kept by its bytes, and the metadata is read by itself.

Invariant: what is returned is what the session makes of the message, of metadata the note alone.
For anything else it is None, and the session reads the message.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError

from extproc.names import NAMESPACE, NOTE
from extproc.protos.envoy.config.core.v3.base_pb2 import Metadata
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.stream.buffered import read_varint, tag
from extproc.stream.session import (
    Direction,
    Head,
    ProtocolError,
    Session,
    Trailers,
    read_spent,
)

_KEPT: Final = 512
_MOST_BYTES: Final = 4096  # of a message: the stream keeps it as long as the answer takes
_RESPONSE_HEADERS: Final = tag(ProcessingRequest, "response_headers")
_METADATA: Final = tag(ProcessingRequest, "metadata_context")


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
        except (IndexError, DecodeError):
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
    try:
        message = ProcessingRequest.FromString(bytes(data))
    except DecodeError:
        return None
    if message.WhichOneof("request") != "response_trailers" or not message.observability_mode:
        return None
    return Trailers(Direction.RESPONSE, read_spent(message))


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return a message without its metadata, and the metadata. Raises IndexError."""
    if data[0] != _RESPONSE_HEADERS:
        raise IndexError
    size, at = read_varint(data, 1)
    end = at + size
    if data[end] != _METADATA:
        raise IndexError
    size, start = read_varint(data, end + 1)
    last = start + size
    if last > len(data):
        raise IndexError
    return data[:end] + data[last:], data[start:last]


def _read_note(metadata: bytes) -> str | None:
    """Return the note in metadata. Raises DecodeError."""
    spaces = Metadata.FromString(metadata).filter_metadata
    fields = spaces[NAMESPACE].fields if NAMESPACE in spaces else {}
    if NOTE not in fields or fields[NOTE].WhichOneof("kind") != "string_value":
        return None
    text: str = fields[NOTE].string_value
    return text


def _goes_on(head: Head) -> bool:
    return head.direction is Direction.RESPONSE and head.observed and not head.end_of_stream
