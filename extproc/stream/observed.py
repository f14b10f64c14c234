"""Read the observer's messages about an answer at a fraction of the cost of a session.

Its first message says the same of most answers, but for the note. So what the session makes of one
is kept by all bytes around the note's text, and holds for each that differs in nothing but these.

Invariant: what is returned is what the session makes of the message. For anything else it is None,
and the session reads the message.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError

from extproc.names import NOTE
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.stream.buffered import read_varint, tag
from extproc.stream.replies import field
from extproc.stream.session import (
    Direction,
    Head,
    ProtocolError,
    Session,
    Trailers,
    read_spent,
)

_KEPT: Final = 512
_MOST_BYTES: Final = 2048  # of a message whose surroundings are kept
_RESPONSE_HEADERS: Final = tag(ProcessingRequest, "response_headers")
_ENTRY_KEY, _ENTRY_VALUE = b"\x0a", b"\x12"  # of every map
_TEXT: Final = 0x1A  # string_value of a google.protobuf.Value
_NAME: Final = field(_ENTRY_KEY, NOTE.encode()) + _ENTRY_VALUE


class ObservedHeads:
    """Reads the first messages of observers; `names` are those of the headers that are read."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._kept: dict[tuple[bytes, bytes], Head] = {}

    def read(self, data: bytes) -> Head | None:
        """Return the headers of an answer that goes on."""
        if not 0 < len(data) <= _MOST_BYTES or data[0] != _RESPONSE_HEADERS:
            return None
        try:
            start, end = _find_note(data)
            text = data[start:end].decode()
        except (IndexError, UnicodeDecodeError):
            return None
        around = data[:start], data[end:]
        head = self._kept.get(around) or self._keep(around, data, end - start)
        if head is None:
            return None
        note = {**head.note, NOTE: text}
        return Head(head.direction, head.headers, False, note, True, head.attempts)  # noqa: FBT003

    def _keep(self, around: tuple[bytes, bytes], data: bytes, size: int) -> Head | None:
        """Have the session read a message; keep it if all but `around` is the text of its note."""
        # Where a field stands does not depend on what a text says. So the place of the note is
        # proved by another text of its length, which nothing else may show.
        other = "x" * size
        head, beside = self._read(data), self._read(around[0] + other.encode() + around[1])
        if head is None or beside is None or not _goes_on(head):
            return None
        if beside.note != {**head.note, NOTE: other} or _rest(beside) != _rest(head):
            return None
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[around] = head
        return head

    def _read(self, data: bytes) -> Head | None:
        try:
            event = Session(self._names).receive(ProcessingRequest.FromString(data))
        except (DecodeError, ProtocolError):
            return None
        return event if isinstance(event, Head) else None


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


def _find_note(data: bytes) -> tuple[int, int]:
    """Return where the text of the note may begin and end. Raises IndexError."""
    at = data.find(_NAME)
    if at < 0:
        raise IndexError
    _, at = read_varint(data, at + len(_NAME))
    if data[at] != _TEXT:
        raise IndexError
    size, start = read_varint(data, at + 1)
    if start + size > len(data):
        raise IndexError
    return start, start + size


def _goes_on(head: Head) -> bool:
    return head.direction is Direction.RESPONSE and head.observed and not head.end_of_stream


def _rest(head: Head) -> tuple[object, ...]:
    return head.direction, head.headers, head.end_of_stream, head.observed, head.attempts
