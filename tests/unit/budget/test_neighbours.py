"""A hash is of a byte and its neighbours."""

from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.neighbours import hashes


def test_a_hash_is_of_three_bytes():
    assert hashes(b"xabcx", 17)[2] == hashes(b"yabcy", 17)[2]
    assert hashes(b"abc", 17)[1] not in (hashes(text, 17)[1] for text in (b"dbc", b"adc", b"abd"))


def test_newlines_surround_a_text():
    assert hashes(b"a", 17).tolist() == hashes(b"\na\n", 17)[1:2].tolist()


@given(st.binary(max_size=300), st.integers(1, 24))
def test_every_byte_has_a_hash_of_so_many_bits(text, bits):
    found = hashes(text, bits)
    assert found.size == len(text)
    assert not found.size or found.max() < 1 << bits
