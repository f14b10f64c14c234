"""Frames out of the bytes of a client (RFC 9113, sections 3.4, 4 and 6.10)."""

from collections.abc import Iterator
from typing import Final

from extproc.transport import frames
from extproc.transport.faults import ConnectionFault
from extproc.transport.header_fields import MAX_BLOCK_BYTES

MAX_CONTINUATIONS: Final = 16
"""Of one header block, which full frames would need 3 of."""

# Of HEADERS whose payload is a whole block.
_PLAIN: Final = frames.END_HEADERS
_PLAIN_BITS: Final = frames.END_HEADERS | frames.PADDED | frames.WITH_PRIORITY

IncomingFrame = tuple[int, int, int, bytes, int, int]
"""Type, stream, flags, and bytes between two places of which its payload is."""


class FrameReader:
    """Cuts what a client sends into frames; a header block in several is one frame."""

    def __init__(self) -> None:
        self._greeted = False
        self._rest = b""  # an incomplete frame
        self._block: _Block | None = None

    def feed(self, data: bytes) -> Iterator[IncomingFrame]:
        """Yield the frames that end within this piece. Raises ConnectionFault."""
        return self._continue(data) if self._rest else self._cut(data, 0)

    def _continue(self, data: bytes) -> Iterator[IncomingFrame]:
        # Without a copy of all that was read for the sake of its first frame.
        lacks = len(data)
        if self._greeted and len(self._rest) >= frames.HEAD_BYTES:
            length = frames.read_head(self._rest, 0)[0] >> 8
            lacks = min(lacks, frames.HEAD_BYTES + length - len(self._rest))
        yield from self._cut(self._rest + data[:lacks], 0)
        if lacks < len(data):
            yield from self._cut(data, lacks)

    def _cut(self, data: bytes, at: int) -> Iterator[IncomingFrame]:
        at += self._read_preface(data)
        while self._greeted and len(data) - at >= frames.HEAD_BYTES:
            word, flags, number = frames.read_head(data, at)
            kind, start = word & 0xFF, at + frames.HEAD_BYTES
            end = start + (word >> 8)
            if end - start > frames.MAX_FRAME:
                raise ConnectionFault(frames.FRAME_SIZE_ERROR, "a frame that is too long")
            if end > len(data):
                break
            at, number = end, number & frames.STREAM_BITS
            if kind == frames.HEADERS and flags & _PLAIN_BITS == _PLAIN and self._block is None:
                yield kind, number, flags, data, start, end
            elif kind in (frames.HEADERS, frames.CONTINUATION) or self._block:
                yield from self._read_block(kind, number, flags, data[start:end])
            else:
                yield kind, number, flags, data, start, end
        self._rest = data[at:]

    def _read_preface(self, data: bytes) -> int:
        """Return where the frames begin."""
        if self._greeted:
            return 0
        if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "not HTTP/2 without TLS")
        self._greeted = len(data) >= len(frames.PREFACE)
        return len(frames.PREFACE) if self._greeted else 0

    def _read_block(
        self, kind: int, number: int, flags: int, payload: bytes
    ) -> Iterator[IncomingFrame]:
        if self._block is None:
            if kind != frames.HEADERS:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
            self._block = _Block(number, flags, _unframed(flags, payload))
        else:
            if (kind, number) != (frames.CONTINUATION, self._block.number):
                raise ConnectionFault(frames.PROTOCOL_ERROR, "a frame within a header block")
            self._block.extend(payload)
        if flags & frames.END_HEADERS:
            block, self._block = self._block, None
            yield frames.HEADERS, number, block.flags, block.data, 0, len(block.data)


class _Block:
    """A header block whose end has not come."""

    __slots__ = ("_pieces", "data", "flags", "number")

    def __init__(self, number: int, flags: int, data: bytes) -> None:
        self.number, self.flags, self.data = number, flags, data
        self._pieces = 0

    def extend(self, data: bytes) -> None:
        """Add a piece. Raises ConnectionFault if they are too many or too long."""
        self.data += data
        self._pieces += 1
        if self._pieces > MAX_CONTINUATIONS or len(self.data) > MAX_BLOCK_BYTES:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "a header block that is too long")


def _unframed(flags: int, payload: bytes) -> bytes:
    """Return the first piece of a block, without padding and priority. Raises ConnectionFault."""
    start, end = 0, len(payload)
    if flags & frames.PADDED:
        start, end = unpadded(payload, start, end)
    if flags & frames.WITH_PRIORITY:
        start += 5
    if start > end:
        raise ConnectionFault(frames.FRAME_SIZE_ERROR, "HEADERS that are too short")
    return payload[start:end]


def unpadded(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Return where the payload without padding starts and ends. Raises ConnectionFault."""
    if start == end:
        raise ConnectionFault(frames.FRAME_SIZE_ERROR, "no length of the padding")
    start, end = start + 1, end - data[start]
    if start > end:
        raise ConnectionFault(frames.PROTOCOL_ERROR, "more padding than payload")
    return start, end
