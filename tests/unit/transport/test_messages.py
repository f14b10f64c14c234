"""gRPC messages in pieces."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.transport.messages import MessageFault, MessageReader
from tests.support.h2_dialogue import message


@given(st.lists(st.binary(max_size=30), max_size=6), st.lists(st.integers(0, 200), max_size=10))
def test_messages_in_pieces_are_the_same_messages(contents, cuts):
    sent = b"".join(map(message, contents))
    reader, found = MessageReader(100), []
    places = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    for start, end in itertools.pairwise(places):
        found += reader.feed(sent[start:end])
    assert found == contents
    assert reader.held_bytes == 0


def test_what_is_held_is_counted():
    reader = MessageReader(100)
    assert list(reader.feed(message()[:7])) == []
    assert reader.held_bytes == 7


@pytest.mark.parametrize(("sent", "code"), [(b"\1\0\0\0\1x", 12), (b"\0\0\0\0\x65", 8)])
def test_what_is_not_read_says_why(sent, code):
    with pytest.raises(MessageFault) as fault:
        list(MessageReader(100).feed(sent))
    assert fault.value.status.code == code


def test_messages_before_a_fault_are_read():
    messages = MessageReader(100).feed(message() + b"\1\0\0\0\0")
    assert next(messages) == b"hello"
    with pytest.raises(MessageFault):
        next(messages)


@pytest.mark.parametrize("more", [b"", b"\0\0\0\0\1x"])
def test_long_messages_are_whole(more):
    sent, found = message(b"a" * 100_000) + more, []
    reader = MessageReader(1 << 20)
    for start in range(0, len(sent), 16_384):
        found += reader.feed(sent[start : start + 16_384])
    assert [bytes(each) for each in found] == [b"a" * 100_000, b"x"][: len(found)]
    assert len(found) == 1 + bool(more)
    assert reader.held_bytes == 0
