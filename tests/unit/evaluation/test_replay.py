"""Cases through an estimator."""

import pytest

from extproc.budget.estimate import Basis, Budget
from extproc.budget.values import Asked, Measure, Outcome
from extproc.evaluation.options import LONG
from extproc.evaluation.replay import answer, replay
from extproc.routing.pools import Pool, Verdict
from tests.support.evaluation_cases import case

SHORT = Pool("short", 1000, 1000)


class Fixed:
    """Says the same of every prompt, and keeps what it is taught."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.taught = []

    def budget(self, seen):
        return Budget(self.tokens, 0, seen.asked.output_limit or 0, Basis.PRIOR)

    def observe(self, seen, observation):
        self.taught.append(observation)


@pytest.mark.parametrize(
    ("tokens", "words", "verdict"),
    [(500, 500, Verdict.RIGHT), (500, 980, Verdict.MISROUTED), (2000, 500, Verdict.OVER_ROUTED),
     (2000, 980, Verdict.RIGHT)],
)  # fmt: skip
def test_a_decision_is_judged_by_what_was_needed(tokens, words, verdict):
    (row,) = replay([case(words, output=10)], Fixed(tokens), 1000)
    assert row.verdict is verdict


def test_the_error_is_that_of_the_prompt_and_under_that_of_the_whole():
    (row,) = replay([case(480, output=None, answer=100)], Fixed(550), 1000)
    assert row.error == pytest.approx(0.1)
    assert row.under


def test_the_window_cuts_an_answer():
    seen = answer(case(780, output=500, answer=400), SHORT)
    assert (seen.outcome, seen.prompt_tokens, seen.completion_tokens) == (Outcome.CUT, 800, 200)


def test_an_answer_that_ends_before_the_window_is_whole():
    seen = answer(case(780, output=500, answer=150), SHORT)
    assert (seen.outcome, seen.completion_tokens) == (Outcome.COMPLETE, 150)


def test_a_prompt_over_the_window_is_refused():
    assert answer(case(990), SHORT).outcome is Outcome.REFUSED
    assert answer(case(990), Pool("long", LONG, LONG)).outcome is Outcome.COMPLETE


def test_a_stated_limit_cuts_an_answer():
    seen = answer(case(100, output=50, answer=400), SHORT)
    assert (seen.outcome, seen.completion_tokens) == (Outcome.CUT, 50)


def test_usage_counts_every_prompt_and_every_output():
    asked = Asked("m", "prose", Measure(400), 50, sequences=8, whole=Measure(800))
    seen = answer(case(asked=asked, prompt_tokens=100, whole_tokens=200, answer=30), SHORT)
    assert (seen.prompt_tokens, seen.completion_tokens) == (200, 240)


def test_a_prompt_that_fills_the_window_leaves_room_for_an_embedding_alone():
    full = {"prompt_tokens": 1000, "answer": 0}
    assert answer(case(output=0, **full), SHORT).outcome is Outcome.COMPLETE
    assert answer(case(output=1, **full), SHORT).outcome is Outcome.REFUSED


def test_an_answer_without_the_output_asked_for_teaches_nothing():
    rival = Fixed(1)
    rows = replay([case(output=9, answer=0)] * 3, rival, 1000)
    assert ([row.seen for row in rows], rival.taught) == ([0, 0, 0], [])


def test_embeddings_teach():
    rival = Fixed(1)
    rows = replay([case(output=0, answer=0)] * 3, rival, 1000)
    assert [row.seen for row in rows] == [0, 1, 2]
    assert [told.prompt_tokens for told in rival.taught] == [420] * 3


def test_categories_are_counted_apart():
    cases = [case(category=name) for name in ("prose", "prose", "code")]
    assert [row.seen for row in replay(cases, Fixed(1), 1000)] == [0, 1, 0]


def test_what_is_taught_can_be_another_than_the_truth():
    rival, lie = Fixed(1), case(words=7)
    replay([case()], rival, 1000, lambda seen, told: [(lie, told), (seen, told)])
    assert len(rival.taught) == 2
