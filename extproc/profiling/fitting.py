"""Fits the terms of a Profile to measured times by least squares.

Invariant: residuals are relative to their measurement, so that short iterations are fitted as well
as long ones, and no term is negative. A fit that the measurements do not determine, or that does
not describe them, is refused: a fleet must not be sized by it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extproc.config.errors import UserError
from extproc.simulator.engine.instance import (
    EAGER_WEIGHTS,
    GRAPH_SEQUENCES,
    NS_PER_MS,
    Profile,
)

# The columns of the matrix.
_TERMS: Final = (
    "weights",
    "per sequence",
    "per prefill token",
    "per pair of prefill tokens",
    "per KV token",
    "outside the engine",
)
_OPTIONAL: Final = ("launch of a prefill", "without CUDA graphs")
_WEIGHTS, _SEQUENCE, _TOKEN, _PAIR, _KV, _OUTSIDE, _LAUNCH, _EAGER = range(8)
# Of the matrix with columns of length 1. Measurements with 2 and more sequences have 5 to 110;
# above this, a noise of 1 % in the times can change a term by its own size.
MOST_CONDITION: Final = 200.0
# Half of the measurements may be off by more than this, relative to the measurement. Fits of
# servers on busy machines are within 0.2.
MOST_RESIDUAL: Final = 0.5
# From here on, a residual is named in the output.
DOUBTFUL: Final = 0.15
_PART_OF_MIX: Final = 0.3  # of an uncertain mix of terms: a smaller part is not named
_LEAST_ITERATION_MS: Final = 0.001  # no accelerator starts a kernel in less
_ROUNDS: Final = 4  # of solving for the terms and for the bound that follows from them
_EXACT: Final = 1e-4  # a mean residual below which forms are not compared: rounding


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

    fitted_ms: the fitted time of each measurement, in their order. median_off, most_off: how far
    half of them, and all of them, are from the measurement, relative to it.
    """

    profile: Profile
    overhead_ms: float
    fitted_ms: tuple[float, ...]
    median_off: float = 0.0
    most_off: float = 0.0


@dataclass(frozen=True, slots=True)
class _Form:
    """Which term bounds which measurement.

    overlap: as in Profile. launched: prompts of fewer tokens are bound by their launch. computed:
    iterations of at least so many tokens are bound by computation, if weights overlap with it.
    batch: max_num_batched_tokens.
    """

    overlap: bool
    launched: int
    computed: float
    batch: int

    def row(self, measurement: Measurement) -> NDArray[np.float64]:
        """Return what the measurement has of each term."""
        match measurement:
            case Decode(sequences=n, kv_tokens=kv):
                row = self._dense(n, 0)
                row[[_SEQUENCE, _KV]] = n, kv
                row[_EAGER] = n > GRAPH_SEQUENCES
            case FirstToken(prompt_tokens=p) if p < self.launched:
                row = np.zeros(8)
                row[[_OUTSIDE, _LAUNCH]] = 1
            case FirstToken(prompt_tokens=p):
                chunks = _chunks(p, self.batch)
                row = np.sum([self._dense(1, chunk) for chunk in chunks], axis=0)
                row[[_SEQUENCE, _PAIR, _OUTSIDE]] = len(chunks), p * p / 2, 1
        return row

    def _dense(self, sequences: int, chunk: int) -> NDArray[np.float64]:
        row = np.zeros(8)
        if not self.overlap:
            row[[_WEIGHTS, _TOKEN]] = 1, chunk
        elif chunk + sequences < self.computed:
            row[_WEIGHTS] = 1
        else:
            row[_TOKEN] = chunk + sequences
        return row


def fit(measurements: Sequence[Measurement], max_num_batched_tokens: int) -> Fit:
    """Fit a profile; raises FitError if the measurements do not determine one.

    Of the forms that Profile has (with and without overlap, and a launch that bounds prompts up to
    each measured length) the one with the least relative residuals is taken. An iteration prefills
    at most max_num_batched_tokens, so it reads the weights once.
    """
    if len(measurements) < len(_TERMS):
        raise FitError(
            f"{len(measurements)} measurements cannot determine the {len(_TERMS)} terms of a"
            " profile; measure more, with a larger --most or a larger window"
        )
    measured = _measured(measurements)
    tried = [
        (_score(found, measured), found, relative)
        for relative, found in _candidates(measurements, measured, max_num_batched_tokens)
    ]
    _check_condition(tried[0][2])
    _, found, _ = min((each for each in tried if not _alike(each[2])), key=_first)
    _check_fit(found)
    return found


def _first(scored: tuple[float, Fit, Terms]) -> float:
    return scored[0]


def _score(found: Fit, measured: Terms) -> float:
    """Return Akaike's criterion of least squares: a form with more terms must explain more."""
    off = np.array(found.fitted_ms) / measured - 1
    terms = 1 + found.profile.overlap + (found.profile.launch_ms > 0)
    return len(off) * math.log(max(float(np.mean(off**2)), _EXACT**2)) + 2 * terms


