"""What is known of a category."""

import pytest
from msgspec import structs

from extproc.budget.families import Member
from extproc.budget.features import FEATURES
from extproc.budget.outputs import Kind, Outputs
from extproc.budget.prior import MEASURED
from extproc.budget.states import Apart, CategoryState, Distributions, Errors, ModelState
from extproc.budget.values import Asked, Measure, Observation, Outcome, Prefix
from extproc.budget.weights import Prediction, TokenWeights

SEEN = Observation(Asked("m", "prose", Measure(4), None), Outcome.COMPLETE, 8192, 10, 1000)
ESTIMATED = Prediction(10.0, 2.0)
RESUMED = Prefix("whole", "part", known=True)


def category() -> CategoryState:
    return CategoryState(model())


def test_a_new_state_is_like_the_wider_one() -> None:
    wider = category()
    for _ in range(200):
        wider.outputs.add(Kind("", "", False), 0, SEEN, 1.0)
    assert Distributions(wider).outputs.every.upper(0.5) > 800


def model() -> ModelState:
    return ModelState(Member(TokenWeights(MEASURED), placed=True), Errors(), Outputs())


def test_a_plausible_answer_is_believed() -> None:
    assert model().believes(plausible=True)


def test_a_rare_implausible_answer_is_not_believed() -> None:
    state = model()
    found = [state.believes(plausible=number % 50 < 49) for number in range(1000)]
    assert found.count(False) == 20


def test_implausible_answers_are_believed_once_there_are_many() -> None:
    state = model()
    for number in range(1000):
        state.believes(plausible=number % 10 < 9)
    assert state.believes(plausible=False)


def test_a_new_model_is_believed_at_once() -> None:
    assert model().believes(plausible=False)


def test_the_observations_are_those_of_the_scores() -> None:
    state = category()
    state.errors.whole.add(1.0)
    state.errors.add(structs.replace(SEEN.asked, prefix=RESUMED), ESTIMATED, 1.0, 1.0)
    assert state.observations == 2


def test_errors_after_a_known_part_are_kept_apart() -> None:
    errors = Errors()
    for _ in range(100):
        errors.of(SEEN.asked, ESTIMATED).add(4.0)
    resumed = structs.replace(SEEN.asked, prefix=RESUMED)
    assert errors.of(SEEN.asked, ESTIMATED).upper(0.5) > 3.0
    assert errors.of(resumed, ESTIMATED).upper(0.5) == pytest.approx(0.0, abs=0.1)


def test_errors_beside_a_text_that_was_counted_are_kept_apart() -> None:
    errors = Errors()
    counted = errors.of(SEEN.asked, Prediction(10.0, 2.0, is_counted=True))
    assert counted is errors.find_apart(Apart.REST)
    assert counted is not errors.of(SEEN.asked, ESTIMATED)


def with_documents() -> Asked:
    features = [0.0] * len(FEATURES)
    features[FEATURES.index("documents")] = 100.0
    return structs.replace(SEEN.asked, measure=Measure(400, features=tuple(features)))


def with_large_errors_of_documents() -> Errors:
    errors = Errors()
    for _ in range(100):
        errors.add(with_documents(), ESTIMATED, 4.0, 1.0)
    return errors


def test_errors_of_text_that_templates_may_drop_are_kept_apart() -> None:
    errors = with_large_errors_of_documents()
    assert errors.of(SEEN.asked, ESTIMATED).upper(0.5) == pytest.approx(0.0, abs=0.1)


def test_narrower_errors_begin_as_the_wider_ones_of_their_kind() -> None:
    errors = Errors(with_large_errors_of_documents())
    assert errors.of(with_documents(), ESTIMATED).upper(0.5) > 3.0


def test_errors_that_are_kept_apart_are_saved() -> None:
    after = Errors()
    after.load(with_large_errors_of_documents().save())
    assert after.of(with_documents(), ESTIMATED).upper(0.5) > 3.0
