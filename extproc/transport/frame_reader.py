"""Frames out of the bytes of a client (RFC 9113, sections 3.4, 4 and 6.10)."""

from typing import Final

from extproc.transport import frames
from extproc.transport.faults import ConnectionFault
from extproc.transport.header_fields import MAX_BLOCK_BYTES

MAX_CONTINUATIONS: Final = 16
"""CONTINUATION frames of one header block; the longest that is read fills 3."""

# Of HEADERS whose payload is a whole block.
_PLAIN: Final = frames.END_HEADERS
_PLAIN_BITS: Final = frames.END_HEADERS | frames.PADDED | frames.WITH_PRIORITY


class FrameReader:
    """Cuts what a client sends into frames; a header block in several is one frame.

    Pass bytes to `feed`, then read the frames to which `advance` goes: an object for each, or a
    generator of them, would cost more than what is done about most frames.
    """

    def __init__(self) -> None:
        self.kind = self.number = self.flags = 0
        self.source = b""
        """Bytes of which those from `start` to `end` are the payload."""
        self.start = self.end = 0
        self._greeted = False
        self._data, self._at = b"", 0  # what is being cut, and from where on
        self._behind, self._behind_at = b"", 0  # what comes after it
        self._block: _Block | None = None

    def feed(self, data: bytes) -> None:
        """Take what came next, once `advance` has returned False."""
        rest = self._data
        if not rest:
            self._data = data
            return
        # Without a copy of all that was read for the sake of its first frame.
        lacks = len(data)
        if self._greeted and len(rest) >= frames.HEAD_BYTES:
            length = frames.read_number(rest, 0) >> 8
            lacks = min(lacks, frames.HEAD_BYTES + length - len(rest))
        self._data = rest + data[:lacks]
        if lacks < len(data):
            self._behind, self._behind_at = data, lacks

    def advance(self) -> bool:
        """Go to the next frame that is whole; False if there is none. Raises ConnectionFault."""
        if not self._greeted:
            self._at = self._read_preface(self._data)
        while self._greeted:
            data, at = self._data, self._at
            start = at + frames.HEAD_BYTES
            if start <= len(data):
                # The length has 24 bits, the type 8.
                word = frames.read_number(data, at)
                end = start + (word >> 8)
                if end - start > frames.MAX_FRAME:
                    raise ConnectionFault(frames.FRAME_SIZE_ERROR, "a frame that is too long")
                if end <= len(data):
                    self._at = end
                    self.kind, self.flags = word & 0xFF, data[at + 4]
                    self.number = frames.read_number(data, at + 5) & frames.STREAM_BITS
                    self.source, self.start, self.end = data, start, end
                    if self._is_whole():
                        return True
                    continue
            if not self._behind:
                break
            self._data, self._at, self._behind = self._behind, self._behind_at, b""
        # Nothing that was read stays in memory for the sake of its last frame.
        self._data, self._at, self.source = self._data[self._at :], 0, b""
        return False

    def _read_preface(self, data: bytes) -> int:
        """Return where the frames begin."""
        if not frames.PREFACE.startswith(data[: len(frames.PREFACE)]):
            raise ConnectionFault(frames.PROTOCOL_ERROR, "not HTTP/2 without TLS")
        self._greeted = len(data) >= len(frames.PREFACE)
        return len(frames.PREFACE) if self._greeted else 0

    def _is_whole(self) -> bool:
        """Return whether the frame is one by itself, or ends a header block that is one now."""
        kind, block = self.kind, self._block
        if block is None:
            if kind == frames.CONTINUATION:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
            if kind != frames.HEADERS or self.flags & _PLAIN_BITS == _PLAIN:
                return True
        return self._read_block(self.source[self.start : self.end])

    def _read_block(self, payload: bytes) -> bool:
        block, number = self._block, self.number
        if block is None:
            block = _Block(number, self.flags, _unframed(self.flags, payload))
        else:
            if (self.kind, number) != (frames.CONTINUATION, block.number):
                raise ConnectionFault(frames.PROTOCOL_ERROR, "a frame within a header block")
            block.extend(payload)
        self._block = block
        if not self.flags & frames.END_HEADERS:
            return False
        self._block = None
        self.kind, self.flags = frames.HEADERS, block.flags
        self.source, self.start, self.end = block.data, 0, len(block.data)
        return True


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
