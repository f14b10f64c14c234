"""The tokens of the beginnings of prompts."""

import random

import pytest

from extproc.budget.prefixes import STEADY, Prefixes
from extproc.budget.values import Measure, Prefix, Recalled
from extproc.budget.weights import Prediction

REST = Measure(4)


def learnt(*answers: tuple[Prefix, int, Prediction | None], most: int = 8) -> Prefixes:
    prefixes = Prefixes(most)
    for answer in answers:
        prefixes.learn(*answer)
    return prefixes


def test_an_answer_tells_the_whole_prompt() -> None:
    assert learnt((Prefix("a"), 100, None)).find("a") == Recalled(100.0, 0.0)


def test_what_is_not_known_is_not_found() -> None:
    assert Prefixes(8).find("a") is None


def test_a_shared_part_is_unknown_until_its_rest_is_estimated() -> None:
    found = learnt((Prefix("a", "s"), 100, None)).find("s")
    assert found is not None
    assert not found.is_known


def test_a_part_is_what_the_rest_leaves() -> None:
    prefix = Prefix("b", "s", REST)
    assert learnt((prefix, 1100, Prediction(100.0, 5.0))).find("s") == Recalled(1000.0, 5.0)


def test_a_part_is_known_better_with_every_answer() -> None:
    draw, prefixes = random.Random(0), Prefixes(8)
    for number in range(100):
        rest = draw.randint(50, 150)
        prefixes.learn(
            Prefix(str(number), "s"), 1000 + rest, Prediction(rest + draw.gauss(0, 20), 20)
        )
    found = prefixes.find("s")
    assert found is not None
    assert found.is_known
    assert found.tokens == pytest.approx(1000, abs=15)
    assert found.deviation == pytest.approx(20 / STEADY**0.5, rel=0.1)


def test_estimates_that_change_move_a_part() -> None:
    prefixes = Prefixes(8)
    for number in range(300):
        prefixes.learn(Prefix(str(number), "s"), 1000, Prediction(100.0 if number < 100 else 50, 5))
    found = prefixes.find("s")
    assert found is not None
    assert found.tokens == pytest.approx(950, abs=1)


def test_a_part_that_an_answer_counted_stays() -> None:
    prefixes = learnt((Prefix("a"), 500, None), (Prefix("b", "a"), 650, Prediction(100.0, 5.0)))
    assert prefixes.find("a") == Recalled(500.0, 0.0)


def test_a_forgotten_part_is_estimated_anew() -> None:
    prefixes, later = learnt((Prefix("a"), 500, None)), Prefix("b", "a")
    prefixes.forget(later)
    assert prefixes.find("a") is None
    prefixes.forget(later)
    prefixes.learn(later, 900, Prediction(100.0, 5.0))
    assert prefixes.find("a") == Recalled(800.0, 5.0)


def test_those_that_were_used_last_are_kept() -> None:
    prefixes = learnt(*((Prefix(str(number), "s"), 100, None) for number in range(20)), most=4)
    assert len(prefixes) == 4
    assert prefixes.find("s")
    assert prefixes.find("19")
    assert not prefixes.find("1")


def test_none_are_kept_where_none_are_permitted() -> None:
    assert not len(learnt((Prefix("a", "s"), 100, None), most=0))


def test_of_fewer_those_that_were_used_last_are_kept() -> None:
    prefixes = learnt(*((Prefix(str(number)), 100, None) for number in range(4)), most=4)
    prefixes.resize(1)
    assert len(prefixes) == 1
    assert prefixes.find("3")
