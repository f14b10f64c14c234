"""Real answers of vLLM 0.32 (responses/*.http, by responses/record.py), and what may arrive."""

import gzip
import json
import tracemalloc
from itertools import pairwise
from typing import NamedTuple

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from extproc.response.reader import (
    MAX_DOCUMENT_BYTES,
    Finish,
    Refused,
    Unlearnable,
    Usage,
    UsageReader,
)
from tests.support.paths import DATA

RESPONSES = DATA / "responses"
SSE, JSON = "text/event-stream; charset=utf-8", "application/json"
DONE = b"data: [DONE]\n\n"
STATED = b'{"usage": {"prompt_tokens": 10, "completion_tokens": 3}}'
USAGE = Usage(prompt_tokens=10, completion_tokens=3, cached_tokens=0, finish=Finish.OTHER)


class Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes


def recorded(name):
    head, _, body = (RESPONSES / f"{name}.http").read_bytes().partition(b"\n\n")
    status, content_type, _ = head.decode().splitlines()
    return Answer(int(status.split()[1]), content_type.removeprefix("content-type: "), body)


def read(answer, pieces=None, encoding=""):
    reader = UsageReader(answer.status, answer.content_type, encoding)
    for piece in [answer.body] if pieces is None else pieces:
        reader.feed(piece)
    return reader.finish()


def stream(*data, end=DONE):
    return read(Answer(200, SSE, b"".join(b"data: " + d + b"\n\n" for d in data) + end))


def document(body, status=200):
    return read(Answer(status, JSON, body))


def cut(data, fractions):
    edges = [0, *sorted(int(f * len(data)) for f in fractions), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


CUTS = st.lists(st.floats(0, 1), max_size=30)


def length(prompt, completion, cached=0):
    return Usage(prompt, completion, cached, Finish.LENGTH)


def none(prompt):
    return Usage(prompt, 0, 0, Finish.OTHER)


OUTCOMES = {
    "chat": length(9, 6),
    "chat-logprobs": length(9, 3),
    "chat-n2": length(9, 12),
    "chat-stopped": Usage(9, 104, 0, Finish.STOP),
    "chat-tool": Usage(126, 104, 0, Finish.OTHER),
    "chat-stream": Unlearnable.ABSENT,
    "chat-stream-continuous": length(9, 6),
    "chat-stream-n2": length(9, 12),
    "chat-stream-stopped": Usage(9, 104, 0, Finish.STOP),
    "chat-stream-usage": length(9, 6),
    "completion": length(1, 6),
    "completion-echo": length(1, 1),
    "completion-ids": length(3, 3),
    "completion-prompts": length(3, 6),
    "completion-stream": Unlearnable.ABSENT,
    "completion-stream-usage": length(1, 6),
    "response": length(9, 6),
    "response-stream": length(9, 6),
    "message": length(9, 6),
    "message-stream": length(9, 6),
    "cached-chat": length(108, 6, 96),
    "cached-chat-stream": length(108, 6, 96),
    "cached-completion": length(100, 6, 96),
    "cached-response": length(108, 6, 96),
    "cached-response-stream": length(108, 6, 96),
    "cached-message": length(108, 6, 96),
    "cached-message-stream": length(108, 6, 96),
    # prompt and max_tokens together over the window: cut to it without an error
    "clamped-chat": length(2036, 12),
    "clamped-chat-stream": length(2036, 12),
    "clamped-completion": length(2028, 20),
    "clamped-response": length(2036, 12, 2016),
    "clamped-message": length(2036, 12),
    "embedding": none(3),
    "embedding-base64": none(1),
    "score": none(4),
    "rerank": none(4),
    "pooling": none(1),
    "tokenize-chat": none(9),
    "tokenize-prompt": none(1),
    "message-count": none(9),
    "detokenize": Unlearnable.ABSENT,
    # the same words as where the prompt fills the window
    "error-zero": Refused(400),
}
STREAMS = [name for name in OUTCOMES if "-stream" in name]


def outcome(name):
    by_kind = {"refused": Refused(400), "error": Unlearnable.ERROR}
    return OUTCOMES[name] if name in OUTCOMES else by_kind[name.partition("-")[0]]


@pytest.mark.parametrize("name", sorted(path.stem for path in RESPONSES.glob("*.http")))
def test_a_recorded_answer_is_read(name):
    assert read(recorded(name)) == outcome(name)


@pytest.mark.parametrize("name", OUTCOMES)
@given(cuts=CUTS)
def test_cuts_do_not_matter(name, cuts):
    answer = recorded(name)
    assert read(answer, cut(answer.body, cuts)) == outcome(name)


def test_single_bytes_do_not_matter():
    answer = recorded("response-stream")
    assert read(answer, [bytes([byte]) for byte in answer.body]) == outcome("response-stream")


@pytest.mark.parametrize("name", STREAMS)
@given(cuts=CUTS, end=st.sampled_from([b"\r\n", b"\r"]), space=st.booleans())
def test_line_ends_spaces_and_comments_do_not_matter(name, cuts, end, space):
    answer = recorded(name)
    body = answer.body if space else answer.body.replace(b"data: ", b"data:")
    body = body.replace(b"\n\n", b"\n: ping\n\n:\n\n").replace(b"\n", end)
    assert read(answer, cut(body, cuts)) == outcome(name)


@pytest.mark.parametrize("name", STREAMS)
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_a_stream_that_is_cut_short_is_incomplete(name, fraction):
    answer = recorded(name)
    whole = answer.body.removesuffix(DONE).rstrip()
    part = whole[: int(fraction * len(whole))]
    assert read(answer, [part]) is Unlearnable.INCOMPLETE


@pytest.mark.parametrize("name", STREAMS)
def test_a_last_line_needs_no_end(name):
    answer = recorded(name)
    assert read(answer, [answer.body.rstrip()]) == outcome(name)


@pytest.mark.parametrize("name", ["chat", "response", "message", "embedding", "tokenize-chat"])
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_a_document_that_is_cut_short_is_incomplete(name, fraction):
    answer = recorded(name)
    part = answer.body[: int(fraction * len(answer.body))]
    assert read(answer, [part]) is Unlearnable.INCOMPLETE


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzip.compress),
        ("br", brotli.compress),
        ("zstd", zstandard.compress),
    ],
)
@given(cuts=CUTS, name=st.sampled_from(["chat", "chat-stream-usage", "refused-prompt-chat"]))
def test_compressed_answers_are_read(encoding, compress, cuts, name):
    answer = recorded(name)
    assert read(answer, cut(compress(answer.body), cuts), encoding) == outcome(name)


