"""Regular expressions of whole numbers."""

import re

from hypothesis import given
from hypothesis import strategies as st

from extproc.envoy.number_regex import digits_between, digits_from

NUMBERS = st.integers(0, 1 << 40)


def is_match(pattern, number):
    return re.fullmatch(pattern, str(number)) is not None


@given(NUMBERS, NUMBERS, NUMBERS)
def test_a_number_is_matched_if_it_is_in_the_range(one, other, number):
    low, high = sorted((one, other))
    assert is_match(digits_between(low, high), number) == (low <= number <= high)


@given(NUMBERS, NUMBERS)
def test_the_ends_of_a_range_are_in_it(one, other):
    low, high = sorted((one, other))
    pattern = digits_between(low, high)
    edges = [low - 1, low, high, high + 1]
    assert [is_match(pattern, max(0, each)) for each in edges] == [low == 0, True, True, False]


@given(NUMBERS, NUMBERS)
def test_a_number_is_matched_from_the_lowest_on(low, number):
    assert is_match(digits_from(low), number) == (number >= low)


def test_leading_zeros_change_nothing():
    assert is_match(digits_between(1, 16383), "0016383")
    assert not is_match(digits_between(1, 16383), "0016384")


def test_a_range_is_readable():
    assert digits_between(1, 16383) == (
        "0*([1-9]|[1-9][0-9]{1}|[1-9][0-9]{2}|[1-9][0-9]{3}|1[0-5][0-9]{3}|16[0-2][0-9]{2}"
        "|163[0-7][0-9]{1}|1638[0-3])"
    )
