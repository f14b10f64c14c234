"""Each byte of a text is counted, by numpy and by C alike."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.counting import sum_hashed, sum_pairs
from extproc.budget.neighbours import hashes
from extproc.request.sample import SAMPLE_BYTES

NEWLINE = 2  # its class
TABLES = st.binary(min_size=256, max_size=256)


def of_each(table, byte, value):
    return table[:byte] + bytes([value]) + table[byte + 1 :]


@given(
    st.binary(max_size=300),
    TABLES,
    st.integers(NEWLINE + 1, 32),
    st.integers(1, 64),
    st.randoms(use_true_random=False),
)
def test_each_pair_of_classes_that_are_not_left_out_adds_to_its_sums(text, table, size, sums, draw):
    classes = of_each(bytes(each % 40 for each in table), ord("\n"), NEWLINE)
    places = [[draw.getrandbits(sums) for _ in range(size)] for _ in range(size)]
    found = np.full(sums, 7.0)
    sum_pairs(text, classes, np.array(places, np.uint64).tobytes(), found)
    kept = [classes[byte] for byte in b"\n" + text if classes[byte] < size]
    added = [places[first][second] for first, second in pairwise(kept)]
    assert found.tolist() == [sum(bits >> place & 1 for bits in added) for place in range(sums)]


@given(st.binary(max_size=300), st.integers(1, 12), TABLES, st.randoms(use_true_random=False))
def test_sums_are_those_of_the_hashes(text, bits, doubts, draw):
    starts = draw.randbytes(1 << bits)
    found = [starts[each] for each in hashes(text, bits).tolist()]
    assert sum_hashed(text, starts, doubts) == (sum(found), sum(doubts[each] for each in found))


def test_the_longest_sample_keeps_both_sums_apart():
    most = bytes([255]) * 256
    assert sum_hashed(b"a" * SAMPLE_BYTES, most, most) == (255 * SAMPLE_BYTES, 255 * SAMPLE_BYTES)
