"""What rows come to."""

import dataclasses

import pytest

from extproc.evaluation.replay import ReplayRow
from extproc.evaluation.scores import error_curve, score_classes, score_rows, wilson
from extproc.routing.pools import Verdict


def row(seen=100, verdict=Verdict.RIGHT, error=0.01, kind="a", category="prose", under=False):
    return ReplayRow(kind, category, seen, verdict, error, under)


def test_shares_are_of_all_requests_and_the_first_50_apart():
    rows = [row(10, Verdict.MISROUTED), row(100, Verdict.OVER_ROUTED), row(), row()]
    score = score_rows(rows)
    assert (score.misrouted, score.over_routed) == (0, 25)
    assert (score.early_misrouted, score.early_over_routed) == (25, 0)


def test_errors_are_without_sign_and_in_per_cent():
    score = score_rows([row(error=-0.02), row(error=0.02), row(error=0.1)])
    assert score.median_error == pytest.approx(2)
    assert score.p99_error == pytest.approx(9.84)


def test_the_errors_of_requests_near_the_limit_are_apart():
    near = dataclasses.replace(row(error=0.03), is_near=True)
    assert score_rows([near, row(error=0.2)]).p99_near == pytest.approx(3)
    assert score_rows([row(error=0.2)]).p99_near == pytest.approx(20)


def test_budgets_that_were_too_small_are_counted():
    assert score_rows([row(under=True), row()]).under == 50


def test_calibrated_is_from_where_errors_stay_small():
    errors = [0.5] * 7 + [0.01] * 60
    rows = [row(seen=n, error=error) for n, error in enumerate(errors)]
    assert score_rows(rows).calibrated_after == 7


def test_what_stays_wrong_is_never_calibrated():
    assert score_rows([row(seen=n, error=0.2) for n in range(99)]).calibrated_after is None


def test_a_class_is_judged_by_its_own_requests():
    scores = score_classes(
        [row(kind="a", verdict=Verdict.OVER_ROUTED), row(kind="b"), row(kind="b")]
    )
    assert {kind: score.over_routed for kind, score in scores.items()} == {"a": 100, "b": 0}


def test_the_curve_is_the_median_by_what_was_seen():
    rows = [row(seen=0, error=0.4), row(seen=3, error=0.1), row(seen=4, error=0.2)]
    assert error_curve(rows) == pytest.approx({0: 40, 2: 15})


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(0, 1000, 0, 0.383), (10, 1000, 0.544, 1.831), (5, 5, 56.55, 100)],
)
def test_the_interval_of_a_share_is_wilsons(count, of, low, high):
    assert wilson(count, of) == pytest.approx((low, high), abs=0.01)


def test_nothing_is_known_of_a_share_of_none():
    assert wilson(0, 0) == (0, 100)
