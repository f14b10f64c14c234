"""Request headers: what is kept by its bytes means what the library says."""

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.transport.header_fields import HeaderReader
from tests.support.h2_dialogue import HEADERS, block, text

EMPTY_TABLE = b"\x20"
FIELDS = tuple(HEADERS.items())
REQUEST = block(FIELDS)


def settled():
    """Return a reader whose peer keeps to an empty table."""
    reader = HeaderReader()
    reader.require_empty_table()
    reader.read(EMPTY_TABLE + REQUEST)
    return reader


def encoded(fields, *, huffman=True):
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    encoder.encode([], huffman=huffman)  # with the change of the table
    return encoder.encode(fields, huffman=huffman)


def test_the_headers_that_matter_are_read():
    headers = HeaderReader().read(REQUEST)
    assert (headers.path, headers.content_type) == ("/echo", "application/grpc")
    assert headers.is_request
    assert not headers.malformed


def test_the_dynamic_table_holds_until_the_peer_empties_it():
    reader, encoder = HeaderReader(), hpack.Encoder()
    first, second = encoder.encode(FIELDS), encoder.encode(FIELDS)
    assert len(second) < len(first)
    assert reader.read(first) == reader.read(second)
    encoder.header_table_size = 0
    reader.require_empty_table()
    assert reader.read(encoder.encode(FIELDS)).path == "/echo"


def test_a_table_that_is_kept_is_an_error():
    reader = HeaderReader()
    reader.require_empty_table()
    with pytest.raises(hpack.HPACKError):
        reader.read(REQUEST)


@pytest.mark.parametrize("huffman", [False, True])
def test_a_field_is_the_same_each_time(huffman):
    reader = settled()
    sent = encoded(FIELDS, huffman=huffman)
    assert len({reader.read(sent) for _ in range(3)}) == 1
    assert reader.read(sent).path == "/echo"


@pytest.mark.parametrize("first", [b"\0", b"\x10", b"\x40"])
def test_literals_of_each_kind_are_read(first):
    assert settled().read(block(FIELDS, first)).path == "/echo"


def test_values_that_change_are_read():
    reader = settled()
    paths = [f"/{number}" for number in range(200)]
    sent = [block((HEADERS | {":path": path}).items()) for path in paths]
    assert [reader.read(each).path for each in sent] == paths


def test_a_name_may_be_an_index_of_two_bytes():
    typed = b"\x0f\x10" + text("application/grpc")  # content-type is entry 31
    sent = block(FIELDS[:-1]) + typed
    reader = settled()
    assert [reader.read(sent).content_type for _ in range(2)] == ["application/grpc"] * 2


@pytest.mark.parametrize("size", [126, 127, 128, 254, 255, 300, 3000, 20_000, 40_000])
def test_long_values_are_skipped_by_their_length(size):
    sent = block([*FIELDS, ("x-long", "y" * size), ("x-more", "z")])
    headers = settled().read(sent)
    assert headers.path == "/echo"
    assert headers.large == (size > 16_384)


def test_a_long_path_is_read():
    path = "/" + "x" * 1000
    assert settled().read(block((HEADERS | {":path": path}).items())).path == path


@pytest.mark.parametrize(
    "broken",
    [
        b"\x80",  # index 0
        b"\xbe",  # index 62, the first of an empty table
        b"\x7e\x01a",  # a name of the empty table
        b"\x0f\x2f\x01a",
        b"\x0f\xff\x01\x01a",
        b"\0",
        b"\0\x05abc",
        b"\0\x01a\x05abc",
        b"\0\x7f",
        b"\0\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\0\x81\0\x01a",  # Huffman's code without an end
        EMPTY_TABLE,
    ],
)
def test_what_only_the_library_can_judge_is_an_error(broken):
    with pytest.raises(hpack.HPACKError):
        settled().read(REQUEST + broken)


def test_a_table_of_another_size_is_an_error():
    with pytest.raises(hpack.HPACKError):
        settled().read(b"\x3f\xe1\x1f" + REQUEST)


def test_an_empty_table_may_be_asked_for_again():
    assert settled().read(EMPTY_TABLE + REQUEST).path == "/echo"


def test_long_fields_are_read_and_not_kept():
    reader, path = settled(), "/" + "p" * 1500
    assert reader.read(block((HEADERS | {":path": path}).items())).path == path
    assert not reader._requests


def test_trailers_are_no_request():
    trailers = settled().read(block([("a", "b")]))
    assert not trailers.is_request
    assert not trailers.malformed


def test_without_headers_there_is_no_request():
    assert not settled().read(b"").is_request


NAMES = st.sampled_from((*HEADERS, "x-request-id", "traceparent", "x" * 300, "a"))
VALUES = st.text("abc/%-", max_size=12) | st.sampled_from(("application/grpc", "x" * 200))


@given(st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=12), max_size=4), st.booleans())
def test_a_kept_field_means_what_the_library_says(blocks, huffman):
    reader, library = settled(), HeaderReader()
    for fields in blocks:
        sent = encoded(fields, huffman=huffman)
        for _ in range(2):
            ours, theirs = reader.read(sent), library.read(sent)
            assert ours.path == theirs.path
            assert ours.content_type == theirs.content_type
            assert (ours.malformed, ours.is_request) == (theirs.malformed, theirs.is_request)


@pytest.mark.interpreted
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_an_error(data):
    reader, library = settled(), settled()
    library._cut = lambda _: None
    try:
        expected = library.read(data)
    except hpack.HPACKError:
        return  # a value that is skipped may be broken
    found = reader.read(data)
    assert (found.path, found.malformed) == (expected.path, expected.malformed)