@pytest.mark.parametrize("encoding", ["identity", "Identity ", ""])
def test_no_encoding_has_three_names(encoding):
    assert read(recorded("chat"), encoding=encoding) == outcome("chat")


@pytest.mark.parametrize("encoding", ["compress", "gzip"])
def test_an_encoding_that_is_unknown_or_corrupt_teaches_nothing(encoding):
    assert read(recorded("chat"), encoding=encoding) is Unlearnable.ENCODING


def test_an_error_stays_an_error_where_its_encoding_is_unknown():
    assert read(recorded("error-model"), encoding="compress") is Unlearnable.ERROR


def test_what_follows_the_end_of_a_stream_is_not_read():
    answer = recorded("chat-stream-usage")
    pieces = [gzip.compress(answer.body), b"not gzip"]
    assert read(answer, pieces, "gzip") == outcome("chat-stream-usage")


def test_a_bomb_is_not_read_to_its_end():
    bomb = gzip.compress(bytes(2 * MAX_DOCUMENT_BYTES))
    assert read(Answer(200, SSE, bomb), encoding="gzip") is Unlearnable.TOO_LARGE


def test_a_usage_after_the_end_is_not_read():
    assert stream(b"{}", b"[DONE]", STATED) is Unlearnable.ABSENT


def test_a_usage_before_the_end_is_read():
    assert stream(STATED, b"{}", b'{"usage": null}') == USAGE


def test_an_end_that_is_cut_is_no_end():
    assert stream(STATED, end=b"data: [DON") is Unlearnable.INCOMPLETE


LAST = STATED.replace(b"{", b'{"choices": [], ', 1)
PART = b'{"choices": [{"finish_reason": null}], "usage": {"prompt_tokens": 10}}'


def test_the_usage_without_choices_is_the_end_even_without_done():
    assert stream(PART, LAST, end=b"") == USAGE


def test_what_follows_a_usage_without_choices_counts():
    running = b'{"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 1}}'
    assert stream(running, PART, end=b"") is Unlearnable.INCOMPLETE
    assert stream(running, LAST, end=b"") == USAGE
    assert stream(LAST, b'{"error": "boom"}') is Unlearnable.ERROR


@pytest.mark.parametrize("part", [PART, b'{"choices": [], "usage": null}', b'{"choices": []}'])
def test_another_event_is_not_the_end(part):
    assert stream(part, end=b"") is Unlearnable.INCOMPLETE
    assert stream(part, LAST) == USAGE


def test_data_in_several_lines_is_one_record():
    body = STATED.replace(b", ", b",\ndata: ")
    assert stream(body) == USAGE


def test_a_line_over_the_bound_does_not_hide_the_usage():
    assert stream(b'{"x": "' + b"x" * (1 << 20) + b'"}', STATED) == USAGE


