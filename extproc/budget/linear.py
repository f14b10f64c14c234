"""Linear algebra of the few dozen numbers of a filter, in memory of Python's own.

The rows of a filter lie one behind the other: a covariance, which is square and symmetric, then the
weights, then others that are multiplied alike.

Invariant: `linear.c` does the same, but that sums may differ by their rounding. Where the package
is compiled, Python finds that instead, and no numpy is loaded.
"""

from array import array
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extproc.budget.values import Column, Row

_ROUNDING: Final = 1e-9  # of the variances that are given


def dot(row: Column, column: Column) -> float:
    """Return the sum of the products of two rows of one length."""
    return float(_array(row).dot(_array(column)))


def project(rows: Row, column: Column) -> tuple[float, ...]:
    """Return a column's variance by the covariance, and its product with each further row."""
    features = _array(column)
    found = _square(rows, len(features)).dot(features)
    return float(found[: len(features)].dot(features)), *found[len(features) :].tolist()


def learn(rows: Row, column: Column, step: float, share: float, walk: float, spread: Row) -> None:
    """Update the covariance and the weights of a filter by an answer to a column.

    The gain is what the covariance makes of the column. The weights move by `step` times it, and
    `share` times its square is taken off the covariance, of which then `walk` is replaced by the
    variances in `spread`.
    """
    features = _array(column)
    size = len(features)
    every = _square(rows, size)
    covariance = every[:size]
    gain = covariance.dot(features)
    every[size] += gain * step
    # np.outer, and the operator @, take several times as long for so few numbers.
    covariance -= gain[:, None] * gain * share
    covariance *= 1.0 - walk
    variances = covariance.reshape(-1)[:: size + 1]  # a view
    variances += walk * _array(spread)


def holds(rows: Row, spread: Row) -> bool:
    """Return whether the covariance is one, and no larger than one of the variances in `spread`.

    What is so, but for rounding, is so after each `learn`. What is not may grow without bounds.
    """
    most = _array(spread)
    covariance = _square(rows, len(most))[: len(most)]
    doubt = np.diag(_ROUNDING * most)
    if (np.abs(covariance - covariance.T) > _ROUNDING * np.sqrt(np.outer(most, most))).any():
        return False
    try:
        np.linalg.cholesky(covariance + doubt)
        np.linalg.cholesky(np.diag(most) - covariance + doubt)
    except np.linalg.LinAlgError:
        return False
    return True


def scale(row: Row, factor: float) -> None:
    """Multiply a row, and round it to tenths."""
    numbers = _array(row)
    numbers[:] = np.rint(numbers * (10.0 * factor)) / 10.0


def _array(row: Column) -> NDArray[np.float64]:
    """Return an array of the same memory, or of the numbers in a tuple."""
    return np.asarray(array("d", row) if isinstance(row, tuple) else row)


def _square(rows: Row, size: int) -> NDArray[np.float64]:
    return _array(rows).reshape(-1, size)
