"""Fields are decoded only if they are read, at a cost bounded by their bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request.fields import (
    MAX_NODES,
    NoObjectError,
    TokenIds,
    TooManyNodesError,
    decode_fields,
    decode_values,
)


def decode(text, *names):
    return decode_values(decode_fields(text), names)


def test_a_field_is_decoded_only_if_it_is_named():
    assert decode(b'{"a": [null], "b": 1}', "b", "c") == {"b": 1}


@pytest.mark.parametrize("text", [b"[]", b'"a"', b"null", b"1"])
def test_json_of_another_type_is_no_object(text):
    with pytest.raises(NoObjectError):
        decode_fields(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"[1]", TokenIds(1)),
        (b"[1, 2,\n3]", TokenIds(3)),
        (b"[[1, 2], [3]]", [TokenIds(2), TokenIds(1)]),
        (b"[ [1 ] ,[ 2]]", [TokenIds(1), TokenIds(1)]),
        (b"[]", []),
        (b"[[]]", [[]]),
        (b"[[1], []]", [[1], []]),
        (b"[1, [2]]", [1, [2]]),
        (b"[[1], 2]", [[1], 2]),
        (b"[[[1]]]", [[[1]]]),
        (b"[[1, [2]], [3]]", [[1, [2]], [3]]),
        (b"[1.5]", [1.5]),
        (b"[-1]", [-1]),
        (b'["1"]', ["1"]),
    ],
)
def test_lists_of_token_ids_are_counted(value, expected):
    assert decode(b'{"x": %s}' % value, "x") == {"x": expected}


def counted(value):
    """The value with its lists of token ids counted, the plain way."""
    if isinstance(value, list) and value and all(type(each) is int for each in value):
        return TokenIds(len(value))
    return value


@given(st.lists(st.lists(st.integers(0, 200_000), min_size=1), min_size=1))
def test_a_batch_is_counted_list_by_list(batch):
    assert decode(json.dumps({"x": batch}).encode(), "x") == {"x": [counted(ids) for ids in batch]}


@given(
    st.recursive(
        st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_every_other_value_is_what_json_says(value):
    decoded = decode(json.dumps({"x": {"v": value}}).encode(), "x")
    assert decoded == {"x": {"v": value}}


def test_commas_within_strings_are_no_nodes():
    text = ',[{\\"' * MAX_NODES
    assert decode(json.dumps({"x": [text]}).encode(), "x") == {"x": [text]}


@pytest.mark.parametrize("item", [b"{}", b"[]", b"null", b'"a"', b"[1]"])
def test_a_field_of_more_nodes_than_permitted_is_not_decoded(item):
    with pytest.raises(TooManyNodesError):
        decode(b'{"x": [' + (item + b",") * MAX_NODES + item + b"]}", "x")


def test_a_field_may_have_32768_nodes():
    assert len(decode(b'{"x": [' + b"null," * 32_766 + b"null]}", "x")["x"]) == 32_767
    with pytest.raises(TooManyNodesError):
        decode(b'{"x": [' + b"null," * 32_768 + b"null]}", "x")
