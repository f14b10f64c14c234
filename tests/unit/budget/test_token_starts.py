"""How many tokens begin in a text is estimated from three bytes at a time."""

from pathlib import Path

import numpy as np
import pytest

from extproc import budget
from extproc.budget.neighbours import hashes
from extproc.budget.token_starts import BITS, FILE, count_starts, encode
from extproc.request.sample import SAMPLE_BYTES

TABLE = Path(budget.__file__).with_name(FILE).read_bytes()
PROSE = b"The owl sat still in the old barn, and nobody had noticed that it was there. "


def test_the_table_has_a_byte_for_each_hash():
    assert len(TABLE) == 1 << BITS


def test_nothing_begins_in_an_empty_text():
    assert count_starts(b"") == (0.0, 0.0)


def test_prose_has_a_token_or_two_for_each_word():
    starts, _ = count_starts(PROSE * 10)
    assert 1 < starts / (10 * len(PROSE.split())) < 1.5


def test_parts_of_rare_words_begin_more_tokens():
    assert count_starts(b" internationally")[0] < count_starts(b" nwkqzefwjpvlbxm")[0]


def test_doubts_are_largest_where_a_token_may_or_may_not_begin():
    assert count_starts(b"the the the the the")[1] < count_starts(b"vaq ozu elk ghi wov")[1]


def test_the_longest_sample_keeps_both_sums_apart():
    table = np.frombuffer(TABLE, np.uint8)
    most = max(range(256), key=lambda byte: table[hashes(bytes([byte]) * 3, BITS)[1]])
    once, many = (count_starts(bytes([most]) * size) for size in (1024, SAMPLE_BYTES))
    assert many == pytest.approx([SAMPLE_BYTES / 1024 * each for each in once], rel=0.01, abs=2)


def test_a_table_holds_eightieths_of_a_token_and_at_most_255():
    assert encode(np.array([0.0, 0.5, 1.0, 9.0])) == bytes([0, 40, 80, 255])
