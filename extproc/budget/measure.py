"""Measure prompts: what estimators see of them, without their text.

Invariant: a measure is additive. That of several prompts is the sum of theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from extproc.budget.features import (
    COUNTED_FEATURES,
    OPTIONAL_FEATURES,
    OTHER_FEATURES,
    text_features,
)
from extproc.budget.prior import MEASURED
from extproc.budget.values import Measure

UNKNOWN_PIXELS: Final = 1 << 20
"""Pixels of an image whose size is not known."""

PIXELS_PER_PATCH: Final = 784

_WEIGHTS: Final = np.array(MEASURED.mean)
_TEXT_WEIGHTS: Final = _WEIGHTS[len(OTHER_FEATURES) :]


def measure(
    sample: bytes,
    text_bytes: int,
    *,
    messages: int,
    prompts: int = 1,
    tools: int = 0,
    images: Sequence[tuple[int, int]] = (),
) -> Measure:
    """Measure a prompt, or several together, by a UTF-8 sample of its `text_bytes` of text.

    `images` are (width, height) in pixels, (0, 0) if unknown. A sample should consist of many short
    pieces: a few long ones miss parts of a mixed prompt.
    """
    scale = _scale(text_bytes, sample)
    # Rounded to a tenth: the note carries it as text, and no estimate needs more digits.
    text = np.rint(text_features(sample) * (10.0 * scale)) / 10.0
    patches = sum([w * h or UNKNOWN_PIXELS for w, h in images]) / PIXELS_PER_PATCH
    any_tool = 1.0 if tools else 0.0
    counts = [float(count) for count in (prompts, messages, tools)]
    none = [0.0] * len(OPTIONAL_FEATURES)
    other = (*counts, any_tool, float(len(images)), round(patches, 1), *none)
    features = (*other, *text.tolist())
    return Measure(text_bytes, features=features, unseen=round(1.0 - 1.0 / scale, 3))


def add(first: Measure, second: Measure, times: int) -> Measure:
    """Return the measure of `first` and of `times` copies of `second` together."""
    text_bytes = first.text_bytes + times * second.text_bytes
    unseen = first.unseen * first.text_bytes + times * second.unseen * second.text_bytes
    pairs = zip(first.features, second.features, strict=True)
    return Measure(
        text_bytes,
        first.token_ids + times * second.token_ids,
        tuple(one + times * other for one, other in pairs),
        round(unseen / text_bytes, 3) if text_bytes else 0.0,
    )


def with_optional(measure: Measure, tokens: Mapping[str, float]) -> Measure:
    """Add text that templates may drop, as tokens by the names of OPTIONAL_FEATURES."""
    if not tokens:
        return measure
    start, end = len(COUNTED_FEATURES), len(OTHER_FEATURES)
    optional = [round(tokens.get(name, 0.0), 1) for name in OPTIONAL_FEATURES]
    counted, text = measure.features[:start], measure.features[end:]
    return replace(measure, features=(*counted, *optional, *text))


def prior_total(measure: Measure) -> float:
    """Estimate the tokens of a prompt, or of several together, by the prior alone; at least 1."""
    counted = float(np.array(measure.features) @ _WEIGHTS) if measure.features else 0.0
    return max(counted + measure.token_ids, 1.0)


def prior_tokens(text_bytes: int, sample: bytes) -> float:
    """Estimate the tokens of a text by the prior alone, from a sample of it."""
    return _scale(text_bytes, sample) * float(text_features(sample) @ _TEXT_WEIGHTS)


def _scale(text_bytes: int, sample: bytes) -> float:
    """Return how many times the sample's counts are those of the text; at least 1."""
    return max(text_bytes / len(sample), 1.0) if sample else 1.0
