"""Budgets from numbers that hold until the next answer."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.calibrated import Calibrated
from extproc.budget.measure import measure
from extproc.budget.prior import MEASURED
from extproc.budget.values import Asked, Observation, Outcome

COUNTS = st.integers(0, 100_000)


def ask(text=b"Where do owls sleep?", limit=None, floor=0, *, times=1, hint=False, form=""):
    found = measure(text, len(text) * times, messages=1)
    return Asked("m", "prose", found, limit, floor, limit_is_hint=hint, form=form)


def estimator(answers=()):
    made = Calibrated(MEASURED, (700,), target=0.001, categories=8)
    for prompt, output in answers:
        made.observe(Observation(ask(), Outcome.COMPLETE, 4000, prompt, output))
    return made


@given(
    answers=st.lists(st.tuples(st.integers(5, 40), st.integers(1, 5000)), max_size=70),
    words=st.integers(0, 3000),
    times=st.integers(1, 9),
    limit=COUNTS | st.none(),
    floor=COUNTS,
    hint=st.booleans(),
    form=st.sampled_from(["", "shaped"]),
)
def test_they_are_those_of_the_estimator(answers, words, times, limit, floor, hint, form):
    made = estimator(answers)
    asked = ask(b"owls " * words, limit, floor, times=times, hint=hint, form=form)
    outlook, unseen = made.outlook("m", "prose"), asked.measure.unseen
    features = np.array(asked.measure.features)
    budget = (
        outlook.expected(features, unseen, floor, limit, form)
        if asked.reserved is None
        else outlook.reserved(features, unseen, asked.reserved)
    )
    assert budget == made.budget(asked)


def test_an_answer_ends_an_outlook():
    made = estimator()
    before = made.outlook("m", "prose")
    assert made.outlook("m", "prose") is before
    made.observe(Observation(ask(), Outcome.COMPLETE, 4000, 12, 5))
    assert made.outlook("m", "prose") is not before
