"""Generate what an estimator sees of a prompt from its number of tokens alone.

A trace has no texts, but the service decides by texts. So each prompt is assigned a kind of text
and the character counts of such a text.

Invariant: the counts vary between prompts as they do between real texts, and part of the variation
is unexplained, so no linear model of the counts is exact. The estimators' errors follow from that.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extproc.budget.features import OTHER_FEATURES, TEXT_FEATURES
from extproc.budget.prior import MEASURED
from extproc.budget.values import Measure
from extproc.budget.weights import SAMPLING_NOISE
from extproc.planner.traffic.lengths import Tokens
from extproc.planner.traffic.text_kinds import KINDS
from extproc.request.sample import SAMPLE_BYTES

Floats = NDArray[np.float64]

STATED: Final = 0.85
"""Share of requests that state an output limit, by default."""
LADDER: Final = (128, 256, 512, 1024, 2048, 4096, 8192)
"""The output limits that clients state, in tokens; longer answers state their own length."""
BLENDED: Final = 0.25
"""Share of prompts that mix in text of another kind."""
MOST_BLENDED: Final = 0.6
"""Largest share of such a prompt that is the other kind."""
MORE_MESSAGES: Final = 0.65
"""Probability that a conversation has another message."""
MOST_MESSAGES: Final = 40
# Student's t with 4 degrees of freedom and this scale gives the calibrated estimator's errors on
# real texts: 1.2 % in the median, 9 % at the 99th percentile (docs/evaluation.md).
_UNEXPLAINED: Final = 0.016
_FREEDOM: Final = 4
_TEMPLATE: Final = (10, 5)  # tokens that the chat template adds per request and per message
# Prompts per array: a million rows of counts at once would take 200 MB.
_AT_ONCE: Final = 4096

_RATES: Final = np.array([[kind.rates.get(name, 0.0) for name in TEXT_FEATURES] for kind in KINDS])
_BYTES: Final = np.array([kind.bytes_per_token for kind in KINDS])
_SPREADS: Final = np.array([kind.spread for kind in KINDS])
_SHARES: Final = np.array([kind.share for kind in KINDS])


def _true_weights() -> Floats:
    """Return tokens per feature: the weights nearest to the prior that are exact for every kind.

    Distance is in the prior's own deviations.
    """
    skipped = len(OTHER_FEATURES)
    mean, deviation = np.array(MEASURED.mean[skipped:]), np.array(MEASURED.deviation[skipped:])
    scaled = _RATES * deviation**2
    missing = 1.0 - _RATES @ mean
    # The least change of the weights, measured in deviations, after which each kind's features add
    # up to 1 token: the mean of the normal prior, given the kinds as exact observations.
    return np.asarray(mean + scaled.T @ np.linalg.solve(scaled @ _RATES.T, missing))


_WEIGHTS: Final = _true_weights()


def write_prompts(tokens: Tokens, seed: int) -> Iterator[Measure]:
    """Yield the service's measure of each prompt; `tokens` include the chat template."""
    rng = np.random.default_rng(seed)
    for start in range(0, tokens.size, _AT_ONCE):
        yield from _write(tokens[start : start + _AT_ONCE], rng)


def state_limits(outputs: Tokens, share: float, seed: int) -> Tokens:
    """Return the limit that each client states, 0 for those that state none."""
    rng = np.random.default_rng(seed)
    ladder = np.array([*LADDER, np.iinfo(np.int64).max])
    # 100 tokens state 128, 8192 state 8192, 9000 state 9000.
    limits = np.minimum(ladder[np.searchsorted(ladder, outputs)], np.maximum(outputs, LADDER[-1]))
    return np.where(rng.random(outputs.size) < share, limits, 0)


def _write(tokens: Tokens, rng: "np.random.Generator") -> Iterator[Measure]:
    messages = np.minimum(rng.geometric(1 - MORE_MESSAGES, tokens.size), MOST_MESSAGES)
    template = np.minimum(_TEMPLATE[0] + _TEMPLATE[1] * messages, tokens - 1)
    counts, size = _count_text(tokens - template, rng)
    sampled = np.maximum(size / SAMPLE_BYTES, 1.0)
    unseen = 1.0 - 1.0 / sampled
    # Of a text above SAMPLE_BYTES the service counts a sample and scales it up: the error grows
    # with the share that it has not seen.
    counts *= np.exp(SAMPLING_NOISE * unseen * rng.standard_normal(tokens.size))[:, None]
    columns = (size.tolist(), messages.tolist(), np.rint(counts).tolist(), unseen.tolist())
    none = [0.0] * (len(OTHER_FEATURES) - 2)
    for text_bytes, sent, row, left_out in zip(*columns, strict=True):
        yield Measure(text_bytes, 0, (1.0, float(sent), *none, *row), left_out)


def _count_text(tokens: Tokens, rng: "np.random.Generator") -> tuple[Floats, Tokens]:
    """Return features and bytes of texts with these token counts."""
    rates, text_bytes, spread = _blend(tokens.size, rng)
    rates *= np.exp(spread[:, None] * rng.standard_normal(rates.shape))
    text_bytes *= np.exp(spread * rng.standard_normal(tokens.size))
    # Scale the counts so that the true weights give the tokens, up to the unexplained part.
    unexplained = _UNEXPLAINED * rng.standard_t(_FREEDOM, tokens.size)
    scale = tokens * np.exp(unexplained) / (rates @ _WEIGHTS)
    size = np.maximum(np.rint(text_bytes * scale), 1).astype(np.int64)
    return rates * scale[:, None], size


def _blend(count: int, rng: "np.random.Generator") -> tuple[Floats, Floats, Floats]:
    """Draw the kinds of `count` texts; return rates, bytes per token and spreads."""
    main, other = (rng.choice(len(KINDS), count, p=_SHARES) for _ in range(2))
    part = rng.uniform(0, MOST_BLENDED, count) * (rng.random(count) < BLENDED)
    rates = (1 - part)[:, None] * _RATES[main] + part[:, None] * _RATES[other]
    return rates, (1 - part) * _BYTES[main] + part * _BYTES[other], _SPREADS[main]
