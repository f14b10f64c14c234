"""Quantiles in bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.sketch import Counts, Scores, Sketch, count_prior, score_prior


def counts(memory: float = 1000.0) -> Sketch:
    return Sketch(Counts(), count_prior(), memory)


def test_a_new_sketch_answers_with_the_prior() -> None:
    assert counts().upper(0.5) == pytest.approx(200, rel=0.1)


def test_many_values_outweigh_the_prior() -> None:
    found = counts()
    for value in range(1, 1001):
        found.add(value)
    assert found.upper(0.1) == pytest.approx(900, rel=0.1)


def test_a_new_child_answers_with_its_parent() -> None:
    parent = counts()
    for _ in range(1000):
        parent.add(40)
    assert Sketch(Counts(), parent, 1000.0).upper(0.2) == pytest.approx(40, rel=0.15)


def test_old_values_fade() -> None:
    found = counts(memory=100.0)
    for value in [1000] * 500 + [10] * 500:
        found.add(value)
    assert found.upper(0.3) < 12


def test_a_long_life_keeps_the_numbers_small() -> None:
    found = counts(memory=300.0)
    for _ in range(10_000):
        found.add(64)
    assert max(found._counts) < 1e9
    assert found.upper(0.3) == pytest.approx(64, rel=0.15)


@given(st.lists(st.floats(-50, 50)), st.floats(0.001, 0.4))
def test_less_risk_is_never_a_smaller_value(values: list[float], level: float) -> None:
    found = Sketch(Scores(), score_prior(), 1000.0)
    for value in values:
        found.add(value)
    assert found.upper(level) >= found.upper(level * 2)


def test_bounds_that_say_nothing_change_nothing() -> None:
    found = counts()
    for value in range(1, 1001):
        found.add(value)
    before = [found.upper(level) for level in (0.5, 0.1, 0.02)]
    for _ in range(1000):
        found.add_censored(0)
    assert [found.upper(level) for level in (0.5, 0.1, 0.02)] == pytest.approx(before, rel=0.1)


def test_bounds_above_all_values_raise_the_quantiles() -> None:
    found = counts()
    for _ in range(500):
        found.add(100)
    for _ in range(100):
        found.add_censored(1000)
    assert found.upper(0.1) > 1000


def test_the_bins_of_counts_reach_to_262144() -> None:
    last = Counts.size - 1
    assert Counts().value(last) == 262_144
    assert [Counts().bin(value) for value in (0, 1, 262_143, 1e9)] == [0, 0, last - 1, last]


def test_the_bins_of_scores_reach_from_minus_6_to_12() -> None:
    assert (Scores().value(0), Scores().value(Scores.size)) == (-6, 12)
    assert [Scores().bin(value) for value in (-9, -6, 11.9, 99)] == [0, 0, 71, 71]


@pytest.mark.parametrize(("values", "stale"), [(0, 0), (64, 2), (2000, 32)])
def test_shares_are_renewed_after_a_32nd_of_the_values_and_33_at_most(values, stale) -> None:
    found = counts()
    for _ in range(values):
        found.add(64)
    found._refresh()
    before = found.shares()
    for _ in range(stale):
        found.add(8)
    assert found.shares() is before
    found.add(8)
    assert found.shares() is not before


def test_counts_are_rescaled_before_they_overflow() -> None:
    found, plain = counts(), counts()
    for sketch in (found, plain):
        for _ in range(100):
            sketch.add(64)
    found._rescale()
    assert found._weight == 1.0
    for sketch in (found, plain):
        for _ in range(50):
            sketch.add(8)
        sketch._refresh()
    assert found.upper(0.4) == pytest.approx(plain.upper(0.4), rel=1e-9)


def test_a_value_may_count_as_less_than_one() -> None:
    whole, tenth = counts(), counts()
    for number in range(200):
        whole.add(100)
        tenth.add(100)
        whole.add(5000) if number % 10 == 0 else None
        tenth.add(5000, 0.1)
    assert tenth.exceeding(1000) == pytest.approx(whole.exceeding(1000), abs=0.01)


def test_one_that_outgrows_its_parent_borrows_less_and_less() -> None:
    parent = counts()
    for _ in range(1000):
        parent.add(100_000)
    shares = {}
    for outgrows in (False, True):
        found = Sketch(Counts(), parent, 1500.0, outgrows=outgrows)
        for _ in range(600):
            found.add(100)
        shares[outgrows] = found.exceeding(10_000)
    assert shares[False] == pytest.approx(30 / 530, rel=0.1)
    assert shares[True] < 0.1 * shares[False]


def test_a_value_that_stands_for_several_counts_as_several() -> None:
    found = counts()
    for number in range(1000):
        found.add(4000 if number % 10 == 0 else 100, 9.0 if number % 10 == 0 else 1.0)
    assert found.exceeding(1000) == pytest.approx(0.46, abs=0.02)


def test_few_values_that_stand_for_many_do_not_outweigh_the_prior() -> None:
    few, many = counts(), counts()
    for _ in range(10):
        few.add(4000, 100.0)
    for _ in range(1000):
        many.add(4000)
    assert few.exceeding(1000) == pytest.approx(0.28, abs=0.05)
    assert many.exceeding(1000) > 0.9


def test_values_that_count_less_than_one_leave_the_prior_its_weight() -> None:
    found = counts()
    for _ in range(100):
        found.add(4000, 0.1)
    assert found.exceeding(1000) == pytest.approx(0.28, abs=0.05)
