"""What an estimator sees of prompts of which only the token counts are known.

A trace has no texts, but the service decides by texts. So each prompt is given a kind of text, and
counts of characters that such a text of so many tokens has. The rule kept here: the counts vary
from prompt to prompt as they do between texts, and a part of the variation is unexplained: no
linear model of the counts finds the tokens exactly. The errors of the estimators follow from that.
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
"""The share of requests that state an output limit, unless the caller says otherwise."""
LADDER: Final = (128, 256, 512, 1024, 2048, 4096, 8192)
"""The output limits that clients state, in tokens; a longer answer has its own length stated."""
_BLENDED: Final = 0.25  # of the prompts; a part of them is text of another kind
_MOST_BLENDED: Final = 0.6  # of the tokens of such a prompt
_UNEXPLAINED: Final = 0.016
# With Student's t of 4 degrees of freedom, the calibrated estimator's errors on real texts: in the
# median 1.2 %, in one of 100 more than 9 % (README, `dualpool evaluate`).
_FREEDOM: Final = 4
_TEMPLATE: Final = (10, 5)  # tokens that the chat template adds for a request and for a message
_MORE_MESSAGES: Final = 0.65
_MOST_MESSAGES: Final = 40
_AT_ONCE: Final = 4096

_RATES: Final = np.array([[kind.rates.get(name, 0.0) for name in TEXT_FEATURES] for kind in KINDS])
_BYTES: Final = np.array([kind.bytes_per_token for kind in KINDS])
_SPREADS: Final = np.array([kind.spread for kind in KINDS])
_SHARES: Final = np.array([kind.share for kind in KINDS])


def _true_weights() -> Floats:
    """Return tokens for each feature: of all that give every kind its tokens, those nearest to the
    prior, in the prior's own deviations.
    """  # noqa: D205
    skipped = len(OTHER_FEATURES)
    mean, deviation = np.array(MEASURED.mean[skipped:]), np.array(MEASURED.deviation[skipped:])
    scaled = _RATES * deviation**2
    missing = 1.0 - _RATES @ mean
    return np.asarray(mean + scaled.T @ np.linalg.solve(scaled @ _RATES.T, missing))


_WEIGHTS: Final = _true_weights()


def write_prompts(tokens: Tokens, seed: int) -> Iterator[Measure]:
    """Yield what the service would measure of each prompt, given its tokens, template included."""
    rng = np.random.default_rng(seed)
    for start in range(0, tokens.size, _AT_ONCE):
        yield from _write(tokens[start : start + _AT_ONCE], rng)


def state_limits(outputs: Tokens, share: float, seed: int) -> Tokens:
    """Return the output limit that each client states, 0 for those that state none."""
    rng = np.random.default_rng(seed)
    ladder = np.array([*LADDER, np.iinfo(np.int64).max])
    limits = np.minimum(ladder[np.searchsorted(ladder, outputs)], np.maximum(outputs, LADDER[-1]))
    return np.where(rng.random(outputs.size) < share, limits, 0)


def _write(tokens: Tokens, rng: np.random.Generator) -> Iterator[Measure]:
    messages = np.minimum(rng.geometric(1 - _MORE_MESSAGES, tokens.size), _MOST_MESSAGES)
    template = np.minimum(_TEMPLATE[0] + _TEMPLATE[1] * messages, tokens - 1)
    counts, size = _count_text(tokens - template, rng)
    sampled = np.maximum(size / SAMPLE_BYTES, 1.0)
    unseen = 1.0 - 1.0 / sampled
    counts *= np.exp(SAMPLING_NOISE * unseen * rng.standard_normal(tokens.size))[:, None]
    columns = (size.tolist(), messages.tolist(), np.rint(counts).tolist(), unseen.tolist())
    for text_bytes, sent, row, left_out in zip(*columns, strict=True):
        yield Measure(text_bytes, 0, (1.0, float(sent), 0.0, 0.0, 0.0, 0.0, *row), left_out)


def _count_text(tokens: Tokens, rng: np.random.Generator) -> tuple[Floats, Tokens]:
    """Return the features and the bytes of texts of so many tokens."""
    rates, text_bytes, spread = _blend(tokens.size, rng)
    rates *= np.exp(spread[:, None] * rng.standard_normal(rates.shape))
    text_bytes *= np.exp(spread * rng.standard_normal(tokens.size))
    # As many of each as make up the tokens by the true weights, but for what is unexplained.
    unexplained = _UNEXPLAINED * rng.standard_t(_FREEDOM, tokens.size)
    scale = tokens * np.exp(unexplained) / (rates @ _WEIGHTS)
    size = np.maximum(np.rint(text_bytes * scale), 1).astype(np.int64)
    return rates * scale[:, None], size


def _blend(count: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Draw the kinds of so many texts; returns rates, bytes per token and spreads."""
    main, other = (rng.choice(len(KINDS), count, p=_SHARES) for _ in range(2))
    part = rng.uniform(0, _MOST_BLENDED, count) * (rng.random(count) < _BLENDED)
    rates = (1 - part)[:, None] * _RATES[main] + part[:, None] * _RATES[other]
    return rates, (1 - part) * _BYTES[main] + part * _BYTES[other], _SPREADS[main]
