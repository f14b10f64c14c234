"""Rows are multiplied by numpy and by C alike."""

import math
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.linear import dot, holds, learn, project, scale

NUMBERS = st.floats(-1e6, 1e6)
SIZES = st.integers(1, 70)


@st.composite
def filters(draw):
    """Draw a covariance with weights and a further row, and a column, of which much is 0."""
    size, seed = draw(SIZES), draw(st.integers(0, 1 << 32))
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    rows = np.vstack([root @ root.T, rng.normal(size=(2, size))])
    column = rng.normal(size=size) * rng.integers(0, 2, size)
    return array("d", rows.tobytes()), tuple(column.tolist())


def matrix(rows, column):
    return np.array(rows).reshape(-1, len(column))


@given(filters())
def test_a_column_has_a_variance_and_a_product_with_each_further_row(drawn):
    rows, column = drawn
    every = matrix(rows, column)
    variance = np.array(column) @ every[:-2] @ np.array(column)
    assert project(rows, column) == pytest.approx((variance, *(every[-2:] @ np.array(column))))


@given(filters(), NUMBERS, st.floats(0, 1), st.floats(0, 1))
def test_an_answer_moves_the_weights_and_the_covariance(drawn, step, share, walk):
    rows, column = drawn
    spread = array("d", range(len(column)))
    every = matrix(rows, column)
    covariance, gain = every[:-2], every[:-2] @ np.array(column)
    less = (covariance - np.outer(gain, gain) * share) * (1 - walk) + walk * np.diag(spread)
    learn(rows, column, step, share, walk, spread)
    learnt = matrix(rows, column)
    assert learnt[:-2] == pytest.approx(less, rel=1e-6, abs=1e-6)
    assert learnt[-2] == pytest.approx(every[-2] + gain * step, rel=1e-6, abs=1e-6)
    assert (learnt[-1] == every[-1]).all()


@given(filters())
def test_a_covariance_stays_symmetric_to_the_last_digit(drawn):
    rows, column = drawn
    every = matrix(rows, column)
    every[:-2] = (every[:-2] + every[:-2].T) / 2
    rows = array("d", every.tobytes())
    learn(rows, column, 0.5, 0.3, 0.1, array("d", column))
    learnt = matrix(rows, column)[:-2]
    assert np.abs(learnt - learnt.T).max() <= 1e-15 * np.abs(learnt).max()


@given(filters(), st.lists(st.floats(0, 2), max_size=30))
def test_a_covariance_holds_whatever_is_learnt(drawn, shares):
    _, column = drawn
    size = len(column)
    spread = array("d", [0.1 + at for at in range(size)])
    rows = array("d", np.vstack([np.diag(spread), np.zeros(size)]).tobytes())
    assert holds(rows, spread)
    for least in shares:
        share = 1.0 / (project(rows, column)[0] + least + 1e-3)
        learn(rows, column, 0.0, share, 1e-5, spread)
        assert holds(rows, spread)


@pytest.mark.parametrize(
    "covariance",
    [
        [1.0, -1.0, -1.0, 0.5],  # as sure of a sum as of less than nothing
        [1.0, 0.1, 0.0, 1.0],  # not symmetric
        [-0.1, 0.0, 0.0, 1.0],
        [2.1, 0.0, 0.0, 1.0],  # more than is given
        [1.5, 1.0, 1.0, 1.5],
    ],
)
def test_what_is_no_covariance_does_not_hold(covariance):
    assert not holds(array("d", [*covariance, 0.0, 0.0]), array("d", [2.0, 2.0]))


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=70))
def test_the_product_of_two_rows_is_the_sum_of_theirs(pairs):
    one, other = [tuple(row) for row in zip(*pairs, strict=True)] or ((), ())
    expected = math.sumprod(one, other) if hasattr(math, "sumprod") else np.dot(one, other)
    assert dot(one, array("d", other)) == pytest.approx(expected, rel=1e-6, abs=1e-3)


def test_a_view_of_memory_is_a_row():
    view = memoryview(bytearray(24)).cast("d")
    view[1] = 2.0
    assert dot(view[1:], (3.0, 4.0)) == 6.0


def test_a_row_is_scaled_to_tenths_half_to_even():
    row = array("d", [0.05, 0.15, 0.24, -3.0, 1e300])
    scale(row, 1.0)
    assert list(row) == [0.0, 0.2, 0.2, -3.0, 1e300]


def test_a_part_of_a_row_is_scaled():
    row = array("d", [1.0, 2.0])
    scale(memoryview(row)[1:], 1.52)
    assert list(row) == [1.0, 3.0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: dot((1.0,), (1.0, 2.0)),
        lambda: project(array("d", bytes(40)), (1.0, 2.0)),
        lambda: learn(array("d", bytes(48)), (1.0, 2.0), 0, 0, 0, array("d", bytes(24))),
    ],
)
def test_rows_that_do_not_fit_are_refused(call):
    with pytest.raises(ValueError, match=r"."):
        call()
