"""What the service sees of the cases that it serves."""

from dataclasses import replace
from itertools import pairwise

import pytest

from extproc.budget.estimate import Basis, Budget
from extproc.budget.values import Observation, Outcome
from extproc.evaluation.serving import Conditions, Observed, observe_one_in, serve
from extproc.routing.counting import Countable
from extproc.routing.pools import Pool, Verdict
from tests.support.evaluation_cases import case

POOLS = (Pool("short", 1000, 1000), Pool("middle", 2000, 2000), Pool("long", 9000, 9000))


class Fixed:
    """Says the same of every prompt, and keeps what it is taught."""

    def __init__(self, tokens: int, basis: Basis = Basis.CALIBRATED) -> None:
        self.tokens, self.basis = tokens, basis
        self.taught = []
        self.events = []

    def budget(self, seen):
        self.events.append("budget")
        return Budget(self.tokens, 0, 0, self.basis)

    def observe(self, seen, observation):
        self.events.append("observe")
        self.taught.append(observation)


def served(cases, rival, **conditions):
    values = {"pools": POOLS, "observe_sample": 1.0} | conditions
    return list(serve(cases, rival, Conditions(**values)))


def test_a_prompt_whose_pool_is_open_is_counted_where_the_service_has_the_tokenizer():
    class Unsure(Fixed):
        def budget(self, seen):
            self.events.append(seen.asked.measure.counted)
            return Budget(self.tokens, 0, 0, Basis.CALIBRATED, expected=990, most=1100, least=900)

    asked, rival = replace(case(500), texts=Countable(("two", "texts"))), Unsure(1050)
    served([asked], rival, count=len, count_bytes=asked.asked.measure.text_bytes)
    served([asked], rival, count=len, count_bytes=10)
    served([asked], rival)
    assert [event for event in rival.events if event != "observe"] == [0, 8, 0, 0]


@pytest.mark.parametrize(
    ("budget", "words", "verdict"),
    [(500, 500, Verdict.RIGHT), (500, 1500, Verdict.MISROUTED), (1500, 500, Verdict.OVER_ROUTED),
     (1500, 1500, Verdict.RIGHT), (1500, 2500, Verdict.MISROUTED), (5000, 2500, Verdict.RIGHT)],
)  # fmt: skip
def test_a_decision_among_several_pools_is_judged_by_the_truth(budget, words, verdict):
    (row,) = served([case(words, output=10)], Fixed(budget))
    assert row.verdict is verdict


def test_the_answer_to_a_refused_request_comes_from_the_largest_pool():
    rival = Fixed(500)
    (row,) = served([case(2500, output=10, answer=5)], rival)
    assert rival.taught[0].outcome is Outcome.COMPLETE
    assert (rival.taught[0].window, rival.taught[0].prompt_tokens) == (9000, 2520)
    assert row.is_counted


def test_an_answer_that_the_window_cut_is_counted_as_misrouted():
    (row,) = served([case(800, output=None, answer=500)], Fixed(500))
    assert row.is_counted


@pytest.mark.parametrize(
    ("basis", "most", "one_in"),
    [(Basis.PRIOR, 2, 1), (Basis.BORROWED, 2, 1), (Basis.CALIBRATED, 2, 50),
     (Basis.CALIBRATED, 1500, 1)],
)  # fmt: skip
def test_answers_that_tell_little_are_sampled(basis, most, one_in):
    budget = Budget(1, 0, 0, basis, 1, most)
    assert observe_one_in(budget, Conditions(pools=POOLS, observe_sample=0.02)) == one_in


def test_an_answer_stands_for_those_that_are_not_seen():
    rows = served([case()] * 2000, rival := Fixed(500), observe_sample=0.02)
    assert 15 < len(rival.taught) < 80
    assert {row.weight for row in rows} == {0, 50}


def test_all_rivals_see_the_same_answers():
    streams = [case()] * 500
    once, again = (
        [row.weight for row in served(streams, Fixed(tokens), seed="1", observe_sample=0.02)]
        for tokens in (1, 9000)
    )
    assert once == again


def test_answers_arrive_late():
    rival = Fixed(500)
    served([case(100, output=10)] * 5, rival, lag=2)
    assert len(rival.taught) == 3
    assert rival.events.index("observe") == 3


def test_answers_are_learnt_in_their_order():
    rival = Fixed(500)
    served([case(words, output=10) for words in range(100, 110)], rival, lag=3)
    assert all(a.prompt_tokens < b.prompt_tokens for a, b in pairwise(rival.taught))


def test_an_answer_without_the_output_asked_for_teaches_nothing():
    served([case(output=9, answer=0)], rival := Fixed(500))
    assert not rival.taught


@pytest.mark.parametrize(
    ("words", "near"), [(700, False), (790, True), (1220, True), (2600, False)]
)
def test_a_request_is_near_a_limit_within_a_quarter_of_it(words, near):
    (row,) = served([case(words, output=1)], Fixed(500))
    assert row.is_near is near


def test_a_limit_alone_keeps_a_request_from_the_smallest_pool():
    (reserved,) = served([case(100, output=1500, answer=50)], Fixed(1620))
    (used,) = served([case(100, output=1500, answer=1400)], Fixed(1620))
    assert (reserved.verdict, used.verdict) == (Verdict.RESERVED, Verdict.RIGHT)


def test_a_request_is_long_if_the_smallest_pool_cannot_hold_it():
    rows = served([case(words, output=10) for words in (900, 1100)], Fixed(500))
    assert [row.is_long for row in rows] == [False, True]


def test_what_an_observed_rival_learns_stands_for_what_it_does_not_learn():
    conditions = Conditions(pools=POOLS, observe_sample=0.02)
    observed = Observed(rival := Fixed(500), conditions)
    seen = Observation(case().asked, Outcome.COMPLETE, 9000, 100, 10)
    for _ in range(5000):
        observed.observe(case(), seen)
    assert {each.stands_for for each in rival.taught} == {50}
    assert 60 < len(rival.taught) < 140
    assert observed.budget(case()).tokens == 500