def _candidates(
    measurements: Sequence[Measurement], measured: Terms, batch: int
) -> Iterator[tuple[Terms, Fit]]:
    """Yield the matrix and the fit of every form; the first is that without any bound."""
    prompts = sorted({m.prompt_tokens for m in measurements if isinstance(m, FirstToken)})
    # At least two prompts on either side, or the launch would explain a single one by itself.
    bounds = [0, *(p for p in prompts[2:-1] if p <= batch)]
    for launched in bounds:
        form = _Form(overlap=False, launched=launched, computed=math.inf, batch=batch)
        relative = _relative(form, measurements, measured)
        yield relative, _fit(_at_least_zero(relative), form, measurements)
        computed = float(max(launched, prompts[0] if prompts else 1))
        for _ in range(_ROUNDS):
            form = _Form(overlap=True, launched=launched, computed=computed, batch=batch)
            relative = _relative(form, measurements, measured)
            terms = _at_least_zero(relative)
            yield relative, _fit(terms, form, measurements)
            if not terms[_TOKEN]:
                break
            computed = terms[_WEIGHTS] / terms[_TOKEN]  # where both take equally long


def _relative(form: _Form, measurements: Sequence[Measurement], measured: Terms) -> Terms:
    """Return the matrix; each row is divided by its time, so that all residuals are relative."""
    return np.array([form.row(m) for m in measurements]) / measured[:, None]


def _fit(terms: Terms, form: _Form, measurements: Sequence[Measurement]) -> Fit:
    weights, sequence, token, pair, kv, outside, launch, eager = terms.tolist()
    beyond = any(isinstance(m, Decode) and m.sequences > GRAPH_SEQUENCES for m in measurements)
    profile = Profile(
        weights_ms=weights,
        sequence_ms=sequence,
        chunk_tokens=form.batch,
        prefill_token_ms=token,
        prefill_pair_ms=pair,
        kv_token_ms=kv,
        overlap=form.overlap,
        launch_ms=launch,
        graph_sequences=GRAPH_SEQUENCES,
        eager_ms=eager if beyond else EAGER_WEIGHTS * weights,
    )
    fitted = [predict_ms(profile, outside, m) for m in measurements]
    off = np.abs(np.array(fitted) / _measured(measurements) - 1)
    return Fit(
        profile=profile,
        overhead_ms=outside,
        fitted_ms=tuple(fitted),
        median_off=float(np.median(off)),
        most_off=float(off.max()),
    )


def _measured(measurements: Sequence[Measurement]) -> Terms:
    return np.array([m.measured_ms for m in measurements])


def predict_ms(profile: Profile, overhead_ms: float, measurement: Measurement) -> float:
    """Return the time that an idle engine of this profile takes for a measurement."""
    match measurement:
        case Decode(sequences=n, kv_tokens=kv):
            return profile.iteration_ns(n, 0) / NS_PER_MS + profile.kv_token_ms * kv
        case FirstToken(prompt_tokens=p):
            total = start = before = 0.0
            for chunk in _chunks(p, profile.chunk_tokens):
                pairs = chunk * (start + chunk / 2)
                taken = profile.iteration_ns(1, chunk, pairs) / NS_PER_MS
                # A launch overlaps with the chunk before.
                before = max(taken, profile.launch_ms - before)
                total += before
                start += chunk
            return overhead_ms + total


def _chunks(prompt_tokens: int, batch: int) -> list[int]:
    whole, rest = divmod(prompt_tokens, batch)
    return [batch] * whole + [rest] * (rest > 0)


def _check_condition(rows: Terms) -> None:
    """Refuse measurements in which terms always occur in the same proportion."""
    absent = [name for name, column in zip(_TERMS, rows.T, strict=False) if not column.any()]
    if absent:
        raise FitError(f"no measurement shows these terms: {', '.join(absent)}")
    alike = _alike(rows)
    if alike:
        raise FitError(
            f"the measurements do not tell these terms apart: {', '.join(alike)}; measure loads"
            " that differ more, with a larger --most or a larger window"
        )


def _alike(rows: Terms) -> list[str]:
    """Return the terms that the measurements show but do not tell apart, or do not show at all."""
    names = (*_TERMS, *_OPTIONAL)
    lengths = np.linalg.norm(rows, axis=0)
    if not lengths[: len(_TERMS)].all():
        return [name for name, length in zip(_TERMS, lengths, strict=False) if not length]
    shown = np.flatnonzero(lengths)
    # A row of `mixes` is a combination of terms, its singular value how much the measurements see
    # of it. With one sequence at a time, weights and sequence have the same column: their
    # difference has a singular value of 0.
    _, found, mixes = np.linalg.svd(rows[:, shown] / lengths[shown])
    singular = np.zeros(len(shown))  # with fewer rows than terms the rest are 0
    singular[: len(found)] = found
    uncertain = mixes[singular * MOST_CONDITION < singular[0]]
    if not len(uncertain):
        return []
    parts = np.abs(uncertain).max(axis=0)
    return [names[term] for term, part in zip(shown, parts, strict=True) if part > _PART_OF_MIX]


def _check_fit(found: Fit) -> None:
    if found.profile.weights_ms + found.profile.sequence_ms < _LEAST_ITERATION_MS:
        raise FitError("an iteration came out to take no time; the measured times are too noisy")
    if found.median_off > MOST_RESIDUAL:
        raise FitError(
            "the fit does not describe the times: half of them are off by more than"
            f" {found.median_off:.0%};"
            " repeat the measurement on a machine and a server without other work"
        )


def _at_least_zero(rows: Terms) -> Terms:
    """Solve rows @ terms = 1 by least squares; drop terms that come out negative."""
    kept: NDArray[np.bool_] = np.asarray(rows.any(axis=0))
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
