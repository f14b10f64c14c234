"""Which answers are learnt where there are more than the price of learning allows."""

import random
from collections import Counter

import pytest
from msgspec.structs import replace

from extproc.budget.calibrated import Calibrated
from extproc.budget.category import Labels
from extproc.budget.estimate import Basis, Budget
from extproc.budget.features import FEATURES
from extproc.budget.learner import Learner
from extproc.budget.prior import MEASURED
from extproc.budget.values import Asked, Measure, Observation, Outcome
from extproc.routing.pools import Pool
from extproc.stream.thinning import (
    NEAR_PER_S,
    ORDINARY_PER_S,
    SURPRISES_PER_S,
    Allowance,
    Thinning,
)

POOLS = (Pool("short", 8192, 8192), Pool("long", 65536, 65536))
ASKED = Asked("m", "prose", Measure(400, 0, (1.0,) * len(FEATURES)), 100)
ORDINARY = Observation(ASKED, Outcome.COMPLETE, 8192, 100, 10)
SURPRISE = replace(ORDINARY, prompt_tokens=9000)
RETRIED = replace(ORDINARY, prompt_tokens=9000, window=65536)
REFUSED = Observation(ASKED, Outcome.REFUSED, 8192)
FAR, NEAR = (Budget(100, 10, 100, Basis.CALIBRATED, 200, most) for most in (300, 9000))
SECONDS = 60


class Known:
    """A learner that gives one budget."""

    def __init__(self, budget=FAR, replicas=1):
        self.given, self.replicas = budget, replicas

    def budget(self, asked):
        return self.given


def thinned(rate, given=ORDINARY, budget=FAR, models=256, seconds=SECONDS, share=1.0, replicas=1):
    """Pass answers at a steady rate; return those that are learnt in the second half."""
    now, draw, kept = [0.0], random.Random(0), []
    allowance = Allowance(share, models)
    learner, clock = Known(budget, replicas), lambda: now[0]
    thinning = Thinning(kept.append, learner, lambda _: POOLS, clock, draw.random, allowance)
    for number in range(rate * seconds):
        if number == rate * seconds // 2:
            kept.clear()
        now[0] += 1 / rate
        thinning.learn(given[number % len(given)] if isinstance(given, tuple) else given)
    return kept


def a_second(kept):
    return len(kept) / (SECONDS / 2)


def weight(kept):
    return sum(each.stands_for for each in kept)


def test_up_to_the_rate_all_are_learnt_as_they_are():
    kept = thinned(int(ORDINARY_PER_S) - 2)
    assert len(kept) == (ORDINARY_PER_S - 2) * SECONDS / 2
    assert set(map(id, kept)) == {id(ORDINARY)}


def test_beyond_the_rate_no_more_are_learnt():
    assert a_second(thinned(1000)) == pytest.approx(ORDINARY_PER_S, rel=0.15)


def test_those_that_are_learnt_stand_for_all():
    assert weight(thinned(1000)) == pytest.approx(1000 * SECONDS / 2, rel=0.1)


def test_an_answer_that_stood_for_several_stands_for_as_many_times_more():
    kept = thinned(1000, replace(ORDINARY, stands_for=20))
    assert all(each.stands_for % 20 == 0 for each in kept)
    assert weight(kept) == pytest.approx(20 * 1000 * SECONDS / 2, rel=0.1)


def test_a_process_takes_its_share_of_the_rate():
    assert a_second(thinned(1000, share=0.25)) == pytest.approx(ORDINARY_PER_S / 4, rel=0.3)


@pytest.mark.parametrize("surprise", [SURPRISE, RETRIED, REFUSED])
def test_every_surprise_is_learnt_and_counts_once(surprise):
    kept = thinned(1000, (*[ORDINARY] * 99, surprise))
    found = [each for each in kept if each.needed == surprise.needed]
    assert (len(found), weight(found)) == (10 * SECONDS / 2, 10 * SECONDS / 2)


def test_a_surprise_that_chance_would_have_dropped_is_told_apart():
    kept = thinned(1000, (*[ORDINARY] * 99, SURPRISE))
    found = Counter(each.by_chance for each in kept if each.needed == SURPRISE.needed)
    assert found[False] > 10 * found[True]


def test_the_others_are_learnt_by_chance():
    assert all(each.by_chance for each in thinned(1000))


def test_a_flood_of_refusals_is_thinned_too():
    kept = thinned(2000, REFUSED)
    assert a_second(kept) == pytest.approx(SURPRISES_PER_S, rel=0.1)
    assert weight(kept) == pytest.approx(2000 * SECONDS / 2, rel=0.1)


