"""A plain chat is read as the general reader reads it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.request import plain, reader
from extproc.request.reader import Endpoint, UnreadableRequest, read_request

TEXTS = st.text(max_size=40) | st.sampled_from(["a</think>b", "[/THINK]", "", "{}" * 9000])
PARTS = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}), max_size=3)
CALLS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text(max_size=5),
            "type": st.just("function"),
            "function": st.fixed_dictionaries({"name": TEXTS, "arguments": TEXTS}),
        }
    ),
    max_size=2,
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool"])},
        optional={
            "content": TEXTS | PARTS | st.none(),
            "refusal": st.none() | st.just("no"),
            "annotations": st.just([]),
            "tool_calls": CALLS | st.none(),
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
        "tool_choice": st.sampled_from(["none", "auto", "required", None]),
        "documents": st.just([{"text": "d"}]) | st.none(),
        "response_format": st.just({"type": "json_object"}) | st.none(),
        "reasoning_effort": st.sampled_from(["low", None]),
        "chat_template": st.sampled_from(["t", None]),
        "temperature": NUMBERS,
        "user": st.text(max_size=5) | NUMBERS,
    },
)


def ordered(value):
    """Return a value whose keys have the order in which OpenAI documents them."""
    if isinstance(value, list):
        return [ordered(each) for each in value]
    if isinstance(value, dict):
        last = ("content", "tool_calls", "arguments")
        keys = sorted(value, key=lambda key: last.index(key) if key in last else -1)
        return {key: ordered(value[key]) for key in keys}
    return value


def read_generally(body, *, turns=False):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "decode_plain", lambda _: None)
        return read(body, turns=turns)


def read(body, *, turns=False):
    try:
        return read_request(Endpoint.CHAT, body, turns=turns)
    except UnreadableRequest as error:
        return error.reason


@settings(max_examples=400)
@given(BODIES, st.booleans())
def test_both_readers_find_the_same(body, turns):
    text = json.dumps(ordered(body)).encode()
    assert read(text, turns=turns) == read_generally(text, turns=turns)


def test_but_for_the_order_of_keys():
    body = chat(messages=[CALLING | {"name": "weather bot"}])
    found, expected = read(body), read_generally(body)
    texts, others = [each.prompts.largest.texts for each in (found, expected)]
    assert texts != others
    assert sorted(texts) == sorted(others)
    assert found.prompts.largest.tools == expected.prompts.largest.tools


CALLING = {
    "content": None,
    "refusal": None,
    "role": "assistant",
    "annotations": [],
    "audio": None,
    "function_call": None,
    "tool_calls": [
        {"id": "1", "function": {"arguments": "{}", "name": "weather"}, "type": "function"}
    ],
}
"""An earlier answer as OpenAI's own client sends it."""


def chat(**fields):
    return json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode()


@pytest.mark.parametrize(
    "body",
    [
        chat(),
        chat(temperature=0.5, max_tokens=7, stream=True),
        chat(tools=[{"type": "function", "function": {"name": "f"}}]),
        chat(tools=None, tool_choice="none"),
        chat(tools=[{"type": "function", "function": {"name": "f"}}], tool_choice="auto"),
        chat(response_format={"type": "json_object"}),
        chat(messages=[CALLING, {"role": "tool", "tool_call_id": "1", "content": "22 C"}]),
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
        {"messages": [CALLING | {"tool_calls": [{"function": {"name": "f", "arguments": ""}}]}]},
        {
            "messages": [
                CALLING | {"tool_calls": [{"function": {"name": "f", "arguments": "</think>"}}]},
                {"role": "user"},
            ]
        },
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
