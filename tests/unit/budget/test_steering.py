"""The level of risk that keeps the promise."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.steering import (
    AIM,
    CEILING,
    EVIDENCE_MEMORY,
    FLOOR,
    LEVELS,
    MOST_EVIDENCE,
    Evidence,
    Risks,
    Steering,
)

SAFE = len(LEVELS)
LIMIT = 2048


def new(wider: Steering | None = None, target: float = 0.001) -> Steering:
    return Steering(target, [LIMIT], wider)


def risks(steering: Steering) -> Risks:
    return steering.risks[LIMIT]


def steered(near: float, truth: float = 1.0, requests: int = 20_000) -> tuple[Steering, float]:
    """Requests of which a share `near` has an even risk up to .5, which is `truth` times too low;
    with the share that was misrouted in the second half."""
    steering, draw, misrouted = new(), random.Random(1), 0
    for request in range(requests):
        risk = draw.random() / 2 if draw.random() < near else 0.0
        place = sum(level > risk for level in LEVELS)
        exceeds = draw.random() < risk * truth
        misrouted += exceeds and risk <= steering.level and request * 2 > requests
        steering.observe(LIMIT, place, exceeds=exceeds)
    return steering, misrouted * 2 / requests


@pytest.mark.parametrize("near", [0.003, 0.02, 0.1])
def test_the_promise_holds(near: float) -> None:
    assert steered(near)[1] <= 0.0011


def test_risks_that_are_told_too_low_are_corrected() -> None:
    assert steered(0.05, truth=4.0)[1] <= 0.0015


def test_few_requests_near_the_threshold_allow_more_risk_each() -> None:
    assert steered(0.003)[0].level > 2 * steered(0.1)[0].level


def test_a_new_steering_is_careful() -> None:
    assert new().level < 0.1


def test_unforeseeable_misroutes_use_up_half_the_target_at_most() -> None:
    steering = new()
    for request in range(5000):
        steering.observe(LIMIT, SAFE, exceeds=request % 100 == 0)
    assert steering.level > FLOOR


def test_where_nobody_is_near_the_most_risk_is_taken_and_numbers_stay_small() -> None:
    steering = new(target=0.01)
    for _ in range(120_000):
        steering.observe(LIMIT, SAFE, exceeds=False)
    assert steering.level == CEILING
    assert max(risks(steering)._requests) < 1e12


def test_the_forecast_is_of_what_the_level_lets_through() -> None:
    steering, misrouted = steered(0.05)
    assert steering.forecast() == pytest.approx(misrouted, abs=0.0006)


@given(st.lists(st.tuples(st.integers(0, SAFE), st.booleans()), max_size=300))
def test_the_level_stays_in_its_bounds(seen: list[tuple[int, bool]]) -> None:
    steering = new()
    for place, exceeds in seen:
        steering.observe(LIMIT, place, exceeds=exceeds)
    assert FLOOR <= steering.level <= CEILING


def misses(place: int, exceeding: int, requests: int = 1000) -> Steering:
    """A steering that saw requests of one bin, of which every `exceeding`-th did not fit."""
    steering = new()
    for request in range(requests):
        steering.observe(LIMIT, place, exceeds=request % exceeding == 0)
    return steering


def test_risks_are_corrected_by_at_most_four_upwards_and_two_downwards() -> None:
    # The bin between .008 and .015: a risk of about .011.
    cost = {n: risks(misses(10, n, 5000)).costs()[0][9] for n in (1, 10, 10_000)}
    assert cost[1] == pytest.approx(cost[10])
    assert cost[1] / cost[10_000] == pytest.approx(4.0 / 0.5)


def test_rescaling_changes_nothing_but_the_size_of_the_numbers() -> None:
    plain, rescaled = misses(6, 7), misses(6, 7)
    for steering in (plain, rescaled):
        risks(steering)._weight, scale = 0.999e9, 0.999e9 / risks(steering)._weight
        risks(steering)._requests = [n * scale for n in risks(steering)._requests]
        risks(steering)._exceeded = [n * scale for n in risks(steering)._exceeded]
    risks(rescaled)._rescale()
    assert risks(rescaled)._weight == 1.0
    for steering in (plain, rescaled):
        for place in range(0, SAFE + 1, 2):
            steering.observe(LIMIT, place, exceeds=place == 6)
    assert rescaled.forecast() == pytest.approx(plain.forecast(), rel=1e-9)
    assert rescaled.level == pytest.approx(plain.level, rel=1e-9)


def test_numbers_are_rescaled_before_they_overflow() -> None:
    steering = new()
    risks(steering)._weight = 1e9
    steering.observe(LIMIT, 3, exceeds=True)
    assert risks(steering)._weight == 1.0
    assert risks(steering)._requests[3] == pytest.approx(1.0, rel=1e-3)
    assert risks(steering)._exceeded[3] == pytest.approx(1.0, rel=1e-3)


def test_the_level_is_steered_anew_after_eight_requests() -> None:
    steering = new()
    levels = []
    for _ in range(16):
        steering.observe(LIMIT, 4, exceeds=True)
        levels.append(steering.level)
    assert levels[:7] == [new().level] * 7
    assert len(set(levels[:7])) == 1
    assert levels[7] != levels[6]
    assert len(set(levels[7:15])) == 1
    assert levels[15] != levels[14]


def test_a_new_one_starts_near_the_level_of_the_wider_one() -> None:
    wider = misses(10, 5)
    assert wider.level < 0.5 * new().level
    assert new(wider).level < 0.5 * new().level


def test_one_that_has_counted_much_is_on_its_own() -> None:
    wider = misses(SAFE, 5)
    fresh, known = new(wider), new(wider)
    for _ in range(20_000):
        known.observe(LIMIT, SAFE, exceeds=False)
    assert fresh.forecast() > 0.09
    assert known.forecast() < 0.002


def test_a_request_may_count_as_less_than_one() -> None:
    steering = new()
    steering.observe(LIMIT, 3, exceeds=True, weight=0.1)
    assert risks(steering).counted()[0][3] == pytest.approx(0.1, rel=1e-3)
    assert risks(steering).counted()[1][3] == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("place", [1, 2, 11])
def test_the_level_stays_below_the_risks_that_are_too_many(place: int) -> None:
    level = misses(place, 3, requests=5000).level
    assert LEVELS[place] < level < LEVELS[place - 1]


def test_the_target_is_of_all_limits_together() -> None:
    draw, limits = random.Random(1), (2048, 4096, 8192, 16384)
    steering, misrouted = Steering(0.001, limits), 0
    for request in range(20_000):
        near = limits[draw.randrange(4)]
        risk = draw.random() / 2 if draw.random() < 0.1 else 0.0
        place, exceeds = sum(level > risk for level in LEVELS), draw.random() < risk
        misrouted += exceeds and risk <= steering.level and request >= 10_000
        for limit in limits:
            there = limit == near
            steering.observe(limit, place if there else SAFE, exceeds=exceeds and there)
    assert misrouted / 10_000 <= 0.0011
    assert steering.forecast() == pytest.approx(sum(map(steering.forecast, limits)))


def test_an_answer_that_stands_for_several_counts_as_several() -> None:
    one, several = new(), new()
    for _ in range(20):
        one.observe(LIMIT, SAFE, exceeds=True)
    several.observe(LIMIT, SAFE, exceeds=True, weight=20.0)
    assert risks(several).costs()[1] == pytest.approx(risks(one).costs()[1], rel=0.01)


def test_risks_that_are_told_too_low_where_they_are_low_are_corrected_there() -> None:
    steering = new()
    for request in range(20_000):
        # Of the risks of about .011 twice as many exceed, of those of about .21 fewer.
        steering.observe(LIMIT, 10, exceeds=request % 45 == 0)
        steering.observe(LIMIT, 3, exceeds=request % 6 == 0)
    costs, _ = risks(steering).costs()
    assert costs[9] == pytest.approx(0.5 / 45, rel=0.15)


def test_what_is_spent_never_falls_with_the_risk_that_is_taken() -> None:
    steering, draw = new(), random.Random(3)
    for _ in range(5000):
        place = draw.randrange(SAFE + 1)
        steering.observe(LIMIT, place, exceeds=draw.random() < (0.3 if place > 8 else 0.01))
    costs, _ = risks(steering).costs()
    assert costs == sorted(costs, reverse=True)


def test_the_forecast_is_what_is_aimed_at_where_the_level_is_steered() -> None:
    steering, _ = steered(0.1)
    steering.observe(LIMIT, SAFE, exceeds=False)
    assert steering.forecast() == pytest.approx(AIM * 0.001, rel=0.05)


def test_what_was_counted_of_a_limit_survives_another_target() -> None:
    steering, same = steered(0.02)[0], steered(0.02)[0]
    steering.retune(0.005, [LIMIT])
    assert risks(steering).counted() == risks(same).counted()
    assert steering.level > same.level


def test_a_new_limit_begins_as_a_new_service() -> None:
    steering = steered(0.02)[0]
    steering.retune(0.001, [LIMIT, 2 * LIMIT])
    assert steering.risks[2 * LIMIT].counted() == risks(new()).counted()
    assert risks(steering).counted() != risks(new()).counted()


def test_a_new_limit_of_a_tenant_begins_with_what_all_have_counted() -> None:
    wider = Steering(0.001, [LIMIT])
    own = Steering(0.001, [LIMIT], wider)
    for each in (wider, own):
        each.retune(0.001, [2 * LIMIT])
    wider.observe(2 * LIMIT, 0, exceeds=True, weight=10.0)
    assert sum(own.risks[2 * LIMIT].counted()[0]) > 0.0


def test_a_limit_that_is_gone_has_no_forecast() -> None:
    steering = new()
    steering.retune(0.001, [2 * LIMIT])
    assert steering.forecast(LIMIT) == 0.0


@pytest.mark.parametrize(("misrouted", "most"), [(False, 1 / MOST_EVIDENCE), (True, MOST_EVIDENCE)])
def test_evidence_corrects_a_forecast_within_bounds(*, misrouted: bool, most: float) -> None:
    found = Evidence()
    for _ in range(50_000):
        found.count(0.001, misrouted=misrouted, weight=1.0)
    assert found.correction == most


def test_a_forecast_that_comes_true_is_not_corrected() -> None:
    found = Evidence()
    for request in range(20_000):
        found.count(0.001, misrouted=request % 1000 == 0, weight=1.0)
    assert found.correction == pytest.approx(1.0, abs=0.05)


def test_without_evidence_nothing_is_corrected() -> None:
    assert Evidence().correction == 1.0


def test_evidence_fades_by_the_requests_that_answers_stand_for() -> None:
    found = Evidence()
    found.count(0.0, misrouted=True, weight=1.0)
    found.count(0.0, misrouted=False, weight=EVIDENCE_MEMORY)
    assert found.save()[1] == pytest.approx(math.exp(-1))


def test_one_misroute_that_stands_for_many_is_one_piece_of_evidence() -> None:
    one, many = Evidence(), Evidence()
    one.count(0.0, misrouted=True, weight=1.0)
    many.count(0.0, misrouted=True, weight=1000.0)
    assert many.correction == pytest.approx(one.correction)


def test_the_forecast_follows_what_is_misrouted() -> None:
    steering, _ = steered(0.1)
    before = steering.forecast()
    for _ in range(20_000):
        steering.count(misrouted=False)
    assert steering.forecast() < 0.5 * before


def levels(every: int) -> tuple[float, float]:
    """Return the level after a misroute in so many requests, and that without any."""
    steering, same = steered(0.1)[0], steered(0.1)[0]
    for request in range(10_000):
        steering.count(misrouted=request % every == 0)
    for each in (steering, same):
        for _ in range(8):
            each.observe(LIMIT, SAFE, exceeds=False)
    return steering.level, same.level


def test_more_misroutes_than_the_target_permits_lower_the_level() -> None:
    level, same = levels(400)
    assert level < 0.8 * same


def test_misroutes_within_the_target_leave_the_level_as_it_is() -> None:
    level, same = levels(1100)
    assert level == same


def test_a_request_that_may_use_a_part_of_the_level_is_forecast_a_part_of_the_misroutes() -> None:
    steering = new()
    steering.count(misrouted=False, share=0.2)
    assert steering._evidence.save()[0] == pytest.approx(0.2 * steering.forecast(), rel=0.01)


def test_what_is_assumed_at_first_fades() -> None:
    few = sum(steered(0.0, requests=100)[0].risks[LIMIT].costs()[0])
    many = sum(steered(0.0, requests=20_000)[0].risks[LIMIT].costs()[0])
    assert many < few / 1000


def test_a_steering_that_was_saved_goes_on_by_its_evidence() -> None:
    steering, loaded = steered(0.05)[0], new()
    for request in range(3000):
        steering.count(misrouted=request % 300 == 0)
    loaded.load(steering.save())
    assert loaded.forecast() == steering.forecast()
