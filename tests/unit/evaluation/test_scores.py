"""What rows come to."""

import pytest

from extproc.evaluation.replay import ReplayRow
from extproc.evaluation.scores import error_curve, score_classes, score_rows
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
