"""Each byte of a text is counted, by numpy and by C alike."""

from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.counting import count_pairs, sum_hashed
from extproc.budget.neighbours import hashes
from extproc.request.sample import SAMPLE_BYTES

NEWLINE = 2  # its class
TABLES = st.binary(min_size=256, max_size=256)


def of_each(table, byte, value):
    return table[:byte] + bytes([value]) + table[byte + 1 :]


@given(st.binary(max_size=300), TABLES, st.integers(NEWLINE + 1, 32))
def test_pairs_are_those_of_the_classes_that_are_not_left_out(text, table, size):
    classes = of_each(bytes(each % 40 for each in table), ord("\n"), NEWLINE)
    found = np.full((size, size), 7.0)
    count_pairs(text, classes, found)
    kept = [classes[byte] for byte in b"\n" + text if classes[byte] < size]
    expected = Counter(pairwise(kept))
    assert found.tolist() == [[expected[a, b] for b in range(size)] for a in range(size)]


@given(st.binary(max_size=300), st.integers(1, 12), TABLES, st.randoms(use_true_random=False))
def test_sums_are_those_of_the_hashes(text, bits, doubts, draw):
    starts = draw.randbytes(1 << bits)
    found = [starts[each] for each in hashes(text, bits).tolist()]
    assert sum_hashed(text, starts, doubts) == (sum(found), sum(doubts[each] for each in found))


def test_the_longest_sample_keeps_both_sums_apart():
    most = bytes([255]) * 256
    assert sum_hashed(b"a" * SAMPLE_BYTES, most, most) == (255 * SAMPLE_BYTES, 255 * SAMPLE_BYTES)
