"""The paper's estimator, held to the paper's figures (arXiv 2604.08075, Table 5)."""

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget import Basis, Budget, Measure, PaperEstimator

# category: true ratio, ratio learnt after 50 observations, in bytes per token
TABLE_5 = {"english": (4.48, 4.41), "code": (3.52, 3.47), "cjk": (2.01, 2.08)}


def paper(**changes):
    return PaperEstimator(**{"beta": 0.95, "gamma": 1.0, "prior_bytes_per_token": 4.0} | changes)


def teach(estimator, ratios, prompt_tokens=10_000):
    for ratio in ratios:
        estimator.observe("c", Measure(round(ratio * prompt_tokens)), prompt_tokens)
    return estimator.snapshot()["c"]


def test_before_anything_is_learnt_the_prior_holds():
    assert paper().budget("c", Measure(4001), 100) == Budget(1001, 100, Basis.PRIOR)


def test_a_budget_is_prompt_plus_output():
    assert Budget(1001, 100, Basis.PRIOR).tokens == 1101


def test_one_observation_moves_the_mean_and_then_the_deviation():
    learnt = teach(paper(), [2.0])
    assert learnt["bytes_per_token"] == pytest.approx(0.95 * 4 + 0.05 * 2)
    assert learnt["deviation"] == pytest.approx(0.05 * 1.9)
    assert learnt["samples"] == 1


def test_the_budget_uses_the_mean_less_gamma_deviations():
    estimator = paper()
    teach(estimator, [2.0])
    # 3800 bytes at 3.9 - 0.095 and at 3.9 bytes per token
    assert estimator.budget("c", Measure(3800), 0) == Budget(999, 0, Basis.LEARNT, 999 - 975)


def test_without_noise_fifty_observations_leave_a_thirteenth_of_the_first_error():
    for true, _ in TABLE_5.values():
        learnt = teach(paper(), [true] * 50)["bytes_per_token"]
        assert learnt == pytest.approx(true + 0.95**50 * (4.0 - true), rel=1e-3)


@pytest.mark.parametrize("category", TABLE_5)
def test_the_papers_learnt_ratios_are_within_what_noise_of_fifteen_percent_gives(category):
    true, learnt = TABLE_5[category]
    rng = random.Random(7)
    runs = sorted(
        teach(paper(), [rng.gauss(true, 0.15 * true) for _ in range(50)])["bytes_per_token"]
        for _ in range(400)
    )
    assert runs[10] <= learnt <= runs[-10]  # the middle 95 %


@pytest.mark.parametrize(("category", "error"), [("english", 0.016), ("code", 0.014)])
def test_the_mean_error_after_fifty_observations_is_the_papers(category, error):
    true, _ = TABLE_5[category]
    rng = random.Random(7)
    runs = [
        teach(paper(), [rng.gauss(true, 0.15 * true) for _ in range(50)])["bytes_per_token"]
        for _ in range(400)
    ]
    assert abs(statistics.mean(runs) / true - 1) <= error


def test_categories_learn_apart():
    estimator = paper()
    teach(estimator, [2.0])
    assert estimator.budget("other", Measure(4000), 0).prompt_tokens == 1000


def test_token_ids_are_exact():
    estimator = paper()
    assert estimator.budget("c", Measure(0, 70), 0).prompt_tokens == 70
    estimator.observe("c", Measure(400, 70), 170)
    assert estimator.snapshot()["c"]["bytes_per_token"] == 4.0


@pytest.mark.parametrize(("measure", "tokens"), [(Measure(0), 5), (Measure(9, 5), 5)])
def test_a_prompt_without_text_teaches_nothing(measure, tokens):
    estimator = paper()
    estimator.observe("c", measure, tokens)
    assert estimator.snapshot() == {}


@given(
    st.lists(st.tuples(st.integers(1, 2**31), st.integers(1, 2**31)), max_size=30),
    st.integers(0, 2**31),
    st.floats(0, 10),
)
def test_a_budget_is_finite_and_never_negative_whatever_was_learnt(answers, text_bytes, gamma):
    estimator = paper(gamma=gamma)
    for observed, tokens in answers:
        estimator.observe("c", Measure(observed), tokens)
    assert 0 <= estimator.budget("c", Measure(text_bytes), 0).tokens <= 16 * text_bytes
