"""The short way through the router's two messages, beside the session."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.protos.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import (
    ProcessingMode,
)
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.stream.buffered import Wanted, read_body, read_head
from extproc.stream.session import Body, Direction, Head, Session
from extproc.stream.stream import Stream
from tests.support.conversation import counted, decoded, stages

NAMES = (":path", ":method", "content-length", "x-kind", "y" * 128)
WANTED = Wanted(NAMES)
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=300)
KEYS = st.sampled_from([*NAMES, "accept", "x-kind-of", "an-x-kind", "x" * 128])
HEADERS = st.lists(st.tuples(KEYS, TEXTS), max_size=20)


def head(headers=(), *, ends=False, mode=ProcessingMode.BUFFERED, flagged=True):
    message = ProcessingRequest()
    message.request_headers.end_of_stream = ends
    message.request_headers.headers.SetInParent()
    for key, value in headers:
        message.request_headers.headers.headers.add(key=key, raw_value=value.encode("latin-1"))
    message.protocol_config.request_body_mode = mode
    if flagged:
        message.metadata_context.filter_metadata["llm"]["hides_usage"] = True
    return message


def body(data=b"{}", *, ends=True):
    return ProcessingRequest(request_body={"body": data, "end_of_stream": ends})


def post(*more):
    return head([(":path", "/v1/chat/completions"), (":method", "POST"), *more])


@given(HEADERS, st.booleans())
def test_headers_are_those_of_the_session(headers, flagged):
    message = head(headers, flagged=flagged)
    event = Session(NAMES).receive(message)
    assert isinstance(event, Head)
    read = read_head(message.SerializeToString(), WANTED)
    if read is None:  # the session reads an empty value too, and the last of several
        needed = [(key, value) for key, value in headers if key in NAMES]
        assert not all(value for _, value in needed) or len(needed) > len(dict(needed))
    else:
        assert read == (event.headers, event.note)


@pytest.mark.parametrize("size", [127, 128, 20_000])
def test_a_long_value_is_read_whole(size):
    headers, _ = read_head(head([("x-kind", "a" * size)]).SerializeToString(), WANTED)
    assert headers == {"x-kind": "a" * size}


@given(st.binary(max_size=20_000), st.booleans())
def test_a_body_is_that_of_the_session(data, ends):
    session = Session()
    session.receive(head())
    event = session.receive(message := body(data, ends=ends))
    assert event == Body(Direction.REQUEST, data, end_of_stream=True, whole=True)
    assert read_body(message.SerializeToString()) == (data or None)


@pytest.mark.parametrize(
    "message",
    [
        head(ends=True),
        head(mode=ProcessingMode.STREAMED),
        ProcessingRequest(request_headers={}),
        ProcessingRequest(observability_mode=True, request_headers={"headers": {}}),
        ProcessingRequest(response_headers={}),
        ProcessingRequest(
            request_headers={"headers": {}}, metadata_context={"filter_metadata": {"a" * 600: {}}}
        ),
        ProcessingRequest(request_headers={"headers": {}, "end_of_stream": True}),
    ],
)
def test_other_heads_are_left_to_the_session(message):
    assert read_head(message.SerializeToString(), WANTED) is None


@pytest.mark.parametrize(
    "message",
    [
        ProcessingRequest(request_trailers={}),
        ProcessingRequest(request_body={"end_of_stream": True}),
        ProcessingRequest(request_body={"body": b"{}"}, observability_mode=True),
        ProcessingRequest(request_body={"body": b"{}", "grpc_message_compressed": True}),
        ProcessingRequest(request_body={"body": b"{}"}, client_window_update={}),
    ],
)
def test_other_bodies_are_left_to_the_session(message):
    assert read_body(message.SerializeToString()) is None


@given(st.binary(max_size=60))
def test_no_bytes_raise(data):
    message = post(("x-kind", "a")).SerializeToString()
    for each in (data, b"\x12" + data, b'"' + data, message[: len(data)], message + data):
        read_head(each, WANTED)
        read_body(each)


@pytest.mark.parametrize("length", [b"\xff" * 9, b"\x7f", b"\x05\x0a\x7f"])
@pytest.mark.parametrize("tag", [b"\x12", b'"'])
def test_lengths_beyond_the_message_are_left_to_the_session(tag, length):
    assert read_head(tag + length, WANTED) is None
    assert read_body(tag + length) is None


def test_a_header_whose_value_is_that_of_another_is_left_to_the_session():
    message = head([("x-kind", "a")])
    message.request_headers.headers.headers.add(key=":path")
    assert read_head(message.SerializeToString(), WANTED) is None


@pytest.mark.parametrize("value", [{"value": "POST"}, {"raw_value": b"POST", "value": "GET"}])
def test_values_in_the_other_field_are_left_to_the_session(value):
    message = head()
    message.request_headers.headers.headers.add(key=":method", **value)
    assert read_head(message.SerializeToString(), WANTED) is None


def test_a_header_of_more_fields_is_left_to_the_session():
    message = head([(":method", "POST")])
    message.request_headers.headers.headers[0].MergeFromString(b"\x20\x01")  # unknown to us
    assert read_head(message.SerializeToString(), WANTED) is None


def test_headers_of_more_fields_are_left_to_the_session():
    message = head([(":method", "POST")])
    message.request_headers.headers.MergeFromString(b"\x20\x01")  # unknown to us
    assert read_head(message.SerializeToString(), WANTED) is None


def test_a_header_without_a_name_is_left_to_the_session():
    message = head()
    message.request_headers.headers.headers.add(raw_value=b"POST")
    assert read_head(message.SerializeToString(), WANTED) is None


def test_a_body_of_more_fields_is_left_to_the_session():
    message = body()
    message.request_body.MergeFromString(b"\x38\x01")  # unknown to us
    assert read_body(message.SerializeToString()) is None


def test_a_body_that_the_session_reads_follows_a_head_that_it_did_not():
    stream = Stream(stages())
    [first] = stream.receive_encoded(post().SerializeToString())
    replies = stream.receive_encoded(
        ProcessingRequest(request_trailers={}).SerializeToString(),
    )
    assert decoded([first])[0].HasField("request_headers")
    assert decoded(replies)[0].HasField("request_trailers")
    assert stream.finished


def test_a_message_behind_the_decision_breaks_the_protocol():
    given_stages = stages()
    stream = Stream(given_stages)
    for message in (post(), body(), head()):
        replies = stream.receive_encoded(message.SerializeToString())
    stream.close()
    assert replies == []
    assert counted(given_stages.metrics.streams_ended) == {("protocol",): 1}


@pytest.mark.interpreted
def test_a_fault_of_the_short_way_ends_the_stream(monkeypatch):
    given_stages = stages()
    stream = Stream(given_stages)
    monkeypatch.setattr("extproc.stream.stream.read_head", lambda *_: 1 // 0)
    assert stream.receive_encoded(post().SerializeToString()) == []
    stream.close()
    assert stream.finished
    assert counted(given_stages.metrics.streams_ended) == {("fault",): 1}


def test_a_request_that_is_not_read_is_released_with_its_headers():
    stream = Stream(stages())
    replies = stream.receive_encoded(head([(":path", "/metrics")]).SerializeToString())
    assert len(replies) == 1
    assert stream.finished


@given(HEADERS, st.binary(min_size=1, max_size=300))
def test_replies_are_those_of_the_session(headers, data):
    quick, general = Stream(stages()), Stream(stages())
    for message in (post(*headers), body(data)):
        assert quick.receive_encoded(message.SerializeToString()) == general.receive(message)
        assert quick.finished == general.finished
