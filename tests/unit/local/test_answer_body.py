import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.local.answer_body import ParsedAnswer, read_body, whole_number

USAGE = {"prompt_tokens": 10, "completion_tokens": 30}
DONE = b"data: [DONE]\n\n"


def choice(text: str, index: int = 0, finish: str | None = "stop") -> dict[str, object]:
    return {"index": index, "text": text, "finish_reason": finish}


def document(*choices: object, **fields: object) -> ParsedAnswer:
    return read_body(json.dumps({"choices": choices, **fields}).encode(), stream=False)


def stream(*chunks: object) -> ParsedAnswer:
    events = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return read_body(b"".join(events) + DONE, stream=True)


def test_one_sequence_has_all_tokens():
    assert document(choice("abc"), usage=USAGE) == ParsedAnswer(True, 10, 30, 30, "stop")


def test_tokens_are_divided_among_sequences_by_their_texts():
    body = document(choice("aa", 0), choice("a" * 4, 1), usage=USAGE)
    assert (body.completion_tokens, body.longest_tokens) == (30, 20)


def test_tokens_of_a_stream_are_divided_as_well():
    chunks = [{"choices": [choice("aa", index, None)]} for index in (0, 1, 1)]
    body = stream(*chunks, {"choices": [], "usage": USAGE})
    assert (body.completion_tokens, body.longest_tokens) == (30, 20)


def test_sequences_without_text_have_all_tokens_each():
    assert document(choice("", 0), choice("", 1), usage=USAGE).longest_tokens == 30


def test_one_cut_sequence_makes_the_answer_cut():
    assert document(choice("a", 0, "stop"), choice("b", 1, "length")).finish == "length"


def test_embeddings_have_a_prompt_and_no_sequence():
    body = read_body(json.dumps({"data": [], "usage": {"prompt_tokens": 7}}).encode(), stream=False)
    assert body == ParsedAnswer(True, 7, 0, 0, "")


def test_a_chat_message_and_a_delta_have_text():
    message = {"message": {"content": "aa"}, "index": 0}
    assert document(message, choice("a", 1), usage=USAGE).longest_tokens == 20
    delta = {"delta": {"content": "aa"}, "index": 0}
    body = stream({"choices": [delta, choice("a", 1)]}, {"choices": [], "usage": USAGE})
    assert body.longest_tokens == 20


@pytest.mark.parametrize("value", [None, -1, 1.5, "x", [], True])
def test_what_is_no_whole_number_is_0(value):
    assert whole_number(value) == 0


def test_a_whole_number_may_be_text():
    assert (whole_number("77"), whole_number(77)) == (77, 77)


def test_an_empty_stream_is_not_whole():
    assert not read_body(b"", stream=True).whole


@given(st.binary(max_size=300), st.booleans())
def test_no_body_is_too_odd(body, is_stream):
    read = read_body(b"data:" + body if is_stream else body, stream=is_stream)
    assert read.prompt_tokens >= 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "usage", "index", "text", "delta", "content", "finish_reason"]
            ),
            inner,
            max_size=4,
        )
    ),
)


@given(JSON, st.booleans())
def test_no_document_is_too_odd(value, is_stream):
    text = json.dumps(value).encode()
    read_body(b"data: " + text + b"\n\n" + DONE if is_stream else text, stream=is_stream)