def test_data_that_is_no_json_does_not_hide_the_usage():
    assert stream(b"<html>", b"{", b"[1]", STATED) == USAGE


def test_implausible_usage_teaches_nothing():
    assert stream(b'{"usage": {"prompt_tokens": -1}}') is Unlearnable.IMPLAUSIBLE


@pytest.mark.parametrize(
    "error",
    [
        b'{"error": {"message": "Internal server error", "code": 500}}',
        b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}',
        b'{"type": "error", "code": "server_error", "message": "no", "sequence_number": 3}',
        b'{"type": "response.failed", "response": {"status": "failed", "usage": null}}',
        b'{"type": "response.completed", "response": {"error": {"code": "server_error"}}}',
        b'{"type": "message-end", "delta": {"error": "no", "finish_reason": "ERROR"}}',
    ],
)
def test_an_error_in_a_stream_is_an_error(error):
    assert stream(STATED, error) is Unlearnable.ERROR


def test_an_event_of_the_type_error_is_an_error():
    assert stream(STATED, end=b"event: error\ndata: overloaded\n\n") is Unlearnable.ERROR


def test_an_error_in_a_document_is_an_error():
    assert document(b'{"error": {"message": "no"}}') is Unlearnable.ERROR


def test_anthropic_output_alone_at_the_end_keeps_the_input_of_the_start():
    start = b'{"type": "message_start", "message": {"usage": {"input_tokens": 10}}}'
    delta = (
        b'{"type": "message_delta", "delta": {"stop_reason": "end_turn"},'
        b' "usage": {"output_tokens": 3}}'
    )
    outcome = stream(start, delta, b'{"type": "message_stop"}', end=b"")
    assert outcome == Usage(10, 3, 0, Finish.STOP)


def test_a_response_may_end_incomplete():
    event = {
        "type": "response.incomplete",
        "response": {
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "usage": {"input_tokens": 10, "output_tokens": 3},
        },
    }
    assert stream(json.dumps(event).encode(), end=b"") == length(10, 3)


def test_a_cohere_stream_ends_with_its_usage():
    delta = {"finish_reason": "COMPLETE", "usage": {"tokens": {"input_tokens": 10}}}
    event = json.dumps({"type": "message-end", "delta": delta}).encode()
    text = b'{"type": "content-delta", "delta": {"message": {"content": {"text": "hi"}}}}'
    assert stream(text, event, end=b"") == Usage(10, 0, 0, Finish.STOP)


MILESTONES = [b"response.completed", b"message_start", b"message_delta", b"message-end"]


@pytest.mark.parametrize("kind", MILESTONES)
def test_an_event_without_its_object_states_nothing(kind):
    assert stream(b'{"type": "%s", "response": "x"}' % kind, STATED) == USAGE


@pytest.mark.parametrize("status", [0, 101, 199, 300, 302, 404, 500, 503])
def test_another_status_than_2xx_is_an_error(status):
    assert document(STATED, status) is Unlearnable.ERROR


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_tells_its_status(status):
    answer = recorded("refused-prompt-chat")
    assert read(answer._replace(status=status)) == Refused(status)


def test_a_refusal_that_is_cut_short_is_an_error():
    answer = recorded("refused-prompt-chat")
    assert read(answer, [answer.body[:-1]]) is Unlearnable.ERROR


def test_a_document_over_the_bound_is_too_large():
    assert document(b" " * MAX_DOCUMENT_BYTES + STATED) is Unlearnable.TOO_LARGE


def test_a_document_of_the_bound_is_read():
    assert document(b" " * (MAX_DOCUMENT_BYTES - len(STATED)) + STATED) == USAGE


def test_an_error_over_the_bound_is_an_error():
    assert document(b" " * (MAX_DOCUMENT_BYTES + 1), 400) is Unlearnable.ERROR


def test_without_a_content_type_an_answer_is_a_document():
    assert read(Answer(200, "", STATED)) == USAGE


@pytest.mark.parametrize("content_type", ["application/problem+json", "Application/JSON ; q=1"])
def test_json_has_several_content_types(content_type):
    assert read(Answer(200, content_type, STATED)) == USAGE


def test_an_answer_of_another_content_type_states_no_usage():
    assert read(Answer(200, "audio/mpeg", STATED)) is Unlearnable.ABSENT


def test_finish_is_idempotent():
    reader = UsageReader(200, SSE)
    reader.feed(b"data: " + STATED)
    first = reader.finish()
    reader.feed(b"\n\n" + DONE)
    assert reader.finish() is first is Unlearnable.INCOMPLETE


