"""What the rows of a replay come to: shares of requests, in per cent, and errors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

import numpy as np

from extproc.evaluation.replay import EARLY, Row
from extproc.routing.pools import Verdict

CALIBRATED_ERROR: Final = 0.05
"""Median relative error of prompt tokens from which on a category counts as calibrated."""
_WINDOW: Final = 20
STEPS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Observations of a category that parts of the error curve begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How an estimator fared; all shares are in per cent of all requests, errors in per cent.

    The early ones are the first 50 of each category; everything else is without them.
    """

    requests: int
    misrouted: float
    overrouted: float
    early_misrouted: float
    early_overrouted: float
    under: float
    """Whole budgets below what was needed."""
    median_error: float
    p99_error: float
    calibrated_after: float | None
    """Observations until an error, and the median of 20 from there on, are within 5 %, in the
    median category; None: they never are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One estimator on one tokenizer at one threshold."""

    tokenizer: str
    estimator: str
    threshold: int
    score: Score
    classes: dict[str, Score]
    curve: dict[int, float]
    """Median relative error, in per cent, from so many observations of a category on."""


def score_rows(rows: Sequence[Row]) -> Score:
    """Sum up a replay, or a part of one."""
    late = [row for row in rows if row.seen >= EARLY]
    early = [row for row in rows if row.seen < EARLY]
    median_error, p99_error = _errors(late or rows, 50), _errors(late or rows, 99)
    return Score(
        requests=len(rows),
        misrouted=_share(late, Verdict.MISROUTED, rows),
        overrouted=_share(late, Verdict.OVERROUTED, rows),
        early_misrouted=_share(early, Verdict.MISROUTED, rows),
        early_overrouted=_share(early, Verdict.OVERROUTED, rows),
        under=100 * sum(row.under for row in late) / len(rows),
        median_error=median_error,
        p99_error=p99_error,
        calibrated_after=_calibrated_after(rows),
    )


def score_classes(rows: Sequence[Row]) -> dict[str, Score]:
    """Sum up each class of text apart; shares are of its own requests."""
    kinds = sorted({row.kind for row in rows})
    return {kind: score_rows([row for row in rows if row.kind == kind]) for kind in kinds}


def error_curve(rows: Sequence[Row]) -> dict[int, float]:
    """Return the median error, in per cent, by how much the category had seen."""
    bounds = (*STEPS, 1 << 62)
    parts = {low: [row for row in rows if low <= row.seen < high] for low, high in pairwise(bounds)}
    return {low: _errors(part, 50) for low, part in parts.items() if part}


def _share(part: Iterable[Row], verdict: Verdict, of: Sequence[Row]) -> float:
    return 100 * sum(row.verdict is verdict for row in part) / len(of)


def _errors(rows: Iterable[Row], percentile: int) -> float:
    return float(np.percentile([100 * abs(row.error) for row in rows], percentile))


def _calibrated_after(rows: Iterable[Row]) -> float | None:
    errors: dict[str, list[float]] = {}
    for row in rows:
        errors.setdefault(row.category, []).append(abs(row.error))
    found = [_settled(each) for each in errors.values() if len(each) >= _WINDOW]
    if not found:
        return None
    middle = median(found)
    return middle if middle < float("inf") else None


def _settled(errors: Sequence[float]) -> float:
    windows = range(len(errors) - _WINDOW + 1)
    within = (
        n
        for n in windows
        if errors[n] <= CALIBRATED_ERROR and median(errors[n : n + _WINDOW]) <= CALIBRATED_ERROR
    )
    return next(within, float("inf"))
