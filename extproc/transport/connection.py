"""The server's side of an HTTP/2 connection (RFC 9113) that carries gRPC, for Envoy as its peer.

Invariants: what a peer sends never raises; a broken rule ends its stream or its connection, as the
RFC says; memory is bounded by the windows and by Limits, whatever the peer does.
"""

from typing import Final

import hpack

from extproc.transport import frames
from extproc.transport.calls import (
    OK,
    RESOURCE_EXHAUSTED,
    Limits,
    OpenCall,
    Status,
)
from extproc.transport.faults import ConnectionFault
from extproc.transport.frame_reader import FrameReader, unpadded
from extproc.transport.frames import frame, goaway, rst_stream, window_update
from extproc.transport.h2_stream import STREAM_WINDOW, H2Stream
from extproc.transport.header_fields import (
    MAX_LIST_BYTES,
    HeaderReader,
    RequestHeaders,
)
from extproc.transport.messages import PREFIX_BYTES, MessageFault, MessageReader
from extproc.transport.outgoing import DEFAULT_WINDOW, Outgoing

CONNECTION_WINDOW: Final = 1 << 24
"""Bytes that a peer may send on all its streams: in 16 MiB no local peer has to wait for us."""
MAX_COST: Final = 20_000
"""What a peer may spend between two ticks on frames that carry no message."""

# 2,000 PINGs or resets between two ticks: more than a thousand clients that all leave at once.
_COSTLY, _CHEAP = 10, 1
_KEEPALIVE, _DRAIN = b"silence?", b"drained?"

_TOO_LARGE = Status(RESOURCE_EXHAUSTED, f"headers of more than {MAX_LIST_BYTES} bytes")
_HELD = Status(RESOURCE_EXHAUSTED, "too many bytes of unfinished messages")


