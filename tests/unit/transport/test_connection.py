"""A connection that keeps the rules: messages, windows, ends of streams, limits and the drain."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.transport import frames
from extproc.transport.calls import Limits, Status
from extproc.transport.connection import (
    CONNECTION_WINDOW,
    MAX_COST,
    FramedConnection,
)
from extproc.transport.frames import (
    ACK,
    DATA,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME,
    MAX_FRAME_SIZE,
    MAX_WINDOW,
    NO_ERROR,
    PADDED,
    PING,
    REFUSED_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    window_update,
)
from extproc.transport.h2_stream import STREAM_WINDOW
from tests.support.h2_dialogue import HEADERS as FIELDS
from tests.support.h2_dialogue import (
    LIMITS,
    START,
    Client,
    block,
    data,
    headers,
    held_bytes,
    message,
    parsed,
    rst,
    setting,
)
from tests.support.ngh2_connection import Ngh2Connection

RESOURCE_EXHAUSTED, UNIMPLEMENTED = 8, 12
BYE = message(b"bye")
STATUS = Status(8, "enough")


# Messages.


def test_a_message_is_answered(connect):
    client = Client(connect)
    client.send(headers(), data())
    assert client.data() == message()
    assert not client.ends()


def test_the_headers_are_sent_once(connect):
    client = Client(connect)
    client.send(headers(), data(), data())
    assert client.kinds()[HEADERS] == 1
    assert client.data() == message() + message()


def test_several_messages_in_a_frame_are_answered_in_order(connect):
    client = Client(connect)
    both = message(b"one") + message(b"two")
    client.send(headers(), data(both + message(b"three")[:3]), data(message(b"three")[3:]))
    assert client.data() == both + message(b"three")


@given(st.lists(st.integers(1, 40), max_size=12))
def test_a_message_in_pieces_of_any_size_is_one_message(sizes):
    client, rest = Client(), message(b"a message in pieces") + message(b"") + BYE
    whole = rest
    client.send(headers())
    for size in sizes:
        client.send(data(rest[:size]))
        rest = rest[size:]
    client.send(data(rest))
    assert client.data() == whole
    assert client.status() == 0


@given(st.lists(st.integers(0, 400), max_size=20))
def test_a_connection_in_pieces_of_any_size_gets_the_same_answer(cuts):
    sent = (
        START
        + headers(1)
        + data(stream=1)
        + headers(3, flags=0, data=block([(":method", "POST")]))
        + frame(frames.CONTINUATION, block(REST), flags=frames.END_HEADERS, stream=3)
        + data(b"\x02" + message(b"padded") + bytes(2), 3, flags=PADDED)
        + frame(PING, bytes(8))
        + data(BYE, 1)
        + data(message(b"last"), 3, end=True)
    )
    whole, cut = Client(greeted=False), Client(greeted=False)
    whole.send(sent)
    places = [0, *sorted(cuts), len(sent)]
    for start, end in itertools.pairwise(places):
        cut.send(sent[start:end])
    assert cut.sent == whole.sent
    assert whole.status(1) == whole.status(3) == 0


REST = [(":path", "/echo"), (":scheme", "http"), ("content-type", "application/grpc")]


def test_a_call_may_answer_with_nothing(connect):
    client = Client(connect)
    client.send(headers(), data(message(b"quiet")))
    assert client.kinds() == {}


def test_a_compressed_message_is_not_implemented(connect):
    client = Client(connect)
    client.send(headers(), data(b"\1" + message()[1:]))
    assert client.status() == UNIMPLEMENTED
    assert client.calls[1].closed


def test_a_message_that_is_too_long_ends_its_stream(connect):
    client = Client(connect)
    client.send(headers(), data(b"\0" + (LIMITS.message_bytes + 1).to_bytes(4)))
    assert client.status() == RESOURCE_EXHAUSTED
    assert client.goaway() is None


def test_the_longest_message_is_read(connect):
    content = bytes(LIMITS.message_bytes)
    client = Client(connect)
    client.send(setting(INITIAL_WINDOW_SIZE, 1 << 20), window_update(0, 1 << 20), headers())
    for each in in_frames(message(content)):
        client.send(each)
    assert client.calls[1].heard == [content]
    assert client.data() == message(content)


def in_frames(payload, stream=1):
    return [data(payload[at : at + MAX_FRAME], stream) for at in range(0, len(payload), MAX_FRAME)]


# Ends of streams.


def test_the_service_ends_a_stream(connect):
    client = Client(connect)
    client.send(headers(), data(BYE))
    assert client.data() == BYE
    assert client.ends()
    assert client.status() == 0
    assert client.calls[1].closed


def test_the_service_ends_a_stream_without_an_answer(connect):
    client = Client(connect)
    client.send(headers(), data(message(b"error")))
    assert client.kinds() == {HEADERS: 1}
    assert client.status() == 13
    assert client.fields()["grpc-message"] == "a fault"


def test_messages_behind_the_last_are_not_read(connect):
    client = Client(connect)
    client.send(headers(), data(BYE + message() + message()[:4]), data())
    assert client.calls[1].heard == [b"bye"]
    assert client.connection.held_bytes == 0


def test_the_peer_ends_a_stream_whose_answers_wait(connect):
    client = opened(connect, 2)
    client.send(data(BYE), data(b"", end=True))
    client.send(window_update(1, 100))
    assert client.data() == BYE
    assert client.ends()


@pytest.mark.parametrize("end", [data(b"", end=True), headers(data=block([("a", "b")]), end=True)])
def test_the_peer_ends_a_stream(connect, end):
    client = Client(connect)
    client.send(headers(), data(), end)
    assert client.status() == 0
    assert client.calls[1].closed


def test_a_stream_that_ends_with_its_headers_is_ended(connect):
    client = Client(connect)
    client.send(headers(end=True))
    assert client.status() == 0


def test_a_last_message_that_ends_the_stream_is_answered(connect):
    client = Client(connect)
    client.send(headers(), data(end=True))
    assert client.data() == message()
    assert client.ends()


def test_the_peer_resets_a_stream(connect):
    client = Client(connect)
    client.send(headers(1), headers(3), data(message()[:4]), rst())
    assert client.calls[1].closed
    assert not client.calls[3].closed
    assert client.connection.held_bytes == 0


def test_an_unknown_path_is_refused(connect):
    client = Client(connect)
    client.send(headers(changes={":path": "/other"}), data())
    assert client.status() == UNIMPLEMENTED
    assert client.fields()["grpc-message"] == "no such method"


def test_what_is_no_grpc_is_refused(connect):
    client = Client(connect)
    client.send(headers(changes={"content-type": "text/plain"}))
    assert client.ends()
    assert client.calls == {}


def test_long_headers_are_refused_alone(connect):
    client = Client(connect)
    fields = block([*FIELDS.items(), *((f"x-{number}", "y" * 100) for number in range(160))])
    client.send(headers(1, data=fields[:MAX_FRAME], flags=0))
    client.send(frame(frames.CONTINUATION, fields[MAX_FRAME:], flags=4, stream=1))
    client.send(headers(3), data(stream=3))
    assert client.status(1) == RESOURCE_EXHAUSTED
    assert client.data(3) == message()


def test_the_server_ends_a_stream(connect):
    client = Client(connect)
    client.send(headers(), data())
    client.answered(client.connection.end(1, STATUS))
    assert client.status() == RESOURCE_EXHAUSTED
    assert client.calls[1].closed


def test_the_server_ends_a_stream_that_is_gone(connect):
    client = Client(connect)
    assert client.connection.end(1, STATUS) == b""


def test_a_lost_peer_closes_all_calls(connect):
    client = Client(connect)
    client.send(headers(1), headers(3), data(message()[:4]))
    client.connection.lose()
    client.connection.lose()
    assert all(call.closed for call in client.calls.values())
    assert client.connection.held_bytes == 0


# Windows.


def opened(connect, window=65_535):
    """Open a stream within a window for what the server sends."""
    client = Client(connect)
    client.send(setting(INITIAL_WINDOW_SIZE, window), headers())
    return client


def test_an_answer_waits_for_the_windows_of_its_stream(connect):
    client = opened(connect, 10)
    client.send(data(message(b"x" * 20)))
    assert client.data() == message(b"x" * 20)[:10]
    client.send(window_update(1, 5))
    assert client.data() == message(b"x" * 20)[:15]
    client.send(window_update(1, 50), data(BYE))
    assert client.data() == message(b"x" * 20) + BYE
    assert client.ends()


def test_answers_wait_for_the_window_of_the_connection(connect):
    client = opened(connect, 1 << 20)
    content = message(bytes(60_000))
    client.send(headers(3), *in_frames(content, 1), *in_frames(content, 3))
    assert len(client.data(1) + client.data(3)) == 65_535
    client.send(window_update(0, 1 << 20))
    assert client.data(1) == client.data(3) == content


def test_settings_open_a_window_of_none(connect):
    client = opened(connect, 0)
    client.send(data())
    assert client.data() == b""
    client.send(setting(INITIAL_WINDOW_SIZE, 100))
    assert client.data() == message()


def test_settings_make_a_window_negative(connect):
    client = opened(connect, 20)
    client.send(data())  # 10 bytes
    client.send(setting(INITIAL_WINDOW_SIZE, 5), data(), window_update(1, 5))
    assert client.data() == message()
    client.send(window_update(1, 3))
    assert client.data() == message() + message()[:3]


def test_a_stream_ends_behind_what_waits(connect):
    client = opened(connect, 2)
    client.send(data(BYE))
    assert client.data() == BYE[:2]
    assert not client.ends()
    assert client.calls[1].closed
    client.send(data(), window_update(1, 100))
    assert client.data() == BYE
    assert client.calls[1].heard == [b"bye"]
    assert client.ends()


def test_a_stream_that_waits_may_be_reset(connect):
    client = opened(connect, 2)
    client.send(data())
    client.send(rst(), window_update(0, 100))
    assert client.data() == message()[:2]


def test_frames_are_no_longer_than_the_peer_reads(connect):
    client = opened(connect)
    content = message(bytes(40_000))
    client.send(*in_frames(content))
    sizes = [len(each.payload) for each in parsed(client.sent) if each.kind == DATA]
    assert max(sizes) <= MAX_FRAME


def test_a_peer_may_read_longer_frames():
    client = opened(FramedConnection)
    client.send(setting(MAX_FRAME_SIZE, 1 << 20), *in_frames(message(bytes(40_000))))
    sizes = [len(each.payload) for each in parsed(client.sent) if each.kind == DATA]
    assert sizes == [40_005]


def test_more_than_the_window_of_a_stream_is_a_fault():
    client = Client(limits=Limits(streams=10, message_bytes=1 << 26))
    client.send(setting(INITIAL_WINDOW_SIZE, 0), headers())
    # An answer that waits: the peer must take it before it may send more than its window.
    client.send(data())
    for _ in range(STREAM_WINDOW // MAX_FRAME - 1):
        client.send(data(BIG_PIECE))
    assert client.goaway() is None
    client.send(data(BIG_PIECE))
    assert client.goaway() == FLOW_CONTROL_ERROR


BIG_PIECE = message(bytes(MAX_FRAME - 5))


def test_more_than_the_window_of_the_connection_is_a_fault():
    client = Client(limits=Limits(streams=10, message_bytes=1 << 26))
    client.send(setting(INITIAL_WINDOW_SIZE, 0), *(headers(2 * n + 1) for n in range(10)))
    for at in range(2 * CONNECTION_WINDOW // MAX_FRAME):
        client.send(data(BIG_PIECE, stream=1 + 2 * (at % 10)))
    assert client.goaway() == FLOW_CONTROL_ERROR


def given_back(client, stream):
    return sum(
        int.from_bytes(each.payload)
        for each in parsed(client.sent)
        if each.kind == WINDOW_UPDATE and each.stream == stream
    )


def test_windows_are_given_back_as_messages_arrive(connect):
    client = Client(connect, limits=Limits(streams=10, message_bytes=1 << 26))
    client.send(headers())
    payload = message(bytes(3 * CONNECTION_WINDOW))
    for each in in_frames(payload):
        client.send(each)
    assert client.goaway() is None
    assert given_back(client, 1) >= 2 * CONNECTION_WINDOW
    assert given_back(client, 0) >= 2 * CONNECTION_WINDOW
    assert len(client.calls[1].heard[0]) == 3 * CONNECTION_WINDOW


def test_a_window_is_given_back_to_a_stream_of_small_messages(connect):
    client = Client(connect)
    client.send(headers())
    small = data(message(b"quiet")) + data(message(b"quiet") * 1600)
    for _ in range(2 * STREAM_WINDOW // len(small)):
        client.send(small)
    for _ in range(2 * STREAM_WINDOW // MAX_FRAME):
        client.send(data(message(bytes(MAX_FRAME - 5))), window_update(1, MAX_FRAME))
        client.send(window_update(0, MAX_FRAME))
    assert client.goaway() is None
    assert given_back(client, 1) > 2 * STREAM_WINDOW


def test_streams_whose_answers_wait_do_not_stop_the_others():
    client = Client(limits=Limits(streams=10, message_bytes=1 << 26))
    client.send(window_update(0, 1 << 28), headers(1), headers(3))
    for _ in range(100):
        client.send(data(BIG_PIECE, 1))
    for _ in range(2 * CONNECTION_WINDOW // MAX_FRAME):
        client.send(data(message(b"quiet".ljust(MAX_FRAME - 5)), 3))
    assert client.goaway() is None
    assert given_back(client, 0) > CONNECTION_WINDOW


def test_streams_get_the_window_of_the_connection_in_turn():
    client = opened(FramedConnection, 1 << 20)
    client.send(headers(3), data(message(bytes(9000)), 1), *[data(BIG_PIECE, 1)] * 4)
    client.send(data(BIG_PIECE, 3))
    before = len(client.data(1))
    for _ in range(4):
        client.send(window_update(0, 100))
    assert len(client.data(1)) - before == len(client.data(3)) == 200


def test_a_stream_that_is_blocked_may_be_reset():
    client = opened(FramedConnection, 1 << 20)
    client.send(*[data(BIG_PIECE)] * 5)
    client.send(rst(), window_update(0, 1 << 20))
    assert len(client.data()) == 65_535


def test_data_of_streams_that_are_gone_count_for_the_connection(connect):
    client = Client(connect)
    client.send(headers(), rst())
    for _ in range(CONNECTION_WINDOW // MAX_FRAME):
        client.send(data(bytes(MAX_FRAME)))
    assert given_back(client, 0) > CONNECTION_WINDOW // 4


def test_a_window_is_given_back_once_its_answers_are_read():
    client = Client(limits=Limits(streams=10, message_bytes=1 << 26))
    client.send(setting(INITIAL_WINDOW_SIZE, 0), headers())
    for _ in range(STREAM_WINDOW // MAX_FRAME):
        client.send(data(BIG_PIECE))
    assert given_back(client, 1) == 0
    client.send(window_update(0, 1 << 24), window_update(1, 1 << 24))
    assert given_back(client, 1) == STREAM_WINDOW


def test_answers_that_nobody_reads_end_the_connection():
    client = Client(limits=Limits(streams=1000, message_bytes=1 << 20))
    client.send(setting(INITIAL_WINDOW_SIZE, 0))
    for number in range(1, 1000, 2):
        client.send(headers(number), data(BIG_PIECE, number))
    assert client.goaway() == ENHANCE_YOUR_CALM


# What a peer may ask of a connection.


def test_a_ping_is_answered(connect):
    client = Client(connect)
    [answer] = client.send(frame(PING, b"12345678"))
    assert (answer.kind, answer.flags, answer.payload) == (PING, ACK, b"12345678")


def test_settings_are_acknowledged(connect):
    client = Client(connect)
    [answer] = client.send(frame(SETTINGS))
    assert (answer.kind, answer.flags, answer.payload) == (SETTINGS, ACK, b"")


FLOODS = {
    "PING": frame(PING, bytes(8)),
    "answers to PINGs": frame(PING, bytes(8), flags=ACK),
    "SETTINGS": frame(SETTINGS),
    "priorities": frame(frames.PRIORITY, bytes(5), stream=5),
    "unknown frames": frame(0x77),
    "empty DATA": data(b""),
    "empty padded DATA": data(b"\0", flags=frames.PADDED),
    "notices of a drain": frame(GOAWAY, bytes(8)),
    "WINDOW_UPDATE": window_update(1, 1),
    "WINDOW_UPDATE of the connection": window_update(0, 1),
    "acknowledgements": frame(SETTINGS, flags=ACK),
    "changes of the window": setting(INITIAL_WINDOW_SIZE, 100),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_connection(name):
    client = Client()
    client.send(headers())
    client.send(FLOODS[name] * (MAX_COST // 30))
    first = client.goaway()
    client.send(FLOODS[name] * MAX_COST)
    assert (first, client.goaway()) == (None, ENHANCE_YOUR_CALM)


LATE = {
    "empty DATA": data(b""),
    "RST_STREAM": rst(),
    "WINDOW_UPDATE": window_update(1, 1),
    "trailers": headers(data=block([("a", "b")]), end=True),
}


@pytest.mark.parametrize("name", LATE)
def test_a_flood_on_a_stream_that_is_gone_ends_the_connection(name):
    client = Client()
    client.send(headers(), data(BYE), rst())
    client.send(LATE[name] * (MAX_COST // 30))
    first = client.goaway()
    client.send(LATE[name] * MAX_COST)
    assert (first, client.goaway()) == (None, ENHANCE_YOUR_CALM)


STREAMS = {
    "resets": lambda number: headers(number) + rst(number),
    "streams without a message": lambda number: headers(number, end=True),
    "malformed requests": lambda number: headers(number, {":path": None}),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_flood_of_streams_ends_the_connection(name):
    client = Client()
    client.send(*(STREAMS[name](2 * number + 1) for number in range(MAX_COST // 10 + 1)))
    assert client.goaway() == ENHANCE_YOUR_CALM


def test_resets_after_a_message_are_no_flood(connect):
    client = Client(connect)
    for number in range(1, 2 * MAX_COST // 10 + 100, 2):
        client.send(headers(number), data(stream=number), rst(number))
    assert client.goaway() is None


def test_time_forgives():
    client = Client()
    for _ in range(3):
        client.send(frame(PING, bytes(8)) * (MAX_COST // 10 - 10))
        client.connection.tick()
    assert client.goaway() is None


def test_a_call_to_somewhere_else_costs_little():
    client = Client()
    client.send(*(headers(2 * n + 1, {":path": "/other"}) for n in range(MAX_COST // 10)))
    assert client.goaway() is None


def test_the_stream_that_holds_most_is_shed(connect):
    client = Client(connect)
    client.send(headers(1), headers(3), headers(5))
    client.send(data(message()[:6], 1), data(message()[:8], 3), data(message()[:4], 5))
    assert client.connection.held_bytes == 18
    client.answered(client.connection.shed())
    assert client.status(3) == RESOURCE_EXHAUSTED
    assert client.connection.held_bytes == 10


def test_answers_that_wait_are_held():
    client = Client()
    client.send(setting(INITIAL_WINDOW_SIZE, 7), headers(1), data(stream=1))
    assert client.connection.held_bytes == len(message()) - 7
    client.send(window_update(1, 100))
    assert client.connection.held_bytes == 0


def test_the_stream_whose_answers_are_not_read_is_shed():
    client = Client()
    client.send(setting(INITIAL_WINDOW_SIZE, 0), headers(1), headers(3), data(stream=3))
    client.send(data(message()[:6], 1))
    client.answered(client.connection.shed())
    assert client.resets() == {3: ENHANCE_YOUR_CALM}
    assert client.connection.held_bytes == 6


def test_a_stream_that_has_ended_is_shed_too():
    client = Client()
    client.send(setting(INITIAL_WINDOW_SIZE, 0), headers(1), data(BYE))
    client.answered(client.connection.shed())
    assert client.resets() == {1: ENHANCE_YOUR_CALM}
    assert client.connection.held_bytes == 0


def test_without_streams_there_is_nothing_to_shed(connect):
    assert Client(connect).connection.shed() == b""


def test_a_sign_of_life_is_asked_for(connect):
    client = Client(connect)
    [ping] = client.answered(client.connection.ping())
    assert (ping.kind, ping.flags) == (PING, 0)
    assert client.send(frame(PING, ping.payload, flags=ACK)) == []


def test_a_connection_that_is_closed_asks_for_nothing(connect):
    client = Client(connect)
    client.connection.lose()
    for ask in (client.connection.ping, client.connection.drain, client.connection.shut):
        assert ask() == b""


# The drain.


def test_a_drain_serves_what_is_open(connect):
    client = Client(connect)
    client.send(headers(1), data(stream=1))
    notice, ping = client.answered(client.connection.drain())
    assert (notice.kind, last_stream(notice)) == (GOAWAY, MAX_WINDOW)
    client.send(headers(3), data(stream=3))  # the peer has not read the notice yet
    [last] = client.send(frame(PING, ping.payload, flags=ACK))
    assert (last.kind, last_stream(last)) == (GOAWAY, 3)
    client.send(data(BYE, 1))
    client.send(rst(1))
    assert not client.connection.closed
    client.send(data(BYE, 3))
    client.send(rst(3))
    assert client.connection.closed
    assert client.goaway() == NO_ERROR


def last_stream(goaway):
    return int.from_bytes(goaway.payload[:4])


def drained(client):
    _, ping = client.answered(client.connection.drain())
    client.send(frame(PING, ping.payload, flags=ACK))


def test_a_drain_ends_an_idle_connection(connect):
    client = Client(connect)
    drained(client)
    assert client.connection.closed


def test_a_drain_refuses_new_streams():
    client = Client()
    client.send(headers(1))
    drained(client)
    client.send(headers(3), data(stream=3))
    assert client.resets() == {3: REFUSED_STREAM}


def test_a_second_drain_says_nothing_new():
    client = Client()
    client.send(headers(1))
    assert client.connection.drain()
    assert client.connection.drain() == b""


def test_an_answer_of_another_ping_does_not_end_the_drain():
    client = Client()
    client.connection.drain()
    client.send(frame(PING, b"12345678", flags=ACK))
    assert not client.connection.closed


def test_a_fault_after_the_drain_names_the_last_stream_served():
    client = Client()
    client.send(headers(1))
    drained(client)
    client.send(headers(3), frame(PING))
    assert [last_stream(each) for each in parsed(client.sent) if each.kind == GOAWAY][-1] == 1


def test_the_end_is_told(connect):
    client = Client(connect)
    client.send(headers(1))
    client.answered(client.connection.shut())
    assert client.goaway() == NO_ERROR
    assert client.connection.closed
    assert client.calls[1].closed


# Any frames at all.

NUMBERS = st.sampled_from((0, 1, 1, 1, 2, 3, 5, 7, 2**31 - 1))
PAYLOADS = st.one_of(
    st.binary(max_size=20),
    st.sampled_from((message(), BYE, message(b"error"), bytes(8), bytes(4), bytes(5))),
    st.integers(0, 2**31 - 1).map(lambda number: number.to_bytes(4)),
)
RANDOM = st.builds(
    lambda kind, flags, stream, payload: frame(kind, payload, flags=flags, stream=stream),
    st.integers(0, 12),
    st.sampled_from((0, 0, 0, 1, 4, 5, 8, 32, 255)),
    NUMBERS,
    PAYLOADS,
)
SOUND = st.one_of(
    NUMBERS.map(headers),
    st.builds(data, PAYLOADS, NUMBERS),
    NUMBERS.map(rst),
    st.builds(window_update, NUMBERS, st.integers(0, 100_000)),
    st.integers(0, 100_000).map(lambda size: setting(INITIAL_WINDOW_SIZE, size)),
)


@given(st.lists(st.one_of(SOUND, SOUND, SOUND, RANDOM), max_size=30))
def test_frames_of_any_kind_cost_no_more_than_their_connection(sent):
    client = Client()
    for each in sent:
        client.send(each)
    connection = client.connection
    assert (connection.fault is None) == (client.goaway() is None)
    assert connection.held_bytes == held_bytes(client.connection._streams.values())
    if not connection.closed:
        client.answered(connection.shut())
    assert all(call.closed for call in client.calls.values())
    assert connection.held_bytes == 0
    assert client.connection.receive(b"more") == b""


OPEN = st.sampled_from((1, 3, 5, 7))
LEGAL = st.one_of(
    st.builds(data, PAYLOADS.filter(bool), OPEN),
    st.builds(data, st.binary(max_size=20).map(message), OPEN),
    OPEN.map(lambda stream: data(b"", stream, end=True)),
    OPEN.map(rst),
    st.builds(window_update, OPEN, st.integers(1, 1000)),
    st.integers(0, 100).map(lambda size: setting(INITIAL_WINDOW_SIZE, size)),
)


@given(st.lists(LEGAL, max_size=20))
def test_libnghttp2_answers_legal_frames_alike(sent):
    ours, theirs = Client(), Client(Ngh2Connection)
    # nghttp2 sends no trailers while the window of their stream is closed.
    opened = setting(INITIAL_WINDOW_SIZE, 65_535)
    for each in (*map(headers, (1, 3, 5, 7)), *sent, opened):
        ours.send(each)
        theirs.send(each)
        if theirs.connection.closed:
            return  # after the end of a stream it takes more for an error than we do
    assert ours.goaway() is None
    for stream, call in ours.calls.items():
        assert call.heard == theirs.calls[stream].heard
        assert ours.data(stream) == theirs.data(stream)
        # Nor does it after the client has reset it in the meantime.
        if rst(stream) not in sent:
            assert ours.ends(stream) == theirs.ends(stream)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_never_raise(sent):
    Client().send(sent)
