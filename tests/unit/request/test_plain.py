"""A plain chat is read as the general reader reads it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.request import plain, reader
from extproc.request.reader import Endpoint, UnreadableRequest, read_request

TEXTS = st.text(max_size=40) | st.sampled_from(["a</think>b", "[/THINK]", "", "{}" * 9000])
PARTS = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}), max_size=3)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
        optional={
            "content": TEXTS | PARTS | st.none(),
            "tool_call_id": st.text(max_size=5),
            "name": st.text(max_size=5),
        },
    ),
    max_size=5,
)
NUMBERS = st.none() | st.integers(-2, 1 << 40) | st.floats() | st.booleans() | st.just("7")
BODIES = st.fixed_dictionaries(
    {"messages": TURNS},
    optional={
        "model": st.text(max_size=300) | st.none(),
        "max_tokens": NUMBERS,
        "max_completion_tokens": NUMBERS,
        "min_tokens": NUMBERS,
        "n": NUMBERS,
        "best_of": NUMBERS,
        "stream": st.booleans() | st.none(),
        "stream_options": st.none() | st.just({"include_usage": True}),
        "tools": st.lists(st.dictionaries(TEXTS, st.floats() | TEXTS, max_size=3), max_size=2)
        | st.none(),
        "tool_choice": st.sampled_from(["none", "auto", None]),
        "documents": st.just([{"text": "d"}]) | st.none(),
        "response_format": st.just({"type": "json_object"}) | st.none(),
        "reasoning_effort": st.sampled_from(["low", None]),
        "chat_template": st.sampled_from(["t", None]),
        "temperature": NUMBERS,
        "user": st.text(max_size=5) | NUMBERS,
    },
)


def read(body):
    try:
        return read_request(Endpoint.CHAT, body)
    except UnreadableRequest as error:
        return error.reason


@settings(max_examples=400)
@given(BODIES)
def test_both_readers_find_the_same(body):
    text = json.dumps(body).encode()
    found = read(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "decode_plain", lambda _: None)
        assert found == read(text)


def chat(**fields):
    return json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode()


@pytest.mark.parametrize(
    "body",
    [
        chat(),
        chat(temperature=0.5, max_tokens=7, stream=True),
        chat(tools=[{"type": "function", "function": {"name": "f"}}]),
        chat(tools=None, tool_choice="none"),
    ],
)
def test_a_plain_chat_needs_no_general_reader(body):
    assert plain.decode_plain(body).texts()


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"\xff\xfe",
        chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]),
        chat(documents=[{}]),
        chat(padding="x" * (1 << 21)),
        chat(stop=[""] * 66_000),
    ],
)
def test_anything_else_is_left_to_it(body):
    assert plain.decode_plain(body) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": [{"role": "user"}] * 5000},
        {"tools": [{}], "tool_choice": "none"},
        {"tools": [{}] * 33_000},
        {"tools": [{"values": [0] * 70_000}]},
        {"tools": ["a"]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 5000}]},
        {
            "messages": [
                {"role": "assistant", "content": [{"type": "text", "text": "a</think>"}]},
                {"role": "user"},
            ]
        },
    ],
)
def test_so_is_what_more_than_its_texts_decides(fields):
    assert plain.decode_plain(chat(**fields)).texts() is None
