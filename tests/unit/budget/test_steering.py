"""The level of risk that keeps the promise."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.steering import CEILING, FLOOR, LEVELS, Steering

SAFE = len(LEVELS)


def steered(near: float, truth: float = 1.0, requests: int = 20_000) -> tuple[Steering, float]:
    """Requests of which a share `near` has an even risk up to .5, which is `truth` times too low;
    with the share that was misrouted in the second half."""
    steering, draw, misrouted = Steering(0.001), random.Random(1), 0
    for request in range(requests):
        risk = draw.random() / 2 if draw.random() < near else 0.0
        place = sum(level > risk for level in LEVELS)
        exceeds = draw.random() < risk * truth
        misrouted += exceeds and risk <= steering.level and request * 2 > requests
        steering.observe(place, exceeds=exceeds)
    return steering, misrouted * 2 / requests


@pytest.mark.parametrize("near", [0.003, 0.02, 0.1])
def test_the_promise_holds(near: float) -> None:
    assert steered(near)[1] <= 0.0011


def test_risks_that_are_told_too_low_are_corrected() -> None:
    assert steered(0.05, truth=4.0)[1] <= 0.0015


def test_few_requests_near_the_threshold_allow_more_risk_each() -> None:
    assert steered(0.003)[0].level > 2 * steered(0.1)[0].level


def test_a_new_steering_is_careful() -> None:
    assert Steering(0.001).level < 0.1


def test_unforeseeable_misroutes_use_up_half_the_target_at_most() -> None:
    steering = Steering(0.001)
    for request in range(5000):
        steering.observe(SAFE, exceeds=request % 100 == 0)
    assert steering.level > FLOOR


def test_where_nobody_is_near_the_most_risk_is_taken_and_numbers_stay_small() -> None:
    steering = Steering(0.01)
    for _ in range(120_000):
        steering.observe(SAFE, exceeds=False)
    assert steering.level == CEILING
    assert max(steering._requests) < 1e12


def test_the_forecast_is_of_what_the_level_lets_through() -> None:
    steering, misrouted = steered(0.05)
    assert steering.forecast() == pytest.approx(misrouted, abs=0.0006)


@given(st.lists(st.tuples(st.integers(0, SAFE), st.booleans()), max_size=300))
def test_the_level_stays_in_its_bounds(seen: list[tuple[int, bool]]) -> None:
    steering = Steering(0.001)
    for place, exceeds in seen:
        steering.observe(place, exceeds=exceeds)
    assert FLOOR <= steering.level <= CEILING


def misses(place: int, exceeding: int, requests: int = 1000) -> Steering:
    """A steering that saw requests of one bin, of which every `exceeding`-th did not fit."""
    steering = Steering(0.001)
    for request in range(requests):
        steering.observe(place, exceeds=request % exceeding == 0)
    return steering


def test_risks_are_corrected_by_at_most_four_upwards_and_two_downwards() -> None:
    # The bin between .008 and .015: a risk of about .011.
    cost = {n: misses(10, n)._costs()[0][9] for n in (1, 10, 10_000)}
    assert cost[1] == pytest.approx(cost[10])
    assert cost[1] / cost[10_000] == pytest.approx(4.0 / 0.5)


def test_rescaling_changes_nothing_but_the_size_of_the_numbers() -> None:
    plain, rescaled = misses(6, 7), misses(6, 7)
    for steering in (plain, rescaled):
        steering._weight, scale = 0.999e9, 0.999e9 / steering._weight
        steering._requests = [n * scale for n in steering._requests]
        steering._exceeded = [n * scale for n in steering._exceeded]
    rescaled._rescale()
    assert rescaled._weight == 1.0
    for steering in (plain, rescaled):
        for place in range(0, 13, 2):
            steering.observe(place, exceeds=place == 6)
    assert rescaled.forecast() == pytest.approx(plain.forecast(), rel=1e-9)
    assert rescaled._steer() == pytest.approx(plain._steer(), rel=1e-9)


def test_numbers_are_rescaled_before_they_overflow() -> None:
    steering = Steering(0.001)
    steering._weight = 1e9
    steering.observe(3, exceeds=True)
    assert steering._weight == 1.0
    assert steering._requests[3] == pytest.approx(1.0, rel=1e-3)
    assert steering._exceeded[3] == pytest.approx(1.0, rel=1e-3)


def test_the_level_is_steered_anew_after_eight_requests() -> None:
    steering = Steering(0.001)
    levels = []
    for _ in range(16):
        steering.observe(4, exceeds=True)
        levels.append(steering.level)
    assert levels[:7] == [Steering(0.001).level] * 7
    assert len(set(levels[:7])) == 1
    assert levels[7] != levels[6]
    assert len(set(levels[7:15])) == 1
    assert levels[15] != levels[14]


def test_a_new_one_starts_near_the_level_of_the_wider_one() -> None:
    wider = misses(10, 5)
    assert wider.level < 0.5 * Steering(0.001).level
    assert Steering(0.001, wider).level < 0.5 * Steering(0.001).level


def test_one_that_has_counted_much_is_on_its_own() -> None:
    wider = misses(12, 5)
    new, known = Steering(0.001, wider), Steering(0.001, wider)
    for _ in range(20_000):
        known.observe(12, exceeds=False)
    assert new.forecast() > 0.09
    assert known.forecast() < 0.002


def test_a_request_may_count_as_less_than_one() -> None:
    steering = Steering(0.001)
    steering.observe(3, exceeds=True, weight=0.1)
    assert steering.counted()[0][3] == pytest.approx(0.1, rel=1e-3)
    assert steering.counted()[1][3] == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("place", [1, 2, 11])
def test_the_level_stays_below_the_risks_that_are_too_many(place: int) -> None:
    level = misses(place, 3, requests=5000).level
    assert LEVELS[place] < level < LEVELS[place - 1]
