"""The short way through the observer's two messages, beside the session."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extproc.names import HIDES_USAGE, NAMESPACE, NOTE, USAGE_METADATA
from extproc.protos.envoy.data.ai.v3.token_usage_pb2 import TokenUsage
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.stream import observed
from extproc.stream.observed import ObservedHeads, read_end
from extproc.stream.session import Session
from extproc.stream.stream import Stream
from extproc.stream.wire import field
from tests.support.conversation import stages

NAMES = (":status", "content-type", "content-encoding")
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=20)
HEADERS = st.lists(st.tuples(st.sampled_from([*NAMES, "server"]), TEXTS), max_size=5)
NOTES = st.text(max_size=200)


def head(note="{}", headers=((":status", "200"),), *, ends=False, attempts=1, observing=True):
    message = ProcessingRequest(observability_mode=observing)
    message.protocol_config.SetInParent()
    message.response_headers.end_of_stream = ends
    for key, value in headers:
        message.response_headers.headers.headers.add(key=key, raw_value=value.encode("latin-1"))
    metadata = message.metadata_context.filter_metadata[NAMESPACE]
    metadata.update({HIDES_USAGE: True, NOTE: note})
    message.attributes["a"]["upstream.request_attempt_count"] = attempts
    return message


def end(usage=None):
    message = ProcessingRequest(observability_mode=True, response_trailers={})
    if usage is not None:
        message.metadata_context.typed_filter_metadata[USAGE_METADATA].Pack(usage)
    return message


def of_session(*messages):
    session = Session(NAMES)
    return [session.receive(message) for message in messages][-1]


def noted(event):
    """Return the headers with nothing but the note of the metadata."""
    return structs.replace(event, note={NOTE: event.note[NOTE]})


def test_a_value_without_a_kind_is_no_value():
    message = head("ab")
    message.metadata_context.filter_metadata[NAMESPACE].fields["other"].SetInParent()
    message.attributes["a"].fields["upstream.request_attempt_count"].Clear()
    found = ObservedHeads(NAMES).read(message.SerializeToString())
    assert found == noted(of_session(message))
    assert "other" not in of_session(message).note


@given(NOTES, NOTES, HEADERS, st.integers(0, 3))
def test_heads_are_those_of_the_session(first, second, headers, attempts):
    heads = ObservedHeads(NAMES)
    for note in (first, first, second, "x" * len(first)):
        message = head(note, headers, attempts=attempts)
        found = heads.read(message.SerializeToString())
        assert found == noted(of_session(message))


def test_heads_that_differ_in_the_note_are_read_once(monkeypatch):
    heads = ObservedHeads(NAMES)
    heads.read(head("ab").SerializeToString())
    monkeypatch.setattr(heads, "_names", None)
    assert heads.read(head("cde").SerializeToString()) == noted(of_session(head("cde")))


def test_the_oldest_ways_to_say_it_are_forgotten(monkeypatch):
    monkeypatch.setattr(observed, "_KEPT", 2)
    heads = ObservedHeads(NAMES)
    for attempts in (1, 2, 3, 1):
        message = head(attempts=attempts)
        assert heads.read(message.SerializeToString()) == noted(of_session(message))


@pytest.mark.parametrize(
    "message",
    [
        head(ends=True),
        head(observing=False),
        head("{}", [(":status", "2" * 5000)]),
        ProcessingRequest(observability_mode=True, response_headers={}),
        ProcessingRequest(observability_mode=True, response_trailers={}),
        ProcessingRequest(),
    ],
)
def test_other_heads_are_left_to_the_session(message):
    assert ObservedHeads(NAMES).read(message.SerializeToString()) is None


@pytest.mark.parametrize(
    "more",
    [
        b"\xff",
        ProcessingRequest(request_headers={}).SerializeToString(),
        ProcessingRequest(request_body={}).SerializeToString(),
        head("ef").SerializeToString(),  # whose note counts
    ],
)
def test_a_head_that_says_more_is_left_to_the_session(more):
    assert ObservedHeads(NAMES).read(head("ab").SerializeToString() + more) is None


def test_a_head_that_would_be_kept_at_length_is_left_to_the_session():
    assert ObservedHeads(NAMES).read(head("x" * 5000).SerializeToString()) is None


def test_a_head_without_a_note_is_left_to_the_session():
    message = head()
    message.metadata_context.filter_metadata[NAMESPACE].fields.pop(NOTE)
    assert ObservedHeads(NAMES).read(message.SerializeToString()) is None
    message.metadata_context.filter_metadata.pop(NAMESPACE)
    assert ObservedHeads(NAMES).read(message.SerializeToString()) is None


def test_a_note_of_another_type_is_left_to_the_session():
    message = head()
    message.metadata_context.filter_metadata[NAMESPACE][NOTE] = 1.0
    assert ObservedHeads(NAMES).read(message.SerializeToString()) is None


def test_a_note_that_is_not_utf_8_is_left_to_the_session():
    data = head("ab").SerializeToString().replace(b"ab", b"\xff\xff")
    assert ObservedHeads(NAMES).read(data) is None


@pytest.mark.parametrize(
    "metadata",
    [
        b"\x12\x00",  # of another field
        b"\x0a\x02\x12\x00",  # an entry without a key
        b"\x0a\x05\x0a\x01a\x18\x01",  # without a value
        b"\x0a\x07\x0a\x01a\x12\x00\x18\x01",  # with more than these
        b"\x0a\x7f\x0a\x01a\x12\x00",  # that is cut
    ],
)
def test_a_head_with_other_metadata_is_left_to_the_session(metadata):
    message = head("ab")
    given = field(b"\x42", message.metadata_context.SerializeToString())
    data = message.SerializeToString()
    assert given in data
    assert ObservedHeads(NAMES).read(data.replace(given, field(b"\x42", metadata))) is None


def test_a_note_with_more_than_its_text_is_left_to_the_session():
    data = head("ab").SerializeToString()
    assert (
        ObservedHeads(NAMES).read(data.replace(b"\x12\x04\x1a\x02ab", b"\x12\x04\x1a\x01a\x20"))
        is None
    )


def test_an_end_says_the_same_behind_other_metadata():
    usage = TokenUsage(extraction_status=TokenUsage.COMPLETE)
    usage.input_tokens.value = 7
    message = end(usage)
    message.metadata_context.filter_metadata[NAMESPACE].update({NOTE: "{}", HIDES_USAGE: True})
    data = message.SerializeToString()
    assert read_end(data) == of_session(head(), message)
    cut = data.replace(b"\x42", b"\x42\xff\xff\x03", 1)  # more metadata than there is
    assert read_end(cut) is None


def test_an_end_whose_metadata_is_cut_is_left_to_the_session():
    trailers, mode = b"\x3a\x00", b"\x50\x01"
    assert trailers + mode == end().SerializeToString()
    assert read_end(trailers + field(b"\x42", b"\x0a\x7f") + mode) is None


def test_a_long_end_is_read_and_not_kept():
    message = end()
    message.response_trailers.trailers.headers.add(key="x", raw_value=b"x" * 5000)
    assert read_end(message.SerializeToString()) == of_session(head(), message)


@given(st.binary(max_size=60), st.integers(0, 200))
def test_no_bytes_raise(data, length):
    message = head("ab").SerializeToString()
    for each in (data, b"*" + data, message[:length] + data, message[:length]):
        ObservedHeads(NAMES).read(each)
        read_end(each)


@given(st.integers(0, 1 << 31), st.integers(0, 1 << 31))
def test_ends_are_those_of_the_session(prompt, completion):
    usage = TokenUsage(extraction_status=TokenUsage.COMPLETE)
    usage.input_tokens.value, usage.output_tokens.value = prompt, completion
    for message in (end(), end(usage)):
        assert read_end(message.SerializeToString()) == of_session(head(), message)


@pytest.mark.parametrize(
    "message",
    [
        ProcessingRequest(response_trailers={}),
        ProcessingRequest(observability_mode=True, response_body={}),
        ProcessingRequest(observability_mode=True),
    ],
)
def test_other_ends_are_left_to_the_session(message):
    assert read_end(message.SerializeToString()) is None


@pytest.mark.parametrize(
    "messages",
    [
        [head(), end()],
        [head(), ProcessingRequest(observability_mode=True, response_body={"body": b"{}"}), end()],
        [head(), head()],
        [head(), end(), end()],
        [head(), ProcessingRequest(response_trailers={})],
        [head(ends=True)],
        [end()],
    ],
)
def test_a_stream_ends_as_one_whose_messages_the_session_reads(messages):
    short, long = Stream(stages()), Stream(stages())
    for message in messages:
        assert short.receive_encoded(message.SerializeToString()) == long.receive(message)
        assert short.finished == long.finished
    short.close()
    long.close()
    assert type(short.error) is type(long.error)
