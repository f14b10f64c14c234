"""The rules of HTTP/2 that a peer can break, frame by frame: our own framing beside libnghttp2."""

import pytest

from extproc.transport import frames
from extproc.transport.connection import FramedConnection
from extproc.transport.frames import (
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    MAX_WINDOW,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    frame,
    window_update,
)
from tests.support.h2_dialogue import HEADERS as FIELDS
from tests.support.h2_dialogue import (
    LIMITS,
    START,
    Client,
    block,
    data,
    headers,
    message,
    rst,
    setting,
)

ACK, END_HEADERS = frames.ACK, frames.END_HEADERS
REQUEST = block(FIELDS.items())
PIECE = frame(CONTINUATION, bytes(frames.MAX_FRAME), stream=1)

# By what the peer sends after its preface and SETTINGS.
CONNECTION_ERRORS = {
    "a frame that is too long": (frame(DATA, bytes(16_385), stream=1), FRAME_SIZE_ERROR),
    "DATA on stream 0": (data(stream=0), PROTOCOL_ERROR),
    "DATA on an idle stream": (data(stream=1), PROTOCOL_ERROR),
    "DATA on a stream of ours": (headers(3) + data(stream=2), PROTOCOL_ERROR),
    "more padding than data": (headers() + data(b"\x05abc", flags=PADDED), PROTOCOL_ERROR),
    "HEADERS on stream 0": (headers(0), PROTOCOL_ERROR),
    "HEADERS on a stream of ours": (headers(2), PROTOCOL_ERROR),
    "more padding than headers": (
        headers(data=b"\xff" + REQUEST, flags=END_HEADERS | PADDED),
        PROTOCOL_ERROR,
    ),
    "HEADERS without their priority": (
        headers(data=b"abc", flags=END_HEADERS | WITH_PRIORITY),
        FRAME_SIZE_ERROR,
    ),
    "CONTINUATION alone": (frame(CONTINUATION, flags=END_HEADERS, stream=1), PROTOCOL_ERROR),
    "CONTINUATION of another stream": (
        headers(flags=0) + frame(CONTINUATION, flags=END_HEADERS, stream=3),
        PROTOCOL_ERROR,
    ),
    "PING within headers": (headers(flags=0) + frame(PING, bytes(8)), PROTOCOL_ERROR),
    "HEADERS within headers": (headers(flags=0) + headers(3), PROTOCOL_ERROR),
    "an unknown frame within headers": (headers(flags=0) + frame(0x77), PROTOCOL_ERROR),
    "SETTINGS within headers": (headers(flags=0) + frame(SETTINGS), PROTOCOL_ERROR),
    "DATA within headers": (headers(flags=0) + data(), PROTOCOL_ERROR),
    "PRIORITY of 6 bytes": (frame(PRIORITY, bytes(6), stream=1), FRAME_SIZE_ERROR),
    "RST_STREAM on stream 0": (rst(0), PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (rst(1), PROTOCOL_ERROR),
    "RST_STREAM of 3 bytes": (
        headers() + frame(RST_STREAM, bytes(3), stream=1),
        FRAME_SIZE_ERROR,
    ),
    "SETTINGS on a stream": (frame(SETTINGS, stream=1), PROTOCOL_ERROR),
    "SETTINGS of 5 bytes": (frame(SETTINGS, bytes(5)), FRAME_SIZE_ERROR),
    "SETTINGS that acknowledge and set": (frame(SETTINGS, bytes(6), flags=ACK), FRAME_SIZE_ERROR),
    "ENABLE_PUSH of 2": (setting(frames.ENABLE_PUSH, 2), PROTOCOL_ERROR),
    "a window of 2^31": (setting(INITIAL_WINDOW_SIZE, 1 << 31), FLOW_CONTROL_ERROR),
    "frames of 100 bytes": (setting(MAX_FRAME_SIZE, 100), PROTOCOL_ERROR),
    "frames of 2^24 bytes": (setting(MAX_FRAME_SIZE, 1 << 24), PROTOCOL_ERROR),
    "a window that SETTINGS raise too far": (
        headers() + window_update(1, MAX_WINDOW - 65_535) + setting(INITIAL_WINDOW_SIZE, 65_536),
        FLOW_CONTROL_ERROR,
    ),
    "PUSH_PROMISE": (headers() + frame(PUSH_PROMISE, bytes(4), stream=1), PROTOCOL_ERROR),
    "PING of 7 bytes": (frame(PING, bytes(7)), FRAME_SIZE_ERROR),
    "PING on a stream": (frame(PING, bytes(8), stream=1), PROTOCOL_ERROR),
    "GOAWAY of 7 bytes": (frame(GOAWAY, bytes(7)), FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (frame(GOAWAY, bytes(8), stream=1), PROTOCOL_ERROR),
    "WINDOW_UPDATE of 3 bytes": (frame(WINDOW_UPDATE, bytes(3)), FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of 0": (window_update(0, 0), PROTOCOL_ERROR),
    "WINDOW_UPDATE beyond 2^31": (window_update(0, MAX_WINDOW), FLOW_CONTROL_ERROR),
    "WINDOW_UPDATE on an idle stream": (window_update(1, 1), PROTOCOL_ERROR),
    "HPACK: an index that no table has": (headers(data=b"\xff\x80\x80\x01"), COMPRESSION_ERROR),
    "HPACK: index 0": (headers(data=b"\x80"), COMPRESSION_ERROR),
    "HPACK: a string that is cut": (headers(data=b"\0\x05abc"), COMPRESSION_ERROR),
    "HPACK: a table of 1 MiB": (headers(data=b"\x3f\xff\xff\x03"), COMPRESSION_ERROR),
    "HPACK: a number without end": (headers(data=b"\xff" + b"\xff" * 16_000), COMPRESSION_ERROR),
    "HPACK: a change of the table alone": (headers(data=b"\x3f\xe2\x1f"), COMPRESSION_ERROR),
    "HPACK: a late change of the table": (headers(data=REQUEST + b"\x20"), COMPRESSION_ERROR),
    "HPACK: the table kept against our SETTINGS": (
        headers() + frame(SETTINGS, flags=ACK) + headers(3),
        COMPRESSION_ERROR,
    ),
    "HPACK: the table used against our SETTINGS": (
        frame(SETTINGS, flags=ACK) + headers(data=b"\x20" + REQUEST) + headers(3, data=b"\xbe"),
        COMPRESSION_ERROR,
    ),
}

# nghttp2 1.70 lets the first three pass, and drops the connection without a word for the last.
OWN_CONNECTION_ERRORS = {
    "the number of a stream that has ended": (
        headers() + data(message(b"bye")) + headers(),
        PROTOCOL_ERROR,
    ),
    "a number below the last": (headers(5) + headers(3), PROTOCOL_ERROR),
    "PRIORITY on stream 0": (frame(PRIORITY, bytes(5)), PROTOCOL_ERROR),
    "headers without end": (headers(flags=0) + PIECE * 5, ENHANCE_YOUR_CALM),
    "headers in empty pieces": (
        headers(flags=0) + frame(CONTINUATION, stream=1) * 17,
        ENHANCE_YOUR_CALM,
    ),
    "padding of no length": (headers() + data(b"", flags=PADDED), FRAME_SIZE_ERROR),
}

STREAM_ERRORS = {
    "a name in capitals": (headers(changes={"X-A": "b"}), PROTOCOL_ERROR),
    "no path": (headers(changes={":path": None}), PROTOCOL_ERROR),
    "no method": (headers(changes={":method": None}), PROTOCOL_ERROR),
    "an empty path": (headers(changes={":path": ""}), PROTOCOL_ERROR),
    "headers of a connection": (headers(changes={"connection": "close"}), PROTOCOL_ERROR),
    "a pseudo-header after another header": (
        headers(data=block([("a", "b"), *FIELDS.items()])),
        PROTOCOL_ERROR,
    ),
    "a pseudo-header twice": (
        headers(data=block([(":method", "POST"), *FIELDS.items()])),
        PROTOCOL_ERROR,
    ),
    "an unknown pseudo-header": (
        headers(data=block([(":a", "b"), *FIELDS.items()])),
        PROTOCOL_ERROR,
    ),
    "trailers that do not end the stream": (
        headers() + headers(data=block([("a", "b")])),
        PROTOCOL_ERROR,
    ),
    "trailers with pseudo-headers": (headers() + headers(end=True), PROTOCOL_ERROR),
}

# nghttp2 ends the connection for these.
OWN_STREAM_ERRORS = {
    "WINDOW_UPDATE of 0": (headers() + window_update(1, 0), PROTOCOL_ERROR),
    "WINDOW_UPDATE beyond 2^31": (headers() + window_update(1, MAX_WINDOW), FLOW_CONTROL_ERROR),
}

NO_ERRORS = {
    "an unknown type": frame(0x77, b"abc", stream=5),
    "a change of priority": frame(PRIORITY, bytes(5), stream=7),
    "settings that we do not know": setting(0x77, 1),
    "what was under way when the peer reset": (
        headers() + data() + rst() + data() + window_update(1, 5) + rst()
    ),
    "what was under way when we ended": (
        headers() + data(message(b"bye")) + data() + window_update(1, 5) + rst()
    ),
    "trailers that were under way when we ended": (
        headers() + data(message(b"bye")) + headers(data=block([("a", "b")]), end=True)
    ),
}


def check_goaway(connect, sent, code):
    client = Client(connect)
    client.send(sent)
    assert client.goaway() == code
    assert client.connection.closed
    assert all(call.closed for call in client.calls.values())


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_the_connection_ends_with_the_reason(connect, name):
    check_goaway(connect, *CONNECTION_ERRORS[name])


@pytest.mark.parametrize("name", OWN_CONNECTION_ERRORS)
def test_our_own_framing_ends_the_connection_too(name):
    check_goaway(FramedConnection, *OWN_CONNECTION_ERRORS[name])


@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_the_stream_ends_alone(connect, name):
    check_reset(connect, *STREAM_ERRORS[name])


@pytest.mark.parametrize("name", OWN_STREAM_ERRORS)
def test_our_own_framing_ends_the_stream_alone(name):
    check_reset(FramedConnection, *OWN_STREAM_ERRORS[name])


def check_reset(connect, sent, code):
    client = Client(connect)
    client.send(sent)
    assert client.resets() == {1: code}
    assert all(call.closed for call in client.calls.values())
    client.send(headers(9), data(stream=9))
    assert client.data(9) == message()


@pytest.mark.parametrize("name", NO_ERRORS)
def test_other_frames_do_no_harm(connect, name):
    client = Client(connect)
    client.send(NO_ERRORS[name])
    client.send(headers(9), data(stream=9))
    assert client.data(9) == message()
    assert client.goaway() is None


def test_another_protocol_ends_the_connection(connect):
    client = Client(connect, greeted=False)
    client.send(b"GET / HTTP/1.1\r\nhost: service\r\n\r\n")
    assert client.connection.closed
    assert client.connection.fault


def test_another_protocol_is_recognised_by_its_first_bytes():
    client = Client(greeted=False)
    client.send(b"GET")
    assert client.goaway() == PROTOCOL_ERROR


def test_settings_come_first(connect):
    client = Client(connect, greeted=False)
    client.send(PREFACE, frame(PING, bytes(8)))
    assert client.goaway() == PROTOCOL_ERROR


def test_a_fault_is_told():
    client = Client()
    assert client.connection.fault is None
    client.send(data(stream=1))
    assert client.connection.fault


def test_nothing_is_read_after_the_end(connect):
    client = Client(connect)
    client.send(data(stream=1))
    assert client.send(headers(9), data(stream=9)) == []
    assert client.calls == {}


def test_a_stream_too_many_is_refused(connect):
    client = Client(connect)
    client.send(frame(SETTINGS, flags=ACK))
    client.send(headers(1, data=b"\x20" + REQUEST))
    client.send(*(headers(2 * number + 1) for number in range(1, LIMITS.streams + 1)))
    assert len(client.calls) == LIMITS.streams


def test_a_stream_too_many_may_be_tried_again():
    client = Client()
    client.send(*(headers(2 * number + 1) for number in range(LIMITS.streams + 1)))
    assert client.resets() == {2 * LIMITS.streams + 1: REFUSED_STREAM}


def test_a_peer_that_drains_is_served():
    client = Client()
    client.send(frame(GOAWAY, bytes(8)), headers(), data())
    assert client.data() == message()


def test_a_block_in_pieces_is_read(connect):
    client = Client(connect)
    parts = [REQUEST[at : at + 7] for at in range(0, len(REQUEST), 7)][:8]
    rest = REQUEST[7 * len(parts) :]
    client.send(
        headers(data=parts[0], flags=0),
        *(frame(CONTINUATION, part, stream=1) for part in parts[1:]),
        frame(CONTINUATION, rest, flags=END_HEADERS, stream=1),
        data(),
    )
    assert client.data() == message()


def test_padding_and_priority_are_skipped(connect):
    client = Client(connect)
    flags = END_HEADERS | PADDED | WITH_PRIORITY
    client.send(
        frame(HEADERS, b"\x03" + bytes(5) + REQUEST + bytes(3), flags=flags, stream=1),
        data(b"\x04" + message() + bytes(4), flags=PADDED),
        data(b"\x04" + bytes(4), flags=PADDED),
    )
    assert client.data() == message()


def test_a_peer_is_ready_once_it_has_greeted(connect):
    client = Client(connect, greeted=False)
    for byte in START[:-1]:
        client.send(bytes((byte,)))
    assert not client.connection.ready
    client.send(START[-1:])
    assert client.connection.ready
