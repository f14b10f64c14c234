"""Fields are decoded only if they are read, at a cost bounded by their bytes."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request.fields import (
    MAX_ENTRIES,
    MAX_NODES,
    MAX_STRINGS,
    MAX_VALUES,
    NoObjectError,
    TokenIds,
    TooManyNodesError,
    decode_fields,
)

MANY = b"[]," * MAX_NODES + b"[]"  # so many lists are not decoded at once


def decode(text, *names):
    return decode_fields(text, lambda _: names)


def decode_apart(value):
    """Decode a value beside so many others that fields are decoded one by one."""
    return decode(b'{"x": %s, "y": [%s]}' % (value, MANY), "x", "z")


def test_a_body_of_few_values_is_decoded_at_once():
    assert decode(b'{"a": [null], "b": 1}', "b") == {"a": [None], "b": 1}


def test_of_another_body_fields_are_decoded_only_if_they_are_named():
    assert decode_apart(b"1") == {"x": 1}


def test_the_names_are_chosen_from_the_fields_that_are_present():
    seen = []
    decode_fields(b'{"x": 1, "y": [%s]}' % MANY, lambda found: seen.extend(found) or ())
    assert seen == ["x", "y"]


def test_numbers_are_read_as_python_does():
    fields = decode(b'{"x": [1.5, 1e999, 8.4e-309, 1.4444444444444444444e-300], "y": -0.0}', "x")
    assert fields["x"] == [1.5, float("inf"), 8.4e-309, 1.4444444444444444444e-300]


def test_values_are_bounded_over_all_fields_together():
    half = b"[" + b"1.25," * (MAX_VALUES // 2) + b"1.25]"
    assert len(decode(b'{"x": %s}' % half, "x")["x"]) == MAX_VALUES // 2 + 1
    with pytest.raises(TooManyNodesError):
        decode(b'{"x": %s, "y": %s}' % (half, half), "x", "y")


@pytest.mark.parametrize("text", [b"[]", b'"a"', b"null", b"1"])
def test_json_of_another_type_is_no_object(text):
    with pytest.raises(NoObjectError):
        decode(text)
    with pytest.raises(NoObjectError):
        decode(b"[%s]" % MANY)


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
    assert decode_apart(value) == {"x": expected}


def counted(value):
    """The value with its lists of token ids counted, the plain way."""
    if isinstance(value, list) and value and all(type(each) is int for each in value):
        return TokenIds(len(value))
    return value


@given(st.lists(st.lists(st.integers(0, 200_000), min_size=1), min_size=1))
def test_a_batch_is_counted_list_by_list(batch):
    assert decode_apart(json.dumps(batch).encode()) == {"x": [counted(ids) for ids in batch]}


def test_a_long_batch_is_counted_without_being_built():
    text = json.dumps({"x": [[7] * 1100] * 1000}).encode()
    assert decode(text, "x") == {"x": [TokenIds(1100)] * 1000}


@given(
    st.recursive(
        st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_every_other_value_is_what_json_says(value):
    assert decode_apart(json.dumps({"v": value}).encode()) == {"x": {"v": value}}


def test_commas_within_strings_are_no_nodes():
    text = ',[{\\"' * MAX_NODES
    assert decode(json.dumps({"x": [text]}).encode(), "x") == {"x": [text]}


@pytest.mark.parametrize("item", [b"{}", b"[]", b"[1]", b'["a"]'])
def test_a_field_of_more_lists_than_permitted_is_not_decoded(item):
    with pytest.raises(TooManyNodesError):
        decode(b'{"x": [' + (item + b",") * MAX_NODES + item + b"]}", "x")


def test_a_field_may_have_32768_lists():
    fields = decode(b'{"x": [%s]}' % b",".join([b'["a"]'] * 32_767), "x")
    assert len(fields["x"]) == 32_767
    with pytest.raises(TooManyNodesError):
        decode(b'{"x": [%s]}' % b",".join([b'["a"]'] * 32_768), "x")


def test_brackets_within_strings_are_no_lists():
    text = json.dumps({"x": ["[" * (2 * MAX_NODES)], "y": 1}).encode()
    assert decode(text, "x") == {"x": ["[" * (2 * MAX_NODES)]}


def test_a_field_of_many_lists_beside_long_strings_is_not_decoded():
    with pytest.raises(TooManyNodesError):
        decode(b'{"x": [%s, "%s"]}' % (MANY, b"[" * 9), "x")


def test_as_many_lists_as_allowed_are_decoded():
    found = decode(b'{"x": ["[", ' + b",".join([b"{}"] * (MAX_NODES - 1)) + b"]}", "x")
    assert len(found["x"]) == MAX_NODES


def test_as_many_lists_of_ids_as_allowed_are_counted():
    ids = b",".join([b"[1]"] * (MAX_ENTRIES - 1))
    assert len(decode(b'{"x": [%s]}' % ids, "x")["x"]) == MAX_ENTRIES - 1
    with pytest.raises(TooManyNodesError):
        decode(b'{"x": [%s,[1]]}' % ids, "x")


@pytest.mark.parametrize("text", ["a", "", '"', "\\", '\\"', '\\\\"'])
def test_as_many_strings_as_allowed_are_decoded(text):
    strings = [text] * (MAX_STRINGS - 1)  # the key is one more
    assert decode(json.dumps({"x": strings}).encode(), "x") == {"x": strings}
    with pytest.raises(TooManyNodesError):
        decode(json.dumps({"x": [*strings, text]}).encode(), "x")


def test_quotes_within_a_string_are_no_strings():
    fields = {"x": '"' * (2 * MAX_STRINGS)}
    assert decode(json.dumps(fields).encode(), "x") == fields


def test_a_body_of_more_keys_than_allowed_is_not_decoded():
    with pytest.raises(TooManyNodesError):
        decode(json.dumps(dict.fromkeys(map(str, range(MAX_STRINGS + 1)), 1)).encode(), "x")


@pytest.mark.parametrize("value", [1.5, None])
def test_as_many_values_as_allowed_are_decoded(value):
    values = [value] * MAX_VALUES
    assert decode(json.dumps({"x": values, "y": 1}).encode(), "x") == {"x": values}
    with pytest.raises(TooManyNodesError):
        decode(json.dumps({"x": [*values, value]}).encode(), "x")


@pytest.mark.parametrize("before", ["", "\\", '"', '\\"'])
def test_commas_within_strings_are_no_values(before):
    text = before + "1," * MAX_VALUES + before
    assert decode(json.dumps({"x": [text, text]}).encode(), "x") == {"x": [text, text]}


DATA = "data:image/png;base64," + "A" * 70_000


@pytest.mark.parametrize("data", [[DATA], [DATA, DATA], [DATA] * 70, [DATA + '"' + ",[" * 9]])
def test_data_in_base64_changes_no_count(data):
    strings = ["a"] * (MAX_STRINGS - 1 - len(data))
    assert decode(json.dumps({"x": data + strings}).encode(), "x") == {"x": data + strings}
    with pytest.raises(TooManyNodesError):
        decode(json.dumps({"x": [*data, *strings, "a"]}).encode(), "x")


def test_data_in_base64_that_does_not_end_is_no_json():
    with pytest.raises(msgspec.DecodeError):
        decode(b'{"x": "' + DATA.encode(), "x")


def test_signs_within_data_in_base64_are_no_values():
    text = DATA + "[,{" * (2 * MAX_VALUES)
    assert decode(json.dumps({"x": [text], "y": 1}).encode(), "x", "z") == {"x": [text], "y": 1}
