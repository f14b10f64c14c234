"""The estimators' measured errors."""

import pytest

from extproc.config.settings import Settings
from extproc.planner.sizing.estimators import CALIBRATED, ESTIMATORS, RoutingError, measured


@pytest.mark.parametrize(
    ("threshold", "nearest"), [(1, 2048), (4000, 2048), (4200, 8192), (1_000_000, 32_768)]
)
def test_the_error_is_that_of_the_threshold_nearest_by_ratio(threshold, nearest):
    assert CALIBRATED.at(threshold) == dict(CALIBRATED.errors)[nearest]


def test_a_given_error_holds_everywhere():
    assert measured(0.1, 0.2).at(77) == RoutingError(0.1, 0.2)


def test_the_estimators_are_listed_from_the_best_to_the_simplest():
    assert [each.name for each in ESTIMATORS] == ["perfect", "calibrated", "paper", "static 4.0"]


@pytest.mark.parametrize("threshold", [2048, 8192, 32_768])
def test_a_better_estimator_misroutes_less_at_every_threshold(threshold):
    misrouted = [each.at(threshold).misrouted for each in ESTIMATORS]
    assert misrouted == sorted(misrouted)


@pytest.mark.parametrize("each", ESTIMATORS[1:], ids=lambda each: each.name)
def test_a_higher_threshold_has_fewer_requests_near_it(each):
    errors = [each.at(threshold) for threshold in (2048, 8192, 32_768)]
    for share in ("misrouted", "over_routed"):
        found = [getattr(error, share) for error in errors]
        assert found == sorted(found, reverse=True)


def test_the_calibrated_estimator_keeps_the_default_target():
    target = Settings().budget.target
    assert all(error.misrouted <= target for _, error in CALIBRATED.errors)


@pytest.mark.parametrize("shares", [(-0.1, 0), (0, -0.1), (0.5, 0.5)])
def test_what_is_no_share_is_refused(shares):
    with pytest.raises(ValueError, match=r"lie in \[0, 1\)"):
        RoutingError(*shares)
