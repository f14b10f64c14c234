"""Values of a snapshot are checked as they are read."""

import struct
from array import array

import pytest
from msgspec import structs

from extproc.budget.families import Families, Member, SavedWord
from extproc.budget.features import FEATURES
from extproc.budget.outputs import Outputs, SavedOutput, SavedOutputs
from extproc.budget.prior import MEASURED
from extproc.budget.saved import doubles, require_one
from extproc.budget.sketch import Counts, Scores, Sketch, count_prior, score_prior
from extproc.budget.states import Errors, SavedDistributions
from extproc.budget.steering import Steering
from extproc.budget.tenants import SavedTenantState, Tenants
from extproc.budget.values import Measure
from extproc.budget.weights import TokenWeights

NEGATIVE = struct.pack("d", -1.0)


def test_numbers_are_read():
    assert list(doubles(struct.pack("2d", 1.0, 2.0), 2)) == [1.0, 2.0]


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1e31])
def test_numbers_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="out of range"):
        doubles(struct.pack("d", value), 1)


def test_too_few_numbers_are_refused():
    with pytest.raises(ValueError, match="7 bytes instead of 1 numbers"):
        doubles(b"1234567", 1)


def test_shares_add_up():
    require_one(1.0)
    with pytest.raises(ValueError, match="add up"):
        require_one(0.9)


def test_a_sketch_of_no_values_is_refused():
    sketch = Sketch(Scores(), score_prior(), 1000.0)
    sketch.add(1.0)
    with pytest.raises(ValueError, match="no values"):
        sketch.load(structs.replace(sketch.save(), squares=0.0))


def test_a_kind_without_an_output_is_refused():
    empty = Sketch(Counts(), count_prior(), 1000.0).save()
    with pytest.raises(ValueError, match="without an output"):
        Outputs().load(SavedOutputs(empty, [SavedOutput("", False, None, empty)]))


def test_a_negative_variance_is_refused():
    saved = TokenWeights(MEASURED).save()
    with pytest.raises(ValueError, match="no covariance"):
        TokenWeights(MEASURED).load(structs.replace(saved, all=NEGATIVE + saved.all[8:]))


def test_weights_whose_covariance_would_grow_with_each_answer_are_refused():
    size = len(FEATURES)
    covariance = [1.0 if row == column else -1.0 for row in range(size) for column in range(size)]
    learnt = array("d", [*covariance, *MEASURED.mean]).tobytes()
    weights = TokenWeights(MEASURED)
    with pytest.raises(ValueError, match="no covariance"):
        weights.load(structs.replace(weights.save(), all=learnt))


def test_a_measure_of_other_features_is_refused():
    Measure(10, features=(1.0,)).check(1)
    for measure in (Measure(10, features=(1.0,)), Measure(-1, features=(1.0, 1.0))):
        with pytest.raises(ValueError, match="no measure"):
            measure.check(2)


def test_a_word_whose_weights_are_gone_is_not_saved():
    families, weights = Families(MEASURED), TokenWeights(MEASURED)
    families.keep("m-1", Member(weights, placed=True))
    assert list(families.save(lambda _: 0)) == [SavedWord("m", 0)]
    families.forget("m-1")
    assert list(families.save(lambda _: 0)) == []


def test_a_word_without_weights_is_not_loaded():
    families = Families(MEASURED)
    families.load(SavedWord("m", -1), lambda _: TokenWeights(MEASURED))
    assert list(families.save(lambda _: 0)) == []


def test_a_tenants_state_in_a_category_that_is_gone_is_not_loaded():
    tenants = Tenants(2, Steering(0.001, (1024,)))
    known = SavedDistributions(Errors().save(), Outputs().save())
    tenants.load(SavedTenantState("a", "m", "c", 1, known, -2), lambda _: None, lambda _: None)
    assert len(list(tenants.save(lambda _: -1))) == 2
