"""The attacks of `dualpool evaluate --poison`."""

import random

import pytest

from extproc.config.settings import Settings
from extproc.evaluation.cases import TEMPLATES
from extproc.evaluation.lengths import DrawnLength
from extproc.evaluation.options import LONG
from extproc.evaluation.poison import make_attacks, strike
from extproc.evaluation.replay import answer
from extproc.evaluation.requests import write_cases
from extproc.evaluation.rivals import OURS, make_rivals
from extproc.routing.pools import Pool
from tests.support.evaluation_cases import Words, case, reader, writer

RIVALS = make_rivals(Settings())
ATTACKS = make_attacks(Words(), TEMPLATES[0])
TRUTH = answer(case(), Pool("long", LONG, LONG))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_teaches_something_else_than_the_truth(name):
    rng = random.Random(1)
    taught = [tuple(ATTACKS[name](case(), TRUTH, rng)) for _ in range(1000)]
    honest = sum(lesson == ((case(), TRUTH),) for lesson in taught)
    assert 0 < 1000 - honest <= 1000


def test_what_a_tenth_says_of_its_answers_is_a_tenth():
    rng = random.Random(2)
    attack = ATTACKS["10 % are cut after one token"]
    lies = sum(next(iter(attack(case(), TRUTH, rng)))[1] != TRUTH for _ in range(2000))
    assert lies == pytest.approx(200, abs=60)


def test_an_attack_on_one_answer_in_a_hundred_changes_little():
    def draw(rng):
        return DrawnLength(rng.randint(50, 3000), 100)

    cases = tuple(write_cases(writer(), reader(), draw, 800, "1"))
    attack = ATTACKS["1 % report 10 times the tokens"]
    before = strike(cases, RIVALS[OURS](2048), None, 2048, 0)
    after = strike(cases, RIVALS[OURS](2048), attack, 2048, 0)
    assert before.requests == after.requests == 200
    assert after.median_error <= before.median_error + 0.5
