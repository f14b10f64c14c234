"""gRPC messages in the payload of DATA frames, which cut them anywhere, their prefix too."""

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from extproc.transport.calls import RESOURCE_EXHAUSTED, UNIMPLEMENTED, Status

PREFIX_BYTES: Final = 5
_PREFIX: Final = struct.Struct(">BI")
read_prefix = _PREFIX.unpack_from
"""Return whether a message is compressed, and its length."""
write_prefix = _PREFIX.pack

_LONG_BYTES: Final = 1 << 16  # for less, a copy costs less than another way


class MessageFault(Exception):  # noqa: N818 - says whose fault it is, as frames' does
    """A message that is not read; `status` ends its stream."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


class MessageReader:
    """Joins the messages of one stream."""

    __slots__ = ("_held", "_lacks", "_most_bytes")

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        # Not a list of pieces: one of a byte each would take 40 times their size.
        self._held = bytearray()
        self._lacks = 0  # bytes of a message whose prefix has come

    @property
    def held_bytes(self) -> int:
        """Bytes of a message that has not arrived whole."""
        return len(self._held)

    def feed(self, piece: bytes | memoryview) -> Iterable[bytes | memoryview]:
        """Return the messages that the piece completes, one by one. Raises MessageFault."""
        if len(piece) < self._lacks:
            self._lacks -= len(piece)
            self._held += piece
            return ()
        return self._complete(piece)

    def _complete(self, piece: bytes | memoryview) -> Iterator[bytes | memoryview]:
        held, at = self._held, 0
        held += piece
        if len(held) > _LONG_BYTES and self._is_one(held):
            # As of a long body: it is handed over, not copied.
            self._held, self._lacks = bytearray(), 0
            yield memoryview(held)[PREFIX_BYTES:]
            return
        lacks = 0
        while len(held) - at >= PREFIX_BYTES:
            compressed, length = read_prefix(held, at)
            self._check(compressed, length)
            end = at + PREFIX_BYTES + length
            if len(held) < end:
                lacks = end - len(held)
                break
            yield bytes(memoryview(held)[at + PREFIX_BYTES : end])
            at = end
        del held[:at]
        self._lacks = lacks

    def _is_one(self, held: bytearray) -> bool:
        """Return whether the bytes are one message that may be read."""
        compressed, length = read_prefix(held, 0)
        return not compressed and len(held) - PREFIX_BYTES == length <= self._most_bytes

    def _check(self, compressed: int, length: int) -> None:
        if compressed:
            raise MessageFault(Status(UNIMPLEMENTED, "compressed messages are not supported"))
        if length > self._most_bytes:
            fault = f"a message of {length} bytes is longer than {self._most_bytes}"
            raise MessageFault(Status(RESOURCE_EXHAUSTED, fault))
