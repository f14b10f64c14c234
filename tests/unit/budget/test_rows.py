"""The estimators of rows: each learns from its own answers alone."""

import pytest
from msgspec.structs import replace

from extproc.budget.estimate import Basis
from extproc.budget.features import FEATURES
from extproc.budget.values import Asked, Measure, Observation, Outcome
from extproc.build import build_estimator, build_learner, build_rules
from extproc.config.settings import PoolSettings, RowSettings, Settings

ASKED = Asked("a", "prose", Measure(4000, 0, (100.0,) * len(FEATURES)), 100)
SEEN = Observation(ASKED, Outcome.COMPLETE, 8192, 1000, 10)


def row(*models, windows=(2048, 8192)):
    pools = (PoolSettings(name=f"{models[0]}-{window}", max_model_len=window) for window in windows)
    return RowSettings(models=models, pools=tuple(pools))


def settings(**further):
    rows = (row("a"), row("b", "b*", windows=(4096, 8192)))
    return Settings.model_validate({"rows": rows} | further)


def taught(estimator, model="a", answers=60):
    for _ in range(answers):
        estimator.observe(replace(SEEN, asked=replace(ASKED, model=model)))
    return estimator


def test_a_row_learns_from_its_own_answers():
    both, alone = taught(build_estimator(settings())), taught(build_estimator(settings()))
    taught(both, "b2")
    assert both.budget(ASKED) == alone.budget(ASKED)
    assert both.budget(replace(ASKED, model="b2")).basis is Basis.CALIBRATED
    assert alone.budget(replace(ASKED, model="b2")).basis is Basis.PRIOR


def test_prompts_are_weighed_by_the_row_of_their_model():
    estimator = taught(build_estimator(settings()))
    before, learnt = (estimator.weigh(model, "", ASKED.measure) for model in ("b", "a"))
    assert abs(learnt - 1000) < abs(before - 1000)


def test_a_row_has_the_windows_of_its_own_pools():
    limits = build_learner(settings()).learnt().limits
    assert list(limits) == ["a-8192/2048", "b-8192/4096"]
    assert {limit["target"] for limit in limits.values()} == {0.001}


def test_an_answer_of_a_model_without_a_row_teaches_nothing():
    estimator = taught(build_estimator(settings()), "mine")
    assert not estimator.learnt().categories
    assert estimator.budget(replace(ASKED, model="mine")).basis is Basis.PRIOR


def test_a_beginning_is_recalled_from_the_row_that_knows_it():
    estimator = build_estimator(settings())
    assert estimator.recall("0" * 16) is None


def test_figures_of_all_further_models_name_the_row():
    few = settings(categories={"models": 2})
    estimator = build_estimator(few)
    for model in ("a", "b1", "b2", "b3"):
        taught(estimator, model)
    assert "prose/(other, b-8192)" in estimator.learnt().categories


def test_the_figures_of_tenants_are_sums_over_the_rows():
    told = settings(tenants={"header": "x-tenant"})
    estimator = build_estimator(told)
    for model in ("a", "b"):
        asked = replace(ASKED, model=model, tenant="0" * 16)
        estimator.observe(replace(SEEN, asked=asked))
    assert estimator.learnt().tenants["kept"] == 2


@pytest.mark.parametrize("name", ["a", "b"])
def test_one_row_alone_is_the_estimator_of_its_pools(name):
    only = Settings(rows=(row(name, "*"),))
    assert type(build_estimator(only)) is type(build_estimator(Settings()))
    assert build_rules(only).rows == ()


def test_a_model_without_a_row_need_not_be_counted():
    estimator = build_estimator(settings())
    assert not estimator.knows("b2")
    assert estimator.knows("mine")
