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
_PIECE_BYTES: Final = 1 << 12  # shorter pieces are joined at once


class MessageFault(Exception):  # noqa: N818 - says whose fault it is, as ConnectionFault does
    """A message that is not read; `status` ends its stream."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


class MessageReader:
    """Joins the messages of one stream."""

    __slots__ = ("_lacks", "_most_bytes", "_pieces", "_tail", "held_bytes")

    def __init__(self, most_bytes: int) -> None:
        self.held_bytes = 0
        """Bytes of a message that has not arrived whole."""
        self._most_bytes = most_bytes
        # A buffer that grows would be copied again and again, as those of other streams grow
        # beside it. Short pieces have one of their own: one of a byte each would take 40 times
        # their size.
        self._pieces: list[bytes | bytearray] = []
        self._tail = bytearray()
        self._lacks = 0  # bytes of a message whose prefix has come

    def feed(self, piece: bytes | memoryview) -> Iterable[bytes | memoryview]:
        """Return the messages that the piece completes, one by one. Raises MessageFault."""
        if len(piece) < self._lacks:
            self._lacks -= len(piece)
            self._hold(piece)
            return ()
        return self._complete(piece)

    def _hold(self, piece: bytes | memoryview) -> None:
        self.held_bytes += len(piece)
        if len(piece) < _PIECE_BYTES:
            self._tail += piece
            return
        if self._tail:
            self._pieces.append(self._tail)
            self._tail = bytearray()
        self._pieces.append(bytes(piece))  # what it was cut from has more than this stream's

    def _complete(self, piece: bytes | memoryview) -> Iterator[bytes | memoryview]:
        held, at = b"".join((*self._pieces, self._tail, piece)), 0
        self._pieces, self._tail, self.held_bytes, self._lacks = [], bytearray(), 0, 0
        if len(held) > _LONG_BYTES and self._is_one(held):
            # As of a long body: it is handed over, not copied.
            yield memoryview(held)[PREFIX_BYTES:]
            return
        while len(held) - at >= PREFIX_BYTES:
            compressed, length = read_prefix(held, at)
            self._check(compressed, length)
            end = at + PREFIX_BYTES + length
            if len(held) < end:
                self._lacks = end - len(held)
                break
            yield held[at + PREFIX_BYTES : end]
            at = end
        self._hold(memoryview(held)[at:])

    def _is_one(self, held: bytes) -> bool:
        """Return whether the bytes are one message that may be read."""
        compressed, length = read_prefix(held, 0)
        return not compressed and len(held) - PREFIX_BYTES == length <= self._most_bytes

    def _check(self, compressed: int, length: int) -> None:
        if compressed:
            raise MessageFault(Status(UNIMPLEMENTED, "compressed messages are not supported"))
        if length > self._most_bytes:
            fault = f"a message of {length} bytes is longer than {self._most_bytes}"
            raise MessageFault(Status(RESOURCE_EXHAUSTED, fault))