class FramedConnection:
    """A connection with framing of its own; see calls.Connection."""

    def __init__(self, open_call: OpenCall, limits: Limits) -> None:
        self.closed = False
        self.fault: str | None = None
        self._open_call = open_call
        self._limits = limits
        self._streams: dict[int, H2Stream] = {}
        self._last = 0  # the highest number of a stream of the peer
        self._last_served = frames.STREAM_BITS  # lower once the peer knows that we drain
        self._reader = FrameReader()
        self._headers = HeaderReader()
        self.ready = self._drains = False
        self._credit = CONNECTION_WINDOW  # bytes that the peer may send
        self._held_bytes = self._cost = 0
        self._out = Outgoing(STREAM_WINDOW + 2 * limits.message_bytes)
        self._out.put(_greeting(limits))

    @property
    def held_bytes(self) -> int:
        """Bytes of messages that have not arrived whole, and of answers that wait for a window."""
        return self._held_bytes + self._out.queued_bytes

    def receive(self, data: bytes) -> bytes:
        """Process what the peer sent, in pieces of any size. Never raises."""
        if self.closed:
            return b""
        try:
            self._read(data)
        except ConnectionFault as fault:
            self._break(fault)
        return self._out.take()

    def end(self, number: int, status: Status) -> bytes:
        """End a stream of which this server has had enough; no error if it is gone."""
        stream = self._streams.get(number)
        if stream is not None and stream.status is None:
            self._finish(stream, status)
        return self._out.take()

    def shed(self) -> bytes:
        """End the stream that holds most bytes."""
        most = max(self._streams.values(), key=_bytes_of, default=None)
        if most is None:
            return b""
        if most.queue:
            self._reset(most, frames.ENHANCE_YOUR_CALM)  # a status would wait behind the answers
            return self._out.take()
        return self.end(most.number, _HELD)

    def tick(self) -> None:
        """Let the peer send PINGs, resets and the like again."""
        self._cost = 0

    def ping(self) -> bytes:
        """Ask the peer for a sign of life."""
        if not self.closed:
            self._out.put(frame(frames.PING, _KEEPALIVE))
        return self._out.take()

    def drain(self) -> bytes:
        """Have the peer open no more streams; `closed` once those that are open have ended.

        Streams that it opened before it read this are served: only when it has acknowledged a PING
        behind this notice, it is told the last one (RFC 9113, section 6.8).
        """
        if not self.closed and not self._drains:
            self._drains = True
            self._out.put(goaway(frames.STREAM_BITS, frames.NO_ERROR))
            self._out.put(frame(frames.PING, _DRAIN))
        return self._out.take()

    def shut(self) -> bytes:
        """End all streams and the connection."""
        if not self.closed:
            self._say_goaway(frames.NO_ERROR)
            self.lose()
        return self._out.take()

    def lose(self) -> None:
        """Close all calls, as the peer is gone; idempotent."""
        self.closed = True
        for stream in self._streams.values():
            stream.call.close()
        self._streams.clear()
        self._reader = FrameReader()  # what it holds is of no use any more
        self._out.forget()
        self._held_bytes = 0

    def _break(self, fault: ConnectionFault) -> None:
        self.fault = str(fault)
        self._say_goaway(fault.code, self.fault)
        self.lose()

    def _say_goaway(self, code: int, reason: str = "") -> None:
        self._out.put(goaway(min(self._last, self._last_served), code, reason))

    def _read(self, data: bytes) -> None:
        reader = self._reader
        reader.feed(data)
        while reader.advance():
            kind, number, flags = reader.kind, reader.number, reader.flags
            if kind == frames.DATA:
                self._on_data(number, flags, reader.source, reader.start, reader.end)
            else:
                self._on_frame(kind, number, flags, reader.source[reader.start : reader.end])
        self._extend_credit()

    def _on_frame(self, kind: int, number: int, flags: int, payload: bytes) -> None:
        if not self.ready and kind != frames.SETTINGS:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "no SETTINGS at the start")
        if kind == frames.HEADERS:
            self._on_headers(number, flags, payload)
        elif kind == frames.RST_STREAM:
            self._on_rst_stream(number, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._on_window_update(number, payload)
        else:
            self._on_rare_frame(kind, number, flags, payload)

    def _on_rare_frame(self, kind: int, number: int, flags: int, payload: bytes) -> None:
        match kind:
            case frames.SETTINGS:
                self._on_settings(number, flags, payload)
            case frames.PING:
                self._on_ping(number, flags, payload)
            case frames.GOAWAY:
                self._on_goaway(number, payload)
            case frames.PRIORITY:
                self._on_priority(number, payload)
            case frames.PUSH_PROMISE:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "PUSH_PROMISE from a client")
            case _:
                self._spend(_COSTLY)  # an unknown type is skipped

    def _spend(self, cost: int) -> None:
        self._cost += cost
        if self._cost > MAX_COST:
            raise ConnectionFault(frames.ENHANCE_YOUR_CALM, "too many frames without a message")

    def _require_begun(self, number: int) -> None:
        # A stream that is gone may still be sent what was under way when it ended.
        if not 0 < number <= self._last or number % 2 == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "a frame on an idle stream")
        self._spend(_CHEAP)

    # DATA and the messages in it.

    def _on_data(self, number: int, flags: int, data: bytes, start: int, end: int) -> None:
        self._credit -= end - start
        if self._credit < 0:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "more than the connection's window")
        stream = self._streams.get(number)
        if stream is None:
            self._require_begun(number)
            return
        stream.credit -= end - start
        if stream.credit < 0:
            raise ConnectionFault(frames.FLOW_CONTROL_ERROR, "more than the stream's window")
        if flags & frames.PADDED:
            start, end = unpadded(data, start, end)
        if start == end and not flags & frames.END_STREAM:
            self._spend(_COSTLY)
        self._read_messages(stream, data, start, end)
        if flags & frames.END_STREAM:
            self._half_close(stream)

    def _read_messages(self, stream: H2Stream, data: bytes, start: int, end: int) -> None:
        if stream.ended:
            return
        if not stream.held_bytes and end - start >= PREFIX_BYTES:
            # Whether it is compressed, and its length: see messages.py.
            length = frames.read_number(data, start + 1)
            if length == end - start - PREFIX_BYTES and not data[start]:
                # As almost always, the whole frame is one message, which is thus short enough.
                self._deliver(stream, data[start + PREFIX_BYTES : end])
                self._extend_stream_credit(stream)
                return
        if stream.reader is None:
            stream.reader = MessageReader(self._limits.message_bytes)
        reader = stream.reader
        try:
            for message in reader.feed(memoryview(data)[start:end]):
                self._deliver(stream, message)
                if stream.ended:
                    break
        except MessageFault as fault:
            self._finish(stream, fault.status)
        self._count_held(stream, 0 if stream.ended else reader.held_bytes)
        self._extend_stream_credit(stream)

    def _count_held(self, stream: H2Stream, held: int) -> None:
        self._held_bytes += held - stream.held_bytes
        stream.held_bytes = held

    def _deliver(self, stream: H2Stream, message: bytes | memoryview) -> None:
        stream.spoken = True
        call = stream.call
        for reply in call.receive(message):
            self._out.message(stream, reply)
        status = call.status
        if status is not None:
            self._finish(stream, status)

    # Credit for the peer: as long as it reads what we send.

    def _extend_credit(self) -> None:
        # A few streams whose answers wait must not stop the others.
        reads = self._out.queued_bytes < CONNECTION_WINDOW
        if self._credit < CONNECTION_WINDOW * 3 // 4 and reads:
            self._out.put(window_update(0, CONNECTION_WINDOW - self._credit))
            self._credit = CONNECTION_WINDOW

    def _extend_stream_credit(self, stream: H2Stream) -> None:
        if stream.credit < STREAM_WINDOW // 2 and stream.status is None and not stream.queue:
            self._out.put(window_update(stream.number, STREAM_WINDOW - stream.credit))
            stream.credit = STREAM_WINDOW

    # Ends of streams.

    def _flush(self, stream: H2Stream) -> None:
        self._out.flush(stream)
        if stream.queue:
            return
        if stream.status is not None:
            self._end_with(stream, stream.status)
        else:
            self._extend_stream_credit(stream)

    def _half_close(self, stream: H2Stream) -> None:
        if not stream.spoken:
            self._spend(_COSTLY)
        if stream.status is None:
            self._finish(stream, OK)

    def _finish(self, stream: H2Stream, status: Status) -> None:
        stream.status = status
        self._release(stream)
        if not stream.queue:
            self._end_with(stream, status)

    def _end_with(self, stream: H2Stream, status: Status) -> None:
        self._out.trailers(stream.number, status, started=stream.started)
        self._forget(stream.number)

    def _reset(self, stream: H2Stream, code: int) -> None:
        self._out.put(rst_stream(stream.number, code))
        self._drop(stream)

    def _drop(self, stream: H2Stream) -> None:
        stream.status = stream.status or OK
        self._release(stream)
        self._out.drop(stream)
        self._forget(stream.number)

    def _release(self, stream: H2Stream) -> None:
        stream.call.close()
        stream.reader = None
        if stream.held_bytes:
            self._count_held(stream, 0)

    def _forget(self, number: int) -> None:
        del self._streams[number]
        self._end_drain()

    def _end_drain(self) -> None:
        if self._last_served < frames.STREAM_BITS and not self._streams:
            self.closed = True

    # Frames other than DATA.

    def _on_headers(self, number: int, flags: int, block: bytes) -> None:
        if number % 2 == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "HEADERS on a stream of ours")
        try:
            headers = self._headers.read(block)
        except hpack.HPACKError as error:
            raise ConnectionFault(frames.COMPRESSION_ERROR, "HPACK that cannot be read") from error
        stream = self._streams.get(number)
        ends = bool(flags & frames.END_STREAM)
        if stream is not None:
            self._on_trailers(stream, headers, ends=ends)
        elif number > self._last:
            self._begin(number, headers, ends=ends)
        elif headers.is_request or not ends:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "the number of a stream that is closed")
        else:
            self._spend(_CHEAP)  # trailers that were under way when the stream ended

    def _on_trailers(self, stream: H2Stream, headers: RequestHeaders, *, ends: bool) -> None:
        if not ends or headers.is_request or headers.malformed:
            self._reset(stream, frames.PROTOCOL_ERROR)
        else:
            self._half_close(stream)

    def _begin(self, number: int, headers: RequestHeaders, *, ends: bool) -> None:
        self._last = number
        if number > self._last_served or len(self._streams) >= self._limits.streams:
            self._spend(_CHEAP)
            self._out.put(rst_stream(number, frames.REFUSED_STREAM))
        elif headers.malformed or not headers.is_request:
            self._spend(_COSTLY)
            self._out.put(rst_stream(number, frames.PROTOCOL_ERROR))
        elif not headers.content_type.startswith("application/grpc"):
            self._out.unsupported_media_type(number)
        elif headers.large:
            self._refuse(number, _TOO_LARGE)
        else:
            self._open(number, headers.path, ends=ends)

    def _open(self, number: int, path: str, *, ends: bool) -> None:
        call = self._open_call(path, number)
        if isinstance(call, Status):
            self._refuse(number, call)
            return
        stream = H2Stream(number, call, self._out.stream_window)
        self._streams[number] = stream
        if ends:
            self._half_close(stream)

    def _refuse(self, number: int, status: Status) -> None:
        self._spend(_CHEAP)
        self._out.trailers(number, status, started=False)

    def _on_priority(self, number: int, payload: bytes) -> None:
        if number == 0:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PRIORITY without a stream")
        if len(payload) != 5:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "PRIORITY of a wrong length")
        self._spend(_COSTLY)

    def _on_rst_stream(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "RST_STREAM of a wrong length")
        stream = self._streams.get(number)
        if stream is None:
            self._require_begun(number)
            return
        if not stream.spoken:
            self._spend(_COSTLY)
        self._drop(stream)

    def _on_settings(self, number: int, flags: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "SETTINGS on a stream")
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "SETTINGS of a wrong length")
        if flags & frames.ACK:
            self._spend(_CHEAP)
            self._headers.require_empty_table()
            return
        self._spend(_COSTLY * (1 + len(payload) // 6))
        self.ready = True
        for key, value in frames.read_settings(payload):
            self._apply_setting(key, value)
        self._out.put(frame(frames.SETTINGS, flags=frames.ACK))
        for stream in [each for each in self._streams.values() if each.queue]:
            self._flush(stream)

    def _apply_setting(self, key: int, value: int) -> None:
        match key:
            case frames.ENABLE_PUSH if value > 1:
                raise ConnectionFault(frames.PROTOCOL_ERROR, "ENABLE_PUSH that is neither 0 nor 1")
            case frames.INITIAL_WINDOW_SIZE:
                self._spend(len(self._streams))
                self._out.set_stream_window(value, self._streams.values())
            case frames.MAX_FRAME_SIZE:
                self._out.set_frame_bytes(value)

    def _on_ping(self, number: int, flags: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "PING of a wrong length")
        self._spend(_COSTLY)
        if not flags & frames.ACK:
            self._out.put(frame(frames.PING, payload, flags=frames.ACK))
        elif payload == _DRAIN and self._drains and self._last_served == frames.STREAM_BITS:
            self._last_served = self._last
            self._say_goaway(frames.NO_ERROR)
            self._end_drain()

    def _on_goaway(self, number: int, payload: bytes) -> None:
        # The peer opens no more streams, and closes the connection itself.
        if number:
            raise ConnectionFault(frames.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "GOAWAY of a wrong length")
        self._spend(_COSTLY)

    def _on_window_update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(frames.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong length")
        self._spend(_CHEAP)
        more = frames.read_number(payload, 0) & frames.STREAM_BITS
        if number == 0:
            self._out.extend_window(more)
            for each in self._out.unblocked():
                self._flush(each)
            return
        stream = self._streams.get(number)
        if stream is None:
            self._require_begun(number)
        elif not more:
            self._reset(stream, frames.PROTOCOL_ERROR)
        elif stream.window + more > frames.MAX_WINDOW:
            self._reset(stream, frames.FLOW_CONTROL_ERROR)
        else:
            stream.window += more
            if stream.queue:
                self._flush(stream)


def _bytes_of(stream: H2Stream) -> int:
    return stream.held_bytes + sum(map(len, stream.queue or ()))


def _greeting(limits: Limits) -> bytes:
    ours = {
        frames.HEADER_TABLE_SIZE: 0,
        frames.MAX_CONCURRENT_STREAMS: limits.streams,
        frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        frames.MAX_HEADER_LIST_SIZE: MAX_LIST_BYTES,
    }
    return frames.settings(ours) + window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW)
