"""The Lua filter takes the usage event out of a flagged stream, and not a byte more."""

import gzip
import http.client
import itertools
import json
import re
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.recorded_pool import recorded, replaying

pytestmark = pytest.mark.slow

SSE = "text/event-stream; charset=utf-8"
EVENT = b'data: {"choices":[{"delta":{"content":"owl"},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
NAMED = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"system_fingerprint":"v1"}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3},"system_fingerprint":"v1"}\n\n'
DONE = b"data: [DONE]\n\n"
SILENT = EVENT + EVENT + NAMED + DONE
STREAM = EVENT + EVENT + LAST + USAGE + DONE


@pytest.fixture(
    scope="module", params=[("1.36", "observed"), ("1.40", "trailers"), ("1.40", "single")]
)
def envoy(request):
    with replaying(*request.param) as given:
        yield given


def pieces(data, *edges):
    edges = sorted({0, *(edge for edge in edges if edge < len(data)), len(data)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def alike(stream):
    """Leave out what differs from answer to answer."""
    return re.sub(rb'"(id|content|text)":"[^"]*"|"created":[0-9]+', b"", stream)


@pytest.mark.parametrize("name", ["chat-stream", "completion-stream"])
@pytest.mark.parametrize("size", [97, 1 << 20])
def test_what_is_left_of_vllms_stream_is_its_stream_without_usage(envoy, name, size):
    (kind, told), (_, silent) = recorded(f"{name}-usage"), recorded(name)
    left = envoy.ask(kind, pieces(told, *range(0, len(told), size)))
    assert alike(left) == alike(silent)
    assert len(left.split(b"\n\n")) == len(told.split(b"\n\n")) - 1


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(1, len(STREAM)), max_size=6))
def test_cuts_do_not_matter(envoy, edges):
    assert envoy.ask(SSE, pieces(STREAM, *edges)) == SILENT


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_a_byte_at_a_time_changes_nothing(envoy, end):
    stream, silent = (data.replace(b"\n\n", end) for data in (STREAM, SILENT))
    assert envoy.ask(SSE, pieces(stream, *range(len(stream)))) == silent


@pytest.mark.parametrize("hide", [True, False])
def test_a_stream_of_stated_length_arrives_whole(envoy, hide):
    envoy.stated = True
    try:
        assert envoy.ask(SSE, [STREAM], hide=hide) == (SILENT if hide else STREAM)
    finally:
        envoy.stated = False


@pytest.mark.parametrize("kind", ["Text/Event-Stream", "TEXT/EVENT-STREAM;charset=utf-8"])
def test_a_streams_type_may_be_written_in_any_case(envoy, kind):
    assert envoy.ask(kind, [STREAM]) == SILENT


def test_a_stream_that_is_not_flagged_passes_untouched(envoy):
    assert envoy.ask(SSE, pieces(STREAM, 60, 120), hide=False) == STREAM


def test_what_is_no_stream_passes_untouched(envoy):
    assert envoy.ask("application/json", pieces(STREAM, 60, 120)) == STREAM


def test_the_end_of_a_stream_without_its_blank_line_is_not_lost(envoy):
    for end in (b'data: {"choices"', b"data", b'data: {"choices":[{}]}\n', b"\r\n\r"):
        assert envoy.ask(SSE, [EVENT, USAGE, end]) == EVENT + end


@pytest.mark.parametrize("head", [b'data: {"choices":[{"text":"', b'data: {"choices":[],"text":"'])
@pytest.mark.parametrize("size", [100_000, 400_000])
def test_a_long_event_passes(envoy, head, size):
    event = head + b"x" * size + b'"}\n\n'
    stream = event + USAGE + DONE
    assert envoy.ask(SSE, pieces(stream, *range(0, len(stream), 30_000))) == event + DONE


def test_a_model_that_writes_a_usage_event_is_let_finish(envoy):
    content = json.dumps({"choices": [{"delta": {"content": USAGE.decode()}}]})
    event = b"data: " + content.encode() + b"\n\n"
    assert envoy.ask(SSE, pieces(event + USAGE + DONE, 9, 40, 70)) == event + DONE


def test_an_event_without_choices_or_usage_stays(envoy):
    others = b'data: {"choices":[]}\n\n: ping\n\ndata: {"usage":{"prompt_tokens":1}}\n\n'
    assert envoy.ask(SSE, pieces(others, 15)) == others


def test_a_stream_that_breaks_off_shows_what_came(envoy):
    with pytest.raises(http.client.IncompleteRead) as cut:
        envoy.ask(SSE, [EVENT, EVENT], whole=False)
    assert cut.value.partial == EVENT + EVENT


def test_an_older_vllm_that_does_not_name_itself_is_not_named(envoy):
    usage = USAGE.replace(b',"system_fingerprint":"v1"', b"")
    assert envoy.ask(SSE, pieces(EVENT + LAST + usage + DONE, 80)) == EVENT + LAST + DONE


def test_choices_that_end_one_after_the_other_keep_their_order(envoy):
    assert envoy.ask(SSE, [LAST, EVENT, LAST, USAGE, DONE]) == LAST + EVENT + NAMED + DONE


def ask_in_two(envoy, kind, first, rest):
    """Return what comes of a stream whose rest is sent once its first piece was received."""
    seen = threading.Event()

    def paced():
        yield first
        assert seen.wait(60), "the first piece did not come through"
        yield rest

    with envoy.asking(kind, paced()) as answer:
        received = answer.read1(1000)
        seen.set()
        return received, answer.read()


def test_an_event_is_passed_on_as_soon_as_it_ends(envoy):
    assert ask_in_two(envoy, SSE, EVENT, LAST + USAGE + DONE) == (EVENT, NAMED + DONE)


def test_a_compressed_stream_passes_as_it_comes(envoy):
    compressed = gzip.compress(STREAM)
    first, rest = compressed[:40], compressed[40:]
    kind = f"{SSE}\r\ncontent-encoding: gzip"
    assert ask_in_two(envoy, kind, first, rest) == (first, rest)
