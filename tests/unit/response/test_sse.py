"""Event streams, cut at any byte."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.response.sse import MAX_LINE_BYTES, EventReader

STREAM = b"event: a\ndata: 1\n\n: ping\n\ndata:2\ndata: 3\n\nid: 7\ndata\n\ndata: end"
EVENTS = [(b"a", b"1"), (b"", b"2\n3"), (b"", b""), (b"", b"end")]
WHOLE = b"data: y\n\n"
PARTS = [
    WHOLE,
    b"data: x\rdata: z\n\n",
    b"data: x",
    b"data:",
    b"event: e",
    b":",
    b"\n",
    b"\r",
    b"\r\n",
]
PIECES = st.lists(st.sampled_from(PARTS))


def read(*pieces):
    reader = EventReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events + reader.finish()


def cut(data, cuts):
    edges = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_cuts_do_not_matter(cuts):
    assert read(*cut(STREAM, cuts)) == EVENTS


@given(PIECES)
def test_pieces_are_one_stream(pieces):
    assert read(*pieces) == read(b"".join(pieces))


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_lines_end_with_any_line_end(end, cuts):
    assert read(*cut(STREAM.replace(b"\n", end), cuts)) == EVENTS


def test_a_cr_and_its_lf_in_two_pieces_are_one_line_end():
    assert read(b"data: a\r", b"\ndata: b\r\n\r\n") == [(b"", b"a\nb")]


def test_an_empty_piece_between_cr_and_lf_changes_nothing():
    assert read(b"data: a\r", b"", b"\ndata: b\n\n") == [(b"", b"a\nb")]


@pytest.mark.parametrize(
    ("before", "event"),
    [
        (b"", (b"", b"y")),
        (b"event: e\n", (b"e", b"y")),
        (b"data: x\n", (b"", b"x\ny")),
        (b"data: ", (b"", b"data: y")),
        (b"data: x\r", (b"", b"x\ny")),
    ],
)
def test_a_piece_that_looks_like_a_whole_event_belongs_to_what_was_open(before, event):
    assert read(before, WHOLE) == [event]


def test_a_piece_that_looks_like_a_whole_event_may_end_a_line_over_the_bound():
    assert read(b"x" * (MAX_LINE_BYTES + 1), WHOLE) == []


def test_a_cr_ends_a_line_within_what_looks_like_one():
    assert read(b"data: a\rdata: b\n\n") == [(b"", b"a\nb")]


def test_one_space_after_the_colon_is_not_data():
    assert read(b"data:  x\n\n") == [(b"", b" x")]


def test_a_byte_order_mark_may_lead():
    assert read(b"\xef\xbb", b"\xbfdata: x\n\n") == [(b"", b"x")]


def test_an_event_without_data_is_none():
    assert read(b"event: ping\n\ndata: x\n\n") == [(b"", b"x")]


def test_unknown_fields_are_passed_over():
    assert read(b"retry: 5\nid: 1\ncolour\n\n") == []


@pytest.mark.parametrize("end", [b"", b"\n", b"\r"])
def test_the_last_event_needs_no_end(end):
    assert read(b"data: x" + end) == [(b"", b"x")]


def test_a_line_over_the_bound_is_passed_over():
    long = b"data: " + b"x" * MAX_LINE_BYTES
    assert read(long + b"\ndata: y\n\n") == [(b"", b"y")]


def test_a_line_over_the_bound_that_is_a_whole_event_is_passed_over():
    long = b"data: " + b"x" * MAX_LINE_BYTES
    assert read(long + b"\n\n", b"data: y\n\n") == [(b"", b"y")]


@given(st.lists(st.integers(0, MAX_LINE_BYTES + 30), max_size=5), st.integers(-1, 1))
def test_cuts_do_not_matter_about_the_bound(cuts, beyond):
    stream = b"data: " + b"x" * (MAX_LINE_BYTES - 6 + beyond) + b"\ndata: y\n\n"
    assert read(*cut(stream, cuts)) == read(stream)


def test_a_line_of_the_bound_is_read():
    value = b"x" * (MAX_LINE_BYTES - 6)
    assert read(b"data: " + value + b"\n\n") == [(b"", value)]


def test_data_of_one_event_over_the_bound_is_passed_over():
    line = b"data: " + b"x" * (MAX_LINE_BYTES // 2) + b"\n"
    assert read(line * 2 + b"data: y\n\n") == [(b"", b"y")]


DATA_LINES = (b"data: " + b"x" * 57 + b"\n") * 1024


@pytest.mark.parametrize("piece", [b"x" * 65536, DATA_LINES, b"data:\n" * 1024])
def test_memory_is_bounded_whatever_arrives(piece):
    reader = EventReader()
    tracemalloc.start()
    for _ in range(100):
        reader.feed(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MAX_LINE_BYTES


@pytest.mark.parametrize(("more", "events"), [(0, 1), (1, 0)])
def test_the_data_of_an_event_has_the_bound_of_a_line(more, events):
    first = b"x" * (MAX_LINE_BYTES // 2)
    second = b"y" * (MAX_LINE_BYTES - len(first) - len(b"\n") + more)
    assert len(read(b"data: " + first + b"\ndata: " + second + b"\n\n")) == events