def test_more_are_learnt_of_requests_that_are_near_a_window():
    kept = thinned(1000, budget=NEAR)
    assert a_second(kept) == pytest.approx(NEAR_PER_S, rel=0.1)
    assert weight(kept) == pytest.approx(1000 * SECONDS / 2, rel=0.1)


def test_an_answer_that_stands_for_others_was_not_near_a_window_when_it_was_decided():
    kept = thinned(1000, replace(ORDINARY, stands_for=20), budget=NEAR)
    assert a_second(kept) == pytest.approx(ORDINARY_PER_S, rel=0.15)


def test_every_surprise_that_stands_for_others_is_learnt():
    surprise = replace(SURPRISE, stands_for=20)
    kept = thinned(1000, (*[replace(ORDINARY, stands_for=20)] * 99, surprise))
    assert sum(each.needed == surprise.needed for each in kept) == 10 * SECONDS / 2


def test_a_rare_model_is_learnt_whole_beside_a_busy_one():
    rare = replace(ORDINARY, asked=replace(ASKED, model="rare"))
    kept = thinned(1000, (*[ORDINARY] * 99, rare))
    assert [each.stands_for for each in kept if each.asked.model == "rare"] == [1] * 300


def test_models_beyond_the_permitted_number_share_one_rate():
    others = tuple(replace(ORDINARY, asked=replace(ASKED, model=f"m{i}")) for i in range(100))
    assert a_second(thinned(1000, others, models=2)) < 2.5 * ORDINARY_PER_S


def calibrated():
    estimator = Calibrated(MEASURED, (8192,), target=0.001, categories=8)
    return Learner(estimator, Labels(8))


def test_what_is_learnt_from_a_part_is_what_all_teach():
    draw, now, learnt = random.Random(1), [0.0], []
    every, part = calibrated(), calibrated()

    def learn(seen):
        learnt.append(seen)
        part.learn(seen)

    thinning = Thinning(learn, part, lambda _: POOLS, lambda: now[0], draw.random, Allowance())
    for _ in range(20_000):
        tokens, output = draw.randint(50, 500), int(draw.lognormvariate(5, 1)) + 1
        asked = replace(ASKED, output_limit=None, measure=sized(4 * tokens))
        prompt = round(tokens * draw.gauss(1, 0.05))
        seen = Observation(asked, Outcome.COMPLETE, 8192, prompt, output)
        now[0] += 1 / 250
        every.learn(seen)
        thinning.learn(seen)
    assert len(learnt) < 4000
    assert sum(each.stands_for for each in learnt) == pytest.approx(20_000, rel=0.05)
    whole, some = every.learnt(), part.learnt()
    for name, rel in (("completion_tokens_p50", 0.15), ("completion_tokens_p99", 0.3)):
        found = (each.categories["prose/m"][name] for each in (some, whole))
        assert next(found) == pytest.approx(next(found), rel=rel)
    ask = replace(ASKED, output_limit=None, measure=sized(1200))
    some_tokens, tokens = (each.budget(ask).prompt_tokens for each in (part, every))
    assert some_tokens == pytest.approx(tokens, rel=0.03)


def sized(count):
    """Return the measure of a prompt of so many letters."""
    features = [0.0] * len(FEATURES)
    features[FEATURES.index("lower")] = float(count)
    return Measure(count, 0, tuple(features))


def test_an_answer_that_is_learnt_for_its_outcome_moves_no_weights():
    learner, ask = calibrated(), replace(ASKED, measure=sized(4000))
    for _ in range(60):
        learner.learn(Observation(ask, Outcome.COMPLETE, 8192, 1000, 10))
    before = learner.budget(ask).prompt_tokens
    for _ in range(60):
        learner.learn(Observation(ask, Outcome.COMPLETE, 8192, 1100, 10, by_chance=False))
    assert learner.budget(ask).prompt_tokens == before


def test_lies_that_are_kept_as_surprises_are_not_believed():
    learner, ask = calibrated(), replace(ASKED, measure=sized(400))
    for _ in range(100):
        learner.learn(Observation(ask, Outcome.COMPLETE, 8192, 100, 10))
        learner.learn(Observation(ask, Outcome.COMPLETE, 8192, 1_000_000, 10, by_chance=False))
    assert learner.learnt().categories["prose/m"]["samples"] == 100


def test_replicas_that_learn_the_same_share_the_rate():
    alone = thinned(200)
    assert a_second(thinned(200, replicas=4)) == pytest.approx(a_second(alone) / 4, rel=0.3)
