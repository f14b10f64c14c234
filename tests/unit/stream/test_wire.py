"""Fields and numbers as protobuf encodes them."""

import pytest
from google.protobuf.struct_pb2 import Value
from google.protobuf.wrappers_pb2 import BytesValue, UInt32Value
from hypothesis import given
from hypothesis import strategies as st

from extproc.stream.wire import BYTES, DOUBLE, NUMBER, field, read_varint, tag

SIZES = (0, 1, 127, 128, (1 << 14) - 1, 1 << 14, 70_000)


@pytest.mark.parametrize("size", SIZES)
def test_a_field_is_what_protobuf_writes(size):
    content = b"x" * size
    written = field(bytes([tag(BytesValue, "value")]), content)
    assert BytesValue.FromString(written) == BytesValue(value=content)


@given(st.integers(1, (1 << 32) - 1), st.binary(max_size=2))
def test_a_number_is_what_protobuf_wrote_and_ends_where_it_ended(number, behind):
    written = UInt32Value(value=number).SerializeToString()
    assert read_varint(written + behind, 1) == (number, len(written))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff\xff\xff\xff\xff\x01"])
def test_a_number_that_is_cut_or_too_long_is_an_index_error(data):
    with pytest.raises(IndexError):
        read_varint(data, 0)


@pytest.mark.parametrize(
    ("message", "name", "wire_type"),
    [
        (Value(bool_value=True), "bool_value", NUMBER),
        (Value(number_value=0.5), "number_value", DOUBLE),
        (Value(string_value="x"), "string_value", BYTES),
    ],
)
def test_a_tag_is_the_first_byte_of_its_field(message, name, wire_type):
    assert message.SerializeToString()[0] == tag(Value, name, wire_type)
