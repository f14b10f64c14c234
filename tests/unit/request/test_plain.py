"""A plain chat is read as the general reader reads it."""

import json
from base64 import b64encode
from codecs import BOM_UTF8

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from extproc.request import plain, reader
from extproc.request.reader import Endpoint, Unreadable, UnreadableRequest, read_request

LONG = ["{}" * 9000, "a b" * 2000, 'é\n"\\' * 5000, "</think>" * 3000, "\U0001f600" * 2000]
TEXTS = st.text(max_size=40) | st.sampled_from(["a</think>b", "[/THINK]", "", *LONG])
PNG = b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\4\0\0\0\3\0" + bytes(99_000)).decode()
URLS = st.sampled_from(["https://a/b.png", f"data:image/png;base64,{PNG}", "data:é" + PNG])
IMAGES = st.fixed_dictionaries({"url": URLS}, optional={"detail": st.just("low") | st.none()})
PARTS = st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS})
    | st.fixed_dictionaries({"type": st.just("image_url"), "image_url": URLS | IMAGES | st.none()}),
    max_size=3,
)
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
        "model": st.text(max_size=300) | st.none() | st.just("m" * 9000),
        "max_tokens": NUMBERS,
        "max_completion_tokens": NUMBERS,
        "min_tokens": NUMBERS,
        "n": NUMBERS,
        "best_of": NUMBERS,
        "stream": st.booleans() | st.none(),
        "stop": st.none()
        | st.text(max_size=3)
        | st.lists(st.text(max_size=3), max_size=2)
        | st.integers(),
        "guided_regex": st.none() | st.just("[0-9]"),
        "stream_options": st.none() | st.just({"include_usage": True}),
        "tools": st.lists(st.dictionaries(TEXTS, st.floats() | TEXTS, max_size=3), max_size=2)
        | st.none(),
        "tool_choice": st.sampled_from(
            ["none", "auto", "required", None, {"type": "auto"}, {"type": "any"}, "x"]
        ),
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


def read_plainly(body):
    found, cut = plain.decode_plain(body)
    return found.read(cut)


def read(body, *, turns=False):
    try:
        return as_strings(read_request(Endpoint.CHAT, body, turns=turns))
    except UnreadableRequest as error:
        return error.reason


def as_strings(request):
    """Return a request whose long texts are no longer in UTF-8."""
    (prompt,) = request.prompts.candidates
    prompt = structs.replace(prompt, written=prompt.texts)
    return structs.replace(request, prompts=structs.replace(request.prompts, candidates=(prompt,)))


@settings(max_examples=400)
@given(BODIES, st.booleans())
def test_both_readers_find_the_same(body, turns):
    text = json.dumps(ordered(body)).encode()
    assert read(text, turns=turns) == read_generally(text, turns=turns)


@pytest.mark.parametrize("field", [b'"x\xff": 1', b'"x": "\xff"'])
@pytest.mark.interpreted
def test_only_the_general_reader_refuses_fields_that_are_not_read_and_not_utf8(field):
    text = b'{"messages": [{"role": "user", "content": "a"}], %s}' % field
    assert not isinstance(read(text), Unreadable)
    assert read_generally(text) is Unreadable.JSON


SPOILS = st.sampled_from(
    [b'"', b"\\", b"\\u12", b"\\ud800", b"\0", b"\n", b"\xff", b"\xed\xa0\x80", b"]", b""]
)


@settings(max_examples=200)
@given(
    st.sampled_from(LONG),
    st.booleans(),
    SPOILS,
    st.integers(0, 1 << 16),
    st.integers(0, 2),
    st.data(),
)
def test_so_they_do_in_what_is_spoilt(text, ascii_only, spoil, place, length, data):
    turns = [{"role": "user", "content": [{"type": "text", "text": text}]}] * 2
    body = json.dumps({"messages": turns, "user": "u"}, ensure_ascii=ascii_only).encode()
    encoded = data.draw(st.sampled_from([body, BOM_UTF8 + body, body.decode().encode("utf-16")]))
    place %= len(encoded)
    spoilt = encoded[:place] + spoil + encoded[place + length :]
    assert read(spoilt) == read_generally(spoilt)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": LONG[0]},
        {"user": LONG[1]},
        {"messages": [{"role": LONG[1], "content": "hi"}]},
        {"tools": [{"function": {"description": LONG[0]}}]},
        {"metadata": {LONG[1]: LONG[0]}},
        {"messages": [{"role": "user", "content": LONG[2], "name": LONG[1]}]},
        {"stop": [LONG[0]] * 3, "tool_choice": LONG[1]},
        *(
            {"messages": [{"role": "assistant", "content": text}, {"role": "user", "content": "a"}]}
            for text in (LONG[0], LONG[3])
        ),
        *(
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]}
            for url in (
                f"data:image/png;base64,{PNG}",
                {"url": f"data:image/png;base64,{PNG}", "detail": "low"},
                "data:é" + PNG,
                "https://a/b.png",
            )
        ),
    ],
)
@pytest.mark.parametrize("turns", [False, True])
def test_long_strings_are_read_wherever_they_are(fields, turns):
    body = chat(**fields, padding=LONG[0])
    assert read(body, turns=turns) == read_generally(body, turns=turns)


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
    assert read_plainly(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"\xff\xfe",
        chat(messages=[{"role": "user", "content": [{"type": "audio_url"}]}]),
        chat(documents=[{}]),
        chat(padding=["x" * 4000] * 600),
        chat(documents=[{"text": "x" * 9000}]),
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
        {"messages": [{"role": "user", "content": [{"image_url": "https://a"}] * 300}]},
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
    assert read_plainly(chat(**fields)) is None
