"""Fits the terms of a Profile to measured times by least squares.

Invariant: residuals are relative to their measurement, so that short iterations are fitted as well
as long ones, and no term is negative. A fit that the measurements do not determine, or that does
not describe them, is refused: a fleet must not be sized by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extproc.config.errors import UserError
from extproc.simulator.engine.instance import Profile

# The columns of the matrix.
_TERMS: Final = (
    "weights",
    "per sequence",
    "per prefill token",
    "per pair of prefill tokens",
    "per KV token",
    "outside the engine",
)
# Of the matrix with columns of length 1. Measurements with 2 and more sequences have 5 to 110;
# above this, a noise of 1 % in the times can change a term by its own size.
MOST_CONDITION: Final = 200.0
# Half of the measurements may be off by more than this, relative to the measurement. Fits of
# servers on busy machines are within 0.2.
MOST_RESIDUAL: Final = 0.5
_PART_OF_MIX: Final = 0.3  # of an uncertain mix of terms: a smaller part is not named
_LEAST_ITERATION_MS: Final = 0.001  # no accelerator starts a kernel in less


class FitError(UserError):
    """The measurements give no profile; the text says why and what to change."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """Mean time of an iteration that decodes `sequences` with `kv_tokens` KV entries in total."""

    sequences: int
    kv_tokens: float
    measured_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstToken:
    """Time from a request to its first token on an idle server."""

    prompt_tokens: int
    measured_ms: float


Measurement = Decode | FirstToken
Terms = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A profile, and the overhead outside the engine: HTTP, tokenizer, queues.

    fitted_ms: the fitted time of each measurement, in their order.
    """

    profile: Profile
    overhead_ms: float
    fitted_ms: tuple[float, ...]


def fit(measurements: Sequence[Measurement], max_num_batched_tokens: int) -> Fit:
    """Fit a profile; raises FitError if the measurements do not determine one.

    An iteration prefills at most max_num_batched_tokens, so it reads the weights once.
    """
    if len(measurements) < len(_TERMS):
        raise FitError(
            f"{len(measurements)} measurements cannot determine the {len(_TERMS)} terms of a"
            " profile; measure more, with a larger --most or a larger window"
        )
    rows = np.array([_row(m, max_num_batched_tokens) for m in measurements])
    measured = np.array([m.measured_ms for m in measurements])
    # Divided by its time, every row should give 1: the residuals are relative.
    relative = rows / measured[:, None]
    _check_condition(relative)
    terms = _at_least_zero(relative)
    fitted = rows @ terms
    _check_fit(terms, fitted, measured)
    return _fit(terms, fitted, max_num_batched_tokens)


def _fit(terms: Terms, fitted_ms: Terms, max_num_batched_tokens: int) -> Fit:
    weights, sequence, token, pair, kv, overhead = terms.tolist()
    profile = Profile(
        weights_ms=weights,
        sequence_ms=sequence,
        chunk_tokens=max_num_batched_tokens,
        prefill_token_ms=token,
        prefill_pair_ms=pair,
        kv_token_ms=kv,
    )
    return Fit(profile=profile, overhead_ms=overhead, fitted_ms=tuple(fitted_ms.tolist()))


def _check_condition(rows: Terms) -> None:
    """Refuse measurements in which terms always occur in the same proportion."""
    lengths = np.linalg.norm(rows, axis=0)
    absent = [name for name, length in zip(_TERMS, lengths, strict=True) if length == 0]
    if absent:
        raise FitError(f"no measurement shows these terms: {', '.join(absent)}")
    # A row of `mixes` is a combination of terms, its singular value how much the measurements see
    # of it. With one sequence at a time, weights and sequence have the same column: their
    # difference has a singular value of 0.
    _, singular, mixes = np.linalg.svd(rows / lengths)
    uncertain = mixes[singular * MOST_CONDITION < singular[0]]
    if not len(uncertain):
        return
    parts = np.abs(uncertain).max(axis=0)
    alike = [name for name, part in zip(_TERMS, parts, strict=True) if part > _PART_OF_MIX]
    raise FitError(
        f"the measurements do not tell these terms apart: {', '.join(alike)}; measure loads that"
        " differ more, with a larger --most or a larger window"
    )


def _check_fit(terms: Terms, fitted: Terms, measured: Terms) -> None:
    if terms[0] + terms[1] < _LEAST_ITERATION_MS:
        raise FitError("an iteration came out to take no time; the measured times are too noisy")
    off = float(np.median(np.abs(fitted / measured - 1)))
    if off > MOST_RESIDUAL:
        raise FitError(
            f"the fit does not describe the times: half of them are off by more than {off:.0%};"
            " repeat the measurement on a machine and a server without other work"
        )


def _row(measurement: Measurement, batch: int) -> tuple[float, ...]:
    match measurement:
        case Decode(sequences=n, kv_tokens=kv):
            return (1, n, 0, 0, kv, 0)
        case FirstToken(prompt_tokens=p):
            chunks = -(-p // batch)  # one iteration each
            return (chunks, chunks, p, p * p / 2, 0, 1)


def _at_least_zero(rows: Terms) -> Terms:
    """Solve rows @ terms = 1 by least squares; drop terms that come out negative."""
    kept = np.ones(rows.shape[1], dtype=bool)
    while True:
        # Scale the columns: the terms differ by nine orders of magnitude.
        scale = np.abs(rows[:, kept]).max(axis=0)
        found = np.linalg.lstsq(rows[:, kept] / scale, np.ones(len(rows)))[0] / scale
        if (found >= 0).all():
            terms = np.zeros(rows.shape[1])
            terms[kept] = found
            return terms
        # One at a time: without it the others come out differently, perhaps all positive.
        kept[np.flatnonzero(kept)[found.argmin()]] = False
