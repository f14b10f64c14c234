"""What a connection sends, within the windows of its peer (RFC 9113, section 5.2)."""

import struct
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from extproc.transport import frames
from extproc.transport.calls import OK, Status
from extproc.transport.faults import ConnectionFault
from extproc.transport.frames import frame
from extproc.transport.h2_stream import H2Stream
from extproc.transport.messages import PREFIX_BYTES, write_prefix

DEFAULT_WINDOW: Final = 65_535
"""Of a stream and of a connection, before the peer says otherwise."""

# HPACK without a dynamic table: an index, or a literal that is not to be indexed.
_GRPC = b"\x88\x0f\x10\x10application/grpc"  # :status 200, content-type
_UNSUPPORTED_MEDIA_TYPE = b"\x08\x03415"
_GRPC_STATUS, _GRPC_MESSAGE = b"\0\x0bgrpc-status", b"\0\x0cgrpc-message"
_STATUS_OK = _GRPC_STATUS + b"\x010"

# The head of a frame, and what it begins with: see frames.py and messages.py.
_message_head = struct.Struct(">IBIBI").pack
_first_head = struct.Struct(f">IBI{len(_GRPC)}sIBIBI").pack
_headers_frame = struct.Struct(f">IBI{len(_GRPC)}s").pack
_ok_frame = struct.Struct(f">IBI{len(_STATUS_OK)}s").pack
_OPENS: Final = len(_GRPC) << 8 | frames.HEADERS
_CLOSES: Final = len(_STATUS_OK) << 8 | frames.HEADERS
_LAST: Final = frames.END_HEADERS | frames.END_STREAM


class Outgoing:
    """Frames that are due, and messages that wait for a window, at most `most_bytes` of them."""

    def __init__(self, most_bytes: int) -> None:
        self.queued_bytes = 0
        self.stream_window = DEFAULT_WINDOW  # of a new stream
        self._window = DEFAULT_WINDOW
        self._frame_bytes = frames.MAX_FRAME
        self._most_bytes = most_bytes
        self._blocked: dict[int, H2Stream] = {}  # by the connection's window, in turn
        self._due: list[bytes] = []

    def put(self, data: bytes) -> None:
        """Add a frame to what is due."""
        self._due.append(data)

    def take(self) -> bytes:
        """Return what is due."""
        due, self._due = b"".join(self._due), []
        return due

    def message(self, stream: H2Stream, message: bytes) -> None:
        """Send a gRPC message as soon as the windows allow. Raises ConnectionFault."""
        number, length, due = stream.number, len(message), self._due
        size = PREFIX_BYTES + length
        if stream.queue or size > stream.window or size > self._window or size > self._frame_bytes:
            if not stream.started:
                stream.started = True
                due.append(_headers_frame(_OPENS, frames.END_HEADERS, number, _GRPC))
            self._enqueue(stream, write_prefix(0, length) + message)
            return
        stream.window -= size
        self._window -= size
        data = size << 8 | frames.DATA
        if stream.started:
            due.append(_message_head(data, 0, number, 0, length))
        else:
            stream.started = True
            opens = _OPENS, frames.END_HEADERS, number, _GRPC
            due.append(_first_head(*opens, data, 0, number, 0, length))
        due.append(message)

    def flush(self, stream: H2Stream) -> None:
        """Send what the windows allow of a stream's queue."""
        queue = stream.queue or deque()
        while queue and (room := min(stream.window, self._window, self._frame_bytes)) > 0:
            piece = queue[0][:room]
            if len(piece) == len(queue[0]):
                queue.popleft()
            else:
                queue[0] = queue[0][room:]
            self.queued_bytes -= len(piece)
            self._data(stream, bytes(piece))
        if queue and stream.window > 0:
            self._blocked[stream.number] = stream

    def unblocked(self) -> Iterator[H2Stream]:
        """Yield streams to flush, as long as the connection's window is open."""
        while self._blocked and self._window > 0:
            yield self._blocked.pop(next(iter(self._blocked)))

    def drop(self, stream: H2Stream) -> None:
        """Forget a stream's queue."""
        if stream.queue:
            self.queued_bytes -= sum(map(len, stream.queue))
            stream.queue = None
            self._blocked.pop(stream.number, None)

    def forget(self) -> None:
        """Forget all queues, as their streams are gone."""
        self.queued_bytes = 0
        self._blocked.clear()

    def trailers(self, number: int, status: Status, *, started: bool) -> None:
        """End a stream, behind its messages if there were any."""
        if status is OK and started:
            self._due.append(_ok_frame(_CLOSES, _LAST, number, _STATUS_OK))
            return
        block = _trailers(status) if started else _GRPC + _trailers(status)
        self._headers(number, block, flags=frames.END_STREAM)

    def unsupported_media_type(self, number: int) -> None:
        """Answer what is no gRPC, as gRPC over HTTP/2 has it."""
        self._headers(number, _UNSUPPORTED_MEDIA_TYPE, flags=frames.END_STREAM)

    def extend_window(self, more: int) -> None:
        """Extend the connection's window. Raises ConnectionFault."""
        if not more:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        self._window += more
        if self._window > frames.MAX_WINDOW:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "the connection's window out of range")

    def set_stream_window(self, value: int, streams: Iterable[H2Stream]) -> None:
        """Set the first window of streams, and move those of open ones. Raises ConnectionFault."""
        if value > frames.MAX_WINDOW:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE out of range")
        more, self.stream_window = value - self.stream_window, value
        for stream in streams:
            stream.window += more
            if stream.window > frames.MAX_WINDOW:
                raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "a stream's window out of range")

    def set_frame_bytes(self, value: int) -> None:
        """Set the longest payload that the peer reads. Raises ConnectionFault."""
        if not frames.MAX_FRAME <= value < 1 << 24:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "MAX_FRAME_SIZE out of range")
        self._frame_bytes = value

    def _enqueue(self, stream: H2Stream, prefixed: bytes) -> None:
        if stream.queue is None:
            stream.queue = deque()
        stream.queue.append(memoryview(prefixed))
        self.queued_bytes += len(prefixed)
        self.flush(stream)
        if self.queued_bytes > self._most_bytes:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "answers are not read")

    def _data(self, stream: H2Stream, payload: bytes) -> None:
        stream.window -= len(payload)
        self._window -= len(payload)
        self._due.append(frame(frames.DATA, payload, stream=stream.number))

    def _headers(self, number: int, block: bytes, *, flags: int = 0) -> None:
        flags |= frames.END_HEADERS
        self._due.append(frame(frames.HEADERS, block, flags=flags, stream=number))


def _trailers(status: Status) -> bytes:
    if status is OK:
        return _STATUS_OK
    code, text = str(status.code).encode(), status.message.encode("ascii")
    return b"".join(
        (_GRPC_STATUS, bytes((len(code),)), code, _GRPC_MESSAGE, bytes((len(text),)), text)
    )
