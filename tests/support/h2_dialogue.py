"""A client that speaks to a connection frame by frame, without a socket; and the calls it opens."""

import struct
from collections import Counter
from dataclasses import dataclass

import hpack

from extproc.transport import frames
from extproc.transport.calls import OK, Limits, Status
from extproc.transport.connection import FramedConnection
from extproc.transport.frames import frame
from tests.support.ngh2_connection import Ngh2Connection

CONNECTIONS = {"own": FramedConnection, "ngh2": Ngh2Connection}
LIMITS = Limits(streams=10, message_bytes=100_000)
START = frames.PREFACE + frame(frames.SETTINGS)
HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/echo",
    ":authority": "peer",
    "te": "trailers",
    "content-type": "application/grpc",
}


def text(value):
    """Return an HPACK string without Huffman's code."""
    data = value.encode()
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest, size = len(data) - 127, bytearray((127,))
    while rest > 127:
        size.append(rest & 127 | 128)
        rest >>= 7
    size.append(rest)
    return bytes(size) + data


def block(fields, first=b"\0"):
    """Return fields as HPACK literals; `first` says whether they are to be indexed."""
    return b"".join(first + text(name) + text(value) for name, value in fields)


def headers(stream=1, changes=(), *, end=False, flags=frames.END_HEADERS, **given):
    """Return the HEADERS frame of a request; a change to None leaves a field out."""
    fields = HEADERS | dict(changes)
    data = given.get("data") or block((k, v) for k, v in fields.items() if v is not None)
    return frame(frames.HEADERS, data, flags=flags | (frames.END_STREAM if end else 0),
                 stream=stream)  # fmt: skip


def message(content=b"hello"):
    """Return a gRPC message."""
    return b"\0" + len(content).to_bytes(4) + content


def data(payload=None, stream=1, *, end=False, flags=0):
    """Return a DATA frame."""
    payload = message() if payload is None else payload
    return frame(frames.DATA, payload, flags=flags | (frames.END_STREAM if end else 0),
                 stream=stream)  # fmt: skip


def rst(stream=1, code=8):
    return frames.rst_stream(stream, code)


def setting(key, value):
    return frame(frames.SETTINGS, struct.pack(">HI", key, value))


@dataclass(frozen=True)
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes


def parsed(sent):
    """Return the frames of what a connection sent; it sends whole ones."""
    found, at = [], 0
    while at < len(sent):
        word, flags, stream = struct.unpack_from(">IBI", sent, at)
        end = at + 9 + (word >> 8)
        assert end <= len(sent)
        found.append(Frame(word & 0xFF, flags, stream, sent[at + 9 : end]))
        at = end
    return found


class Echo:
    """A call that echoes each message but what begins with `quiet`, and ends at `bye`."""

    def __init__(self):
        self.status = None
        self.heard = []
        self.closed = 0

    def receive(self, content):
        assert not self.closed, "closed"
        self.heard.append(content)
        if content == b"bye":
            self.status = OK
        if content == b"error":
            self.status = Status(13, "a fault")
        return [] if content[:5] in (b"quiet", b"error") else [bytes(content)]

    def close(self):
        self.closed += 1


class Client:
    """Sends frames to a connection, and keeps what it answers and which calls it opens."""

    def __init__(self, connect=FramedConnection, limits=LIMITS, *, greeted=True):
        self.calls = {}
        self.connection = connect(self._open, limits)
        self.connection.receive(b"")  # its greeting
        self.sent = b""
        if greeted:
            self.send(START)
            self.sent = b""

    def _open(self, path, number):
        if path != "/echo":
            return Status(12, "no such method")
        self.calls[number] = Echo()
        return self.calls[number]

    def send(self, *parts):
        """Send frames, all in one; return the frames of the answer."""
        return self.answered(self.connection.receive(b"".join(parts)))

    def answered(self, sent):
        self.sent += sent
        return parsed(sent)

    def goaway(self):
        """Return the code of the last GOAWAY; None if there was none."""
        said = [each for each in parsed(self.sent) if each.kind == frames.GOAWAY]
        return int.from_bytes(said[-1].payload[4:8]) if said else None

    def resets(self):
        """Return the codes of all RST_STREAM by stream."""
        return {
            each.stream: int.from_bytes(each.payload)
            for each in parsed(self.sent)
            if each.kind == frames.RST_STREAM
        }

    def data(self, stream=1):
        """Return the payload that was sent on a stream."""
        return b"".join(
            each.payload
            for each in parsed(self.sent)
            if each.kind == frames.DATA and each.stream == stream
        )

    def kinds(self, stream=1):
        """Return how many frames of each kind were sent on a stream."""
        return Counter(each.kind for each in parsed(self.sent) if each.stream == stream)

    def ends(self, stream=1):
        """Return whether the server has ended a stream."""
        return any(
            each.flags & frames.END_STREAM
            for each in parsed(self.sent)
            if each.stream == stream and each.kind in (frames.HEADERS, frames.DATA)
        )

    def fields(self, stream=1):
        """Return all header fields of a stream; trailers come last."""
        decoder = hpack.Decoder()
        blocks = [e for e in parsed(self.sent) if e.kind == frames.HEADERS]
        decoded = [(each.stream, decoder.decode(each.payload)) for each in blocks]
        return dict(field for number, found in decoded if number == stream for field in found)

    def status(self, stream=1):
        """Return the gRPC status of a stream."""
        return int(self.fields(stream)["grpc-status"])


def held_bytes(streams):
    """Return the bytes that streams hold in both directions."""
    read = sum(each.reader.held_bytes for each in streams if each.reader)
    return read + sum(len(piece) for each in streams for piece in each.queue or ())
