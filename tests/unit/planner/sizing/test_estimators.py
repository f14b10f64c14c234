"""The estimators' measured errors."""

import pytest

from extproc.planner.sizing.estimators import CALIBRATED, RoutingError, measured


@pytest.mark.parametrize(
    ("threshold", "nearest"), [(1, 2048), (4000, 2048), (4200, 8192), (1_000_000, 32_768)]
)
def test_the_error_is_that_of_the_threshold_nearest_by_ratio(threshold, nearest):
    assert CALIBRATED.at(threshold) == dict(CALIBRATED.errors)[nearest]


def test_a_given_error_holds_everywhere():
    assert measured(0.1, 0.2).at(77) == RoutingError(0.1, 0.2)


@pytest.mark.parametrize("shares", [(-0.1, 0), (0, -0.1), (0.5, 0.5)])
def test_what_is_no_share_is_refused(shares):
    with pytest.raises(ValueError, match=r"lie in \[0, 1\)"):
        RoutingError(*shares)
