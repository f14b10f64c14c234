"""A server's connection on libnghttp2 (by ngh2), behind the seam of our own framing.

A second opinion on every rule of HTTP/2: the same tests hold for both. gRPC's framing is shared.
"""

import contextlib

import ngh2
from ngh2 import Setting

from extproc.transport.calls import OK, RESOURCE_EXHAUSTED, Status
from extproc.transport.connection import CONNECTION_WINDOW
from extproc.transport.h2_stream import STREAM_WINDOW
from extproc.transport.header_fields import MAX_LIST_BYTES
from extproc.transport.messages import MessageFault, MessageReader

# With the default, Envoy's normal resets end its connection, and its requests pass unrouted.
NO_LIMIT = (1 << 40, 1 << 40)
GRPC = [(b":status", b"200"), (b"content-type", b"application/grpc")]
DRAIN = b"drained?"


class _Stream:
    def __init__(self, number, call, message_bytes):
        self.number, self.call = number, call
        self.reader = MessageReader(message_bytes)
        self.started = False
        self.over = False


class Ngh2Connection:
    def __init__(self, open_call, limits):
        self.ready = self.closed = False
        self.fault = None
        self._open_call, self._limits = open_call, limits
        self._streams = {}
        self._h2 = ngh2.Connection(
            ngh2.Role.SERVER, ngh2.Configuration(stream_reset_rate_limit=NO_LIMIT)
        )
        self._h2.initiate_connection(
            {
                Setting.HEADER_TABLE_SIZE: 0,
                Setting.MAX_CONCURRENT_STREAMS: limits.streams,
                Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                Setting.MAX_HEADER_LIST_SIZE: MAX_LIST_BYTES,
            }
        )
        self._h2.set_local_window_size(CONNECTION_WINDOW)
        self._drains = self._refuses = False

    @property
    def held_bytes(self):
        return sum(each.reader.held_bytes for each in self._streams.values())

    def receive(self, data):
        if self.closed:
            return b""
        fault = None
        try:
            if data:
                self._h2.receive_data(data)
        except ngh2.NGH2Error as error:
            fault = error
        self._heed()
        return self._taken(fault)

    def end(self, number, status):
        if (stream := self._streams.get(number)) and not stream.over:
            self._finish(stream, status)
        return self._taken()

    def shed(self):
        most = max(self._streams.values(), key=lambda each: each.reader.held_bytes, default=None)
        held = Status(RESOURCE_EXHAUSTED, "too many bytes of unfinished messages")
        return self.end(most.number, held) if most else b""

    def tick(self):
        pass

    def ping(self):
        if not self.closed:
            self._h2.ping(b"silence?")
        return self._taken()

    def drain(self):
        if not self.closed and not self._drains:
            self._drains = True
            self._h2.send_shutdown_notice()
            notice = self._taken()
            self._h2.ping(DRAIN)
            return notice + self._taken()
        return b""

    def shut(self):
        if not self.closed:
            self._h2.terminate_connection(0)
            out = self._taken()
            self.lose()
            return out
        return b""

    def lose(self):
        self.closed = True
        for stream in self._streams.values():
            stream.call.close()
        self._streams.clear()

    def _taken(self, fault=None):
        if self.closed:
            return b""
        try:
            out = self._h2.data_to_send()
            self._heed()  # a stream that is reset ends when that is sent
        except ngh2.NGH2Error as error:
            out, fault = b"", fault or error
        if fault is not None or not (self._h2.want_read or self._h2.want_write):
            self.fault = str(fault) if fault else None
            self.lose()
        if self._refuses and not self._streams:
            self.closed = True
        return out

    def _heed(self):
        for event in self._h2.events():
            # The events of one read come after it, so that their stream may be gone already.
            with contextlib.suppress(ngh2.StreamProtocolError):
                self._on(event)

    def _on(self, event):
        match event:
            case ngh2.RequestReceived(number, headers, end):
                self._begin(number, dict(headers), end)
            case ngh2.DataReceived(number, data, end):
                self._on_data(number, data, end)
            case ngh2.TrailersReceived(number):
                self._half_close(number)
            case ngh2.StreamReset(number) | ngh2.StreamClosed(number):
                if stream := self._streams.pop(number, None):
                    stream.call.close()
            case ngh2.SettingsReceived():
                self.ready = True
            case ngh2.PingAcknowledged(data) if data == DRAIN and self._drains:
                self._refuses = True
                self._h2.send_goaway(0)

    def _begin(self, number, headers, end):
        if not headers.get(b"content-type", b"").startswith(b"application/grpc"):
            self._h2.send_response(number, [(b":status", b"415")], end_stream=True)
            return
        size = sum(len(name) + len(value) + 32 for name, value in headers.items())
        call = Status(RESOURCE_EXHAUSTED, "headers that are too long")
        if size <= MAX_LIST_BYTES:
            call = self._open_call(headers[b":path"].decode("latin-1"), number)
        if isinstance(call, Status):
            self._h2.send_response(number, GRPC + _trailers(call), end_stream=True)
            return
        self._streams[number] = _Stream(number, call, self._limits.message_bytes)
        if end:
            self._half_close(number)

    def _on_data(self, number, data, end):
        stream = self._streams.get(number)
        if stream is None or stream.over:
            return
        try:
            for message in stream.reader.feed(data):
                self._deliver(stream, message)
                if stream.over:
                    break
        except MessageFault as fault:
            self._finish(stream, fault.status)
        if end:
            self._half_close(number)

    def _deliver(self, stream, message):
        for reply in stream.call.receive(message):
            self._start(stream)
            self._h2.send_data(stream.number, b"\0" + len(reply).to_bytes(4) + reply)
        if stream.call.status is not None:
            self._finish(stream, stream.call.status)

    def _half_close(self, number):
        stream = self._streams.get(number)
        if stream is not None and not stream.over:
            self._finish(stream, OK)

    def _start(self, stream):
        if not stream.started:
            stream.started = True
            self._h2.send_response(stream.number, GRPC)

    def _finish(self, stream, status):
        stream.over = True
        stream.call.close()
        stream.reader = MessageReader(0)  # holds nothing any more
        if stream.started:
            self._h2.send_trailers(stream.number, _trailers(status))
        else:
            self._h2.send_response(stream.number, GRPC + _trailers(status), end_stream=True)


def _trailers(status):
    fields = [(b"grpc-status", str(status.code).encode())]
    return fields + ([(b"grpc-message", status.message.encode())] if status.message else [])
