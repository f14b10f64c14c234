"""Fits the terms of a Profile to measured times by least squares.

Invariant: residuals are relative to their measurement, so that short iterations are fitted as well
as long ones, and no term is negative.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extproc.simulator.engine.instance import Profile

_TERMS = 6  # columns: weights, sequence, prefill token, prefill pair, KV token, overhead


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A profile, and the overhead outside the engine: HTTP, tokenizer, queues.

    fitted_ms: the fitted time of each measurement, in their order.
    """

    profile: Profile
    overhead_ms: float
    fitted_ms: tuple[float, ...]


def fit(measurements: Sequence[Measurement], max_num_batched_tokens: int) -> Fit:
    """Fit a profile; raises ValueError if there are fewer measurements than terms.

    An iteration prefills at most max_num_batched_tokens, so it reads the weights once.
    """
    if len(measurements) < _TERMS:
        raise ValueError(f"{len(measurements)} measurements cannot determine {_TERMS} terms")
    rows = np.array([_row(m, max_num_batched_tokens) for m in measurements])
    measured = np.array([m.measured_ms for m in measurements])
    terms = _at_least_zero(rows / measured[:, None])
    weights, sequence, token, pair, kv, overhead = terms.tolist()
    profile = Profile(
        weights_ms=weights,
        sequence_ms=sequence,
        chunk_tokens=max_num_batched_tokens,
        prefill_token_ms=token,
        prefill_pair_ms=pair,
        kv_token_ms=kv,
    )
    return Fit(profile=profile, overhead_ms=overhead, fitted_ms=tuple((rows @ terms).tolist()))


def _row(measurement: Measurement, batch: int) -> tuple[float, ...]:
    match measurement:
        case Decode(sequences=n, kv_tokens=kv):
            return (1, n, 0, 0, kv, 0)
        case FirstToken(prompt_tokens=p):
            chunks = -(-p // batch)  # one iteration each
            return (chunks, chunks, p, p * p / 2, 0, 1)


def _at_least_zero(rows: NDArray[np.float64]) -> NDArray[np.float64]:
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
        kept[np.flatnonzero(kept)[found.argmin()]] = False
