"""Score the rows of a replay: shares of requests in per cent, and errors."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

import numpy as np

from extproc.evaluation.replay import EARLY, ReplayRow
from extproc.routing.pools import Verdict

CALIBRATED_ERROR: Final = 0.05
"""Relative error of prompt tokens below which a category counts as calibrated."""
_WINDOW: Final = 20
_Z: Final = 1.96  # 95 % of a normal distribution lie within so many deviations
STEPS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Observations of a category at which the parts of the error curve begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Results of an estimator: shares in per cent of all requests, errors in per cent.

    The early figures are of the first 50 requests of each category; all others exclude them.
    """

    requests: int
    misrouted: float
    over_routed: float
    early_misrouted: float
    early_over_routed: float
    under: float
    """Budgets below the tokens that were needed."""
    median_error: float
    p99_error: float
    p99_near: float
    """Of requests that need about as many tokens as a limit."""
    calibrated_after: float | None
    """Observations until an error, and the median of 20 from there on, are within 5 %, in the
    median category; None if never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatorResult:
    """One estimator on one tokenizer at one threshold."""

    tokenizer: str
    estimator: str
    threshold: int
    score: Score
    classes: dict[str, Score]
    curve: dict[int, float]
    """Median relative error in per cent, by the observations at which its part begins."""


def score_rows(rows: Sequence[ReplayRow]) -> Score:
    """Score a replay or part of one."""
    late = [row for row in rows if row.seen >= EARLY]
    early = [row for row in rows if row.seen < EARLY]
    # In a short replay no category may get beyond its first 50.
    median_error, p99_error = _errors(late or rows, 50), _errors(late or rows, 99)
    return Score(
        requests=len(rows),
        misrouted=_share(late, Verdict.MISROUTED, rows),
        over_routed=_share(late, Verdict.OVER_ROUTED, rows),
        early_misrouted=_share(early, Verdict.MISROUTED, rows),
        early_over_routed=_share(early, Verdict.OVER_ROUTED, rows),
        under=100 * sum(row.under for row in late) / len(rows),
        median_error=median_error,
        p99_error=p99_error,
        p99_near=_errors([row for row in late if row.is_near] or late or rows, 99),
        calibrated_after=_calibrated_after(rows),
    )


def score_classes(rows: Sequence[ReplayRow]) -> dict[str, Score]:
    """Score each class of text; shares are of the requests of the class."""
    kinds = sorted({row.kind for row in rows})
    return {kind: score_rows([row for row in rows if row.kind == kind]) for kind in kinds}


def error_curve(rows: Sequence[ReplayRow]) -> dict[int, float]:
    """Return the median error, in per cent, by observations of the category."""
    bounds = (*STEPS, 1 << 62)
    parts = {low: [row for row in rows if low <= row.seen < high] for low, high in pairwise(bounds)}
    return {low: _errors(part, 50) for low, part in parts.items() if part}


def wilson(count: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share by Wilson's score, in per cent."""
    if not of:
        return 0.0, 100.0
    share, spread = count / of, _Z * _Z / of
    middle = (share + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(share * (1 - share) / of + spread / of / 4) / (1 + spread)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def _share(part: Iterable[ReplayRow], verdict: Verdict, of: Sequence[ReplayRow]) -> float:
    return 100 * sum(row.verdict is verdict for row in part) / len(of)


def _errors(rows: Iterable[ReplayRow], percentile: int) -> float:
    return float(np.percentile([100 * abs(row.error) for row in rows], percentile))


def _calibrated_after(rows: Iterable[ReplayRow]) -> float | None:
    errors: dict[str, list[float]] = {}
    for row in rows:
        errors.setdefault(row.category, []).append(abs(row.error))
    found = [_settled(each) for each in errors.values() if len(each) >= _WINDOW]
    if not found:
        return None
    middle = median(found)
    return middle if middle < float("inf") else None


def _settled(errors: Sequence[float]) -> float:
    # One small error may be luck, so the median of the 20 from there on must be small too.
    windows = range(len(errors) - _WINDOW + 1)
    within = (
        n
        for n in windows
        if errors[n] <= CALIBRATED_ERROR and median(errors[n : n + _WINDOW]) <= CALIBRATED_ERROR
    )
    return next(within, float("inf"))
