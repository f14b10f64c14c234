"""What is known of a category."""

from extproc.budget.prior import MEASURED
from extproc.budget.sketch import Counts, Scores, Sketch, count_prior, score_prior
from extproc.budget.states import CategoryState, Distributions, ModelState, add_output
from extproc.budget.values import Asked, Measure, Observation, Outcome

SEEN = Observation(Asked("m", "prose", Measure(4), None), Outcome.COMPLETE, 8192, 10, 1000)


def category() -> CategoryState:
    scores = Sketch(Scores(), score_prior(), 1000.0)
    outputs = Sketch(Counts(), count_prior(), 1500.0)
    return CategoryState(ModelState(MEASURED, scores, outputs))


def test_a_new_state_is_like_the_wider_one() -> None:
    wider = category()
    for _ in range(200):
        add_output(wider.outputs, SEEN)
    assert Distributions(wider).outputs.upper(0.5) > 800


def test_a_cut_output_counts_as_longer() -> None:
    state, cut = category(), Observation(SEEN.asked, Outcome.CUT, 8192, 10, 1000)
    for _ in range(200):
        add_output(state.outputs, cut)
    assert state.outputs.upper(0.5) > 1000


def test_the_observations_are_those_of_the_scores() -> None:
    state = category()
    state.scores.add(1.0)
    assert state.observations == 1
