"""What is cut out of JSON, and written anew, is what a decoder finds there, in C and in Python."""

import json

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extproc.request.json_text import cut_long, write_compact
from extproc.service.compiled import is_compiled

MARK = b"#"  # no text here has one
LEAST = 5
SIGNS = [
    *(
        "a",
        "é",
        "€",
        "\U0001f600",
        '"',
        "\\",
        "/",
        "\\n",
        '\\"',
        "\\\\",
        "\\u00e9",
        "\\ud83d\\ude00",
    ),
    *(
        "\\ud83d",
        "\\ude00",
        "\\uDBFF\\uDFFF",
        "\\u",
        "\\u00g0",
        "\\x",
        "\n",
        "\0",
        "\x7f",
        "aaaaaaaa",
    ),
    *("[", "]", ",", ":", "{", "}", " ", '","', '":"'),
]
BYTES = [
    *(sign.encode() for sign in SIGNS),
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
]
CONTENTS = st.lists(st.sampled_from(BYTES), max_size=40).map(b"".join)


def decode(text):
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return type(error)


def put_back(value, cut):
    if isinstance(value, str):
        return cut[int(value[1:])].decode() if value.startswith("#") else value
    if isinstance(value, list):
        return [put_back(each, cut) for each in value]
    if isinstance(value, dict):
        return {put_back(key, cut): put_back(each, cut) for key, each in value.items()}
    return value


def cut_and_put_back(text, least=LEAST):
    pieces, cut = cut_long(text, MARK, least)
    return put_back(decode(b"".join(pieces) if cut else text), cut)


@settings(max_examples=1000)
@given(st.lists(CONTENTS, max_size=4), st.integers(1, 40))
def test_a_decoder_finds_the_same(contents, least):
    text = b"[%b]" % b",".join(b'"%b"' % each for each in contents)
    assert cut_and_put_back(text, least) == decode(text)


@settings(max_examples=500)
@given(CONTENTS | st.binary(max_size=60))
@example(b'"aaaaaa')
@example(b'"aaaaa\\')
@example(b'"aaaaa\xe2\x82')
def test_also_in_what_is_not_json(text):
    assert cut_and_put_back(text) == decode(text)


JSON = st.recursive(
    st.none() | st.integers() | st.text(st.characters(exclude_characters="#")),
    lambda each: (
        st.lists(each, max_size=5)
        | st.dictionaries(st.text(st.characters(exclude_characters="#")), each, max_size=5)
    ),
)


@given(JSON, st.booleans(), st.sampled_from([bytes, bytearray, memoryview]))
def test_what_is_nested_stays_in_place(value, ascii_only, kind):
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert cut_and_put_back(kind(text)) == decode(text)


@pytest.mark.parametrize(
    "content", ["a" * 100, "é" * 100, "a\n" * 100, "\u20ac\U0001f600\t" * 30, "\x7f/" * 50]
)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_long_strings_are_cut(content, ascii_only):
    text = json.dumps({"a": content, "b": "a"}, ensure_ascii=ascii_only).encode()
    assert cut_long(text, MARK, LEAST) == ([b'{"a": "', b"#0", b'", "b": "a"}'], [content.encode()])


def test_a_text_without_any_is_not_copied():
    assert cut_long(b'["a", 12345678, "\xff\xff\xff\xff\xff\xff"]', MARK, LEAST) == ([], [])


ENCODER = msgspec.json.Encoder()
OBJECTS = msgspec.json.Decoder(list[dict[str, object]], float_hook=float)
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'The "weather"\n of a city: 5 \u20ac, \U0001f600, \u00e9, a/b, \\d+\x7f',
        "parameters": {
            "type": "object",
            "properties": {"days": {"type": "integer", "minimum": 0, "default": -1}, "city": {}},
            "required": ["city", "days"],
            "multipleOf": 0.05,
            "examples": [1.0, -2.5, 100, True, False, None, []],
        },
    },
}
PIECES = [
    *(b"{", b"}", b"[", b"]", b",", b":", b'"a"', b'"b"', b'"\\u0061"', b'"', b" ", b"\n", b"\xff"),
    *(
        b"true",
        b"null",
        b"0",
        b"-0",
        b"01",
        b"1.50",
        b"0.0001",
        b"0.001",
        b"1e5",
        b"1.",
        b"-",
        b".",
    ),
    *(b"123456789012345", b"1234567890123456", b"0.30000000000000004", b"12345678901234.5"),
    *(b'"\\n"', b'"\\u000a"', b'"\\/"', b'"\\u0022"', b'"\\ud83d\\ude00"', b'"\\ud83d"', b'"\\x"'),
    *(b'{"a":1}', b'{"a":{"b":0.5},"b":[]}', b'{"a":1,"\\u0061":2}', b'[{"a": "b"}]'),
]


def decode_and_encode(text):
    """Return what must be written: a text for each of the objects; None if it cannot be decoded."""
    try:
        return [ENCODER.encode(each).decode() for each in OBJECTS.decode(text)]
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


@settings(max_examples=1000)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join), st.booleans())
def test_what_is_written_is_what_is_decoded_and_encoded(text, within):
    array = b'[{"a":' + text + b"}]" if within else text
    assert write_compact(array) in (None, decode_and_encode(array))


@settings(max_examples=500)
@given(st.lists(CONTENTS, max_size=4))
def test_so_it_is_of_strings(contents):
    array = b"[{%b}]" % b",".join(b'"%b": "%b"' % (each, each) for each in contents)
    assert write_compact(array) in (None, decode_and_encode(array))


@pytest.mark.skipif(not is_compiled(), reason="Python decodes and encodes")
@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("indent", [None, 2])
def test_common_tools_are_written_without_being_decoded(ascii_only, indent):
    text = json.dumps([TOOL, {}, TOOL], ensure_ascii=ascii_only, indent=indent).encode()
    assert write_compact(text) == [ENCODER.encode(each).decode() for each in (TOOL, {}, TOOL)]


@pytest.mark.parametrize("value", ["[" * 200 + "]" * 200, '{"b":1,"b":1}', '"\\u001f"', "1e999"])
def test_what_is_odd_is_not_written(value):
    assert write_compact(b'[{"a":%b}]' % value.encode()) is None


def test_nor_are_very_many_keys():
    keys = {f"key {number}": number for number in range(1000)}
    assert write_compact(json.dumps([keys]).encode()) is None


def test_many_short_strings_are_not_searched_for_a_long_one():
    text = json.dumps(["a"] * 1000 + ["a" * 100]).encode()
    assert cut_long(text, MARK, LEAST) == ([], [])
