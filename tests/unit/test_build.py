"""What is built from the settings goes on under others."""

from msgspec.structs import replace

from extproc.budget.calibrated import Calibrated
from extproc.budget.estimate import Basis
from extproc.budget.measure import measure
from extproc.budget.paper import PaperEstimator
from extproc.budget.values import Asked, Observation, Outcome
from extproc.build import build_learner, retune
from extproc.config.settings import (
    BudgetSettings,
    CategorySettings,
    EstimatorName,
    PoolSettings,
    RowSettings,
    Settings,
)

CALIBRATED, PAPER = EstimatorName.CALIBRATED, EstimatorName.PAPER
TEXT = b"Where do owls sleep at noon? " * 15
ASKED = Asked("m", "prose", measure(TEXT, len(TEXT), messages=1), None)
KIND = {CALIBRATED: Calibrated, PAPER: PaperEstimator}


def settings(estimator, **budget):
    return Settings(
        budget=BudgetSettings(estimator=estimator, **budget), categories=CategorySettings(max=2)
    )


def retuned(before, after):
    """Return a learner that learnt one answer before it was retuned."""
    learner = build_learner(before)
    learner.learn(
        Observation(
            Asked("m", "prose", measure(TEXT, len(TEXT), messages=1), None),
            Outcome.COMPLETE,
            8192,
            100,
            10,
        )
    )
    retune(learner, after)
    return learner


def test_an_estimator_of_the_same_kind_keeps_what_it_learnt():
    for kind in EstimatorName:
        learner = retuned(settings(kind), settings(kind, target=0.002, gamma=2.0))
        assert learner.learnt().categories["prose/m"]["samples"] == 1


def test_an_estimator_of_another_kind_begins_anew_and_lengths_stay():
    for one, other in ((CALIBRATED, PAPER), (PAPER, CALIBRATED)):
        learner = retuned(settings(one), settings(other))
        assert type(learner.estimator) is KIND[other]
        assert learner.learnt().categories == {}
        assert list(learner.lengths.rows())


def test_the_target_of_the_settings_is_steered_to():
    learner = retuned(settings(CALIBRATED), settings(CALIBRATED, target=0.002))
    assert learner.learnt().limits["8192"]["target"] == 0.002


def rows(*models):
    long = PoolSettings(name="long", max_model_len=65536)
    given = tuple(
        RowSettings(
            models=(model,),
            pools=tuple(
                each.model_copy(update={"name": f"{each.name}-{number}"})
                for each in (PoolSettings(name="short", max_model_len=8192), long)
            ),
        )
        for number, model in enumerate(models)
    )
    return Settings(rows=given)


def test_a_row_keeps_what_it_learnt_and_a_new_one_begins():
    learner = retuned(rows("m", "x"), rows("m", "y"))
    assert learner.learnt().categories["prose/m"]["samples"] == 1
    assert learner.budget(ASKED).basis is not Basis.PRIOR
    assert learner.budget(replace(ASKED, model="y")).basis is Basis.PRIOR


def test_pools_of_every_model_that_become_rows_begin_anew_and_back():
    one = Settings()
    for before, after in ((one, rows("m", "x")), (rows("m", "x"), one)):
        assert retuned(before, after).learnt().categories == {}
