"""The paper's estimator, held to the paper's figures (arXiv 2604.08075, Table 5)."""

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extproc.budget.estimate import Basis, Budget
from extproc.budget.values import Asked, Measure, Observation, Outcome
from tests.support.conversation import paper

# category: true ratio, ratio learnt after 50 observations, in bytes per token
TABLE_5 = {"english": (4.48, 4.41), "code": (3.52, 3.47), "cjk": (2.01, 2.08)}


LIMIT = 8192


def asked(text_bytes, token_ids=0, category="prose", output_tokens=0):
    return Asked("m", category, Measure(text_bytes, token_ids), output_tokens)


def answer(request, prompt_tokens):
    return Observation(request, Outcome.COMPLETE, LIMIT, prompt_tokens, 1)


def teach(estimator, ratios, prompt_tokens=10_000):
    for ratio in ratios:
        estimator.observe(answer(asked(round(ratio * prompt_tokens)), prompt_tokens))
    return estimator.learnt().categories["prose/m"]


def test_before_anything_is_learnt_the_prior_holds():
    budget = paper().budget(asked(4001, output_tokens=100))
    assert budget == Budget(1001, 0, 100, Basis.PRIOR)


def test_without_a_stated_limit_the_default_is_reserved():
    assert paper().budget(asked(4000, output_tokens=None)).output_tokens == 1024


def test_the_least_output_is_reserved_if_it_is_more_than_the_default():
    request = asked(4000, output_tokens=None)
    budgets = [paper().budget(replace(request, output_floor=n)) for n in (1023, 1025)]
    assert [budget.output_tokens for budget in budgets] == [1024, 1025]


def test_a_budget_is_prompt_margin_and_output():
    assert Budget(1001, 9, 100, Basis.PRIOR).tokens == 1110


def test_one_observation_moves_the_mean_and_then_the_deviation():
    learnt = teach(paper(), [2.0])
    assert learnt["bytes_per_token"] == pytest.approx(0.95 * 4 + 0.05 * 2)
    assert learnt["deviation"] == pytest.approx(0.05 * 1.9)
    assert learnt["samples"] == 1


def test_the_budget_uses_the_mean_less_gamma_deviations():
    estimator = paper()
    teach(estimator, [2.0])
    # 3800 bytes at 3.9 - 0.095 and at 3.9 bytes per token
    assert estimator.budget(asked(3800)) == Budget(975, 999 - 975, 0, Basis.CALIBRATED)


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
    assert estimator.budget(asked(4000, category="code")).tokens == 1000


def test_more_categories_than_are_kept_share_one_ratio():
    estimator = paper(categories=2)
    for category in ("a", "b", "a", "c", "d"):
        estimator.observe(answer(asked(4000, category=category), 1000))
    assert list(estimator.learnt().categories) == ["b/m", "a/m", "other/other"]
    assert estimator.learnt().categories["other/other"]["samples"] == 2
    assert estimator.budget(asked(4000, category="c")).basis is Basis.CALIBRATED


def test_prompts_are_compared_by_the_prior():
    measures = [Measure(4000), Measure(10, 900)]
    assert [paper().weigh("m", "", measure) for measure in measures] == [1.0, 900.0]


def test_token_ids_are_exact():
    estimator = paper()
    assert estimator.budget(asked(0, 70)).tokens == 70
    estimator.observe(answer(asked(400, 70), 170))
    assert estimator.learnt().categories["prose/m"]["bytes_per_token"] == 4.0


@pytest.mark.parametrize(("request_", "tokens"), [(asked(0), 5), (asked(9, 5), 5)])
def test_a_prompt_without_text_teaches_nothing(request_, tokens):
    estimator = paper()
    estimator.observe(answer(request_, tokens))
    assert estimator.learnt().categories == {}


def test_a_refusal_teaches_nothing():
    estimator = paper()
    estimator.observe(Observation(asked(4000), Outcome.REFUSED, LIMIT))
    assert estimator.learnt().categories == {}


@given(
    st.lists(st.tuples(st.integers(1, 2**31), st.integers(1, 2**31)), max_size=30),
    st.integers(0, 2**31),
    st.floats(0, 10),
)
def test_a_budget_is_finite_and_never_negative_whatever_was_learnt(answers, text_bytes, gamma):
    estimator = paper(gamma=gamma)
    for observed, tokens in answers:
        estimator.observe(answer(asked(observed), tokens))
    assert 0 <= estimator.budget(asked(text_bytes)).tokens <= 16 * text_bytes


@pytest.mark.parametrize(("tokens", "samples"), [(1, 1), (0, None)])
def test_a_prompt_of_one_token_teaches(tokens, samples):
    estimator = paper()
    estimator.observe(answer(asked(4), tokens))
    assert estimator.learnt().categories.get("prose/m", {}).get("samples") == samples


def test_a_text_of_one_byte_teaches():
    estimator = paper()
    estimator.observe(answer(asked(1), 1))
    assert estimator.learnt().categories["prose/m"]["samples"] == 1


def test_what_was_learnt_comes_in_one_part():
    estimator = paper()
    estimator.observe(answer(asked(4000), 1000))
    assert list(estimator.learnt_parts()) == [estimator.learnt()]


def test_ratios_survive_other_settings():
    estimator = paper()
    teach(estimator, [3.0] * 50)
    before = estimator.learnt().categories["prose/m"]
    estimator.retune(
        beta=0.5, gamma=0.0, prior_bytes_per_token=3.0, default_output_tokens=7, categories=1
    )
    after = estimator.learnt().categories["prose/m"]
    assert after["bytes_per_token"] == before["bytes_per_token"]
    assert after["conservative"] == after["bytes_per_token"]
