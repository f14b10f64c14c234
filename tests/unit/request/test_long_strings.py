"""What is cut out of a JSON text is what a decoder would find there, in C and in Python alike."""

import json

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from extproc.request.long_strings import cut_long

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