FRAGMENTS = [b"data: ", b"event: error", b"\n", b"\r", b"[DONE]", STATED, b'{"type":"', b"[" * 5000]
PIECES = st.lists(st.binary(max_size=40) | st.sampled_from(FRAGMENTS))
HEADS = {
    "status": st.sampled_from([200, 400, 500]),
    "content_type": st.sampled_from([SSE, JSON, "", "text/html"]),
    "content_encoding": st.sampled_from(["", "gzip", "deflate", "br", "zstd", "gzip,zstd", "x"]),
}


@given(head=st.fixed_dictionaries(HEADS), pieces=PIECES)
def test_nothing_that_arrives_raises(head, pieces):
    reader = UsageReader(**head)
    for piece in pieces:
        reader.feed(piece)
    assert isinstance(reader.finish(), Usage | Refused | Unlearnable)


@pytest.mark.parametrize("inner", [b'{"type":"response.completed","response":', b'{"message":'])
@pytest.mark.parametrize("depth", [10, 400, 900, 100_000])
def test_no_depth_raises(inner, depth):
    assert stream(inner * depth + b"{}" + b"}" * depth, STATED, end=b"")


@pytest.mark.parametrize("content_type", [SSE, JSON])
@pytest.mark.parametrize("status", [200, 400])
def test_memory_is_bounded_whatever_arrives(status, content_type):
    reader, piece = UsageReader(status, content_type), b'"' * 65536
    tracemalloc.start()
    for _ in range(4 * MAX_DOCUMENT_BYTES // len(piece)):
        reader.feed(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * MAX_DOCUMENT_BYTES


TOO_LONG = b'{"message": "This model\'s maximum context length is 8192 tokens.", "code": 400}'
CHUNK = b'{"choices": [{"index": 0, "delta": {"content": "a"}}]}'


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"error": %s}\n\n' % TOO_LONG + DONE,
        b"event: error\ndata: %s\n\n" % TOO_LONG,
        b'data: {"type": "error", "error": %s}\n\n' % TOO_LONG,
        b'data: {"error_type": "context_length_exceeded", "error_message": "x"}\n\n' + DONE,
        b'event: x\ndata: {"type": "response.failed", "response": {"error": %s}}\n\n' % TOO_LONG,
    ],
)
def test_a_stream_that_begins_with_a_refusal_is_refused(body):
    assert read(Answer(200, SSE, body)) == Refused(200)


def test_a_document_that_is_a_refusal_is_refused():
    assert document(b'{"error": %s}' % TOO_LONG) == Refused(200)


@pytest.mark.parametrize("error", [b'{"error": "boom"}', b'{"error_type": "overloaded"}'])
def test_another_error_in_a_stream_is_an_error(error):
    assert stream(CHUNK, error) is Unlearnable.ERROR


def test_a_server_error_that_wraps_a_refusal_is_refused():
    assert document(b'{"error": %s}' % TOO_LONG, status=500) == Refused(500)


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, Unlearnable.ABSENT), (503, Unlearnable.ERROR)]
)
def test_an_answer_in_which_envoy_found_no_usage_has_none(status, outcome):
    reader = UsageReader(status, SSE)
    reader.tell_none()
    assert reader.finish() is outcome


def test_an_answer_whose_body_is_read_here_needs_no_word_of_envoy():
    reader = UsageReader(200, JSON)
    reader.feed(STATED)
    reader.tell_none()
    assert reader.finish() == USAGE


def test_after_its_last_event_a_response_is_final():
    done = (
        b'event: response.completed\ndata: {"type": "response.completed", "response": '
        b'{"status": "completed", "usage": {"input_tokens": 10, "output_tokens": 3}}}\n\n'
    )
    late = b'event: error\ndata: {"type": "error"}\n\n'
    assert read(Answer(200, SSE, done + late)) == Usage(10, 3, 0, Finish.STOP)


def test_a_document_over_the_bound_is_not_kept():
    tracemalloc.start()
    reader = UsageReader(200, JSON)
    for _ in range(MAX_DOCUMENT_BYTES // 4096 + 1):
        reader.feed(b"x" * 4096)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < MAX_DOCUMENT_BYTES / 100
    assert reader.finish() is Unlearnable.TOO_LARGE


@pytest.mark.parametrize(("status", "told"), [(199, False), (200, True), (299, True), (300, False)])
def test_envoys_counts_are_those_of_a_success(status, told):
    reader = UsageReader(status, JSON)
    reader.tell(10, 3, 0)
    assert isinstance(reader.finish(), Usage) == told


@pytest.mark.parametrize(
    ("status", "outcome"), [(200, Unlearnable.ENCODING), (300, Unlearnable.ERROR)]
)
def test_an_unknown_encoding_is_why_a_success_teaches_nothing(status, outcome):
    assert UsageReader(status, JSON, "unheard-of").finish() is outcome
