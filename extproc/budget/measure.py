"""Measure prompts: what estimators see of them, without their text.

Invariant: a measure is additive. That of several prompts is the sum of theirs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from extproc.budget.features import (
    COUNTED_FEATURES,
    NO_MEDIA,
    OPTIONAL_FEATURES,
    OTHER_FEATURES,
    text_features,
)
from extproc.budget.prior import MEASURED
from extproc.budget.values import Measure

_Floats = NDArray[np.float64]

PIXELS_PER_PATCH: Final = 784
"""28 x 28 pixels, the merged patch of the Qwen-VL family; other models learn another weight."""
# 16,384 is what Qwen2-VL has unless max_pixels is set; others have less.
_MOST_PATCHES: Final = (16_384.0, 640.0, 1280.0, 2560.0, 5120.0)
_LONGEST_SIDE: Final = 1024.0
# InternVL cuts an image into at most 12 squares, in the rows and columns that are nearest to its
# aspect ratio, and of those with one ratio in as many as the image fills by half.
_MOST_TILES: Final = 12
_HALF_TILE_PIXELS: Final = 448 * 448 / 2
_GRIDS: Final = np.array(
    [
        (columns / rows, columns * rows)
        for rows in range(1, _MOST_TILES + 1)
        for columns in range(1, _MOST_TILES // rows + 1)
        if math.gcd(columns, rows) == 1
    ]
)
# LLaVA-NeXT fits an image into the grid of tiles that keeps most of its pixels, without padding.
_TILE: Final = 336
_TILE_PATCHES: Final = 24
_ANYRES: Final = np.array([(1, 2), (2, 1), (2, 2), (1, 3), (3, 1)], np.float64)
_NO_OPTIONAL: Final = (0.0,) * len(OPTIONAL_FEATURES)
_NO_SIZES: Final = (0.0,) * (len(_MOST_PATCHES) + 3)

_WEIGHTS: Final = np.array(MEASURED.mean)
_TEXT_WEIGHTS: Final = _WEIGHTS[len(OTHER_FEATURES) :]


def measure_media(
    images: Sequence[tuple[int, int]],
    *,
    max_pixels: int = 0,
    stated: int = 0,
    audios: int = 0,
    videos: int = 0,
) -> tuple[float, ...]:
    """Count MEDIA_FEATURES: images are (width, height) in pixels, (0, 0) if unknown.

    Larger images count as shrunk to `max_pixels`, if that is known. `stated` are further images,
    whose tokens are counted elsewhere.
    """
    known = [size for size in images if all(size)]
    sized = _sized(np.array(known, np.float64), max_pixels or math.inf) if known else _NO_SIZES
    unsized = len(images) - len(known)
    return (float(len(known)), *sized, *map(float, (stated, unsized, audios, videos)))


def _sized(sizes: _Floats, max_pixels: float) -> list[float]:
    pixels = sizes.prod(axis=1)
    sizes = sizes * np.sqrt(np.minimum(max_pixels / pixels, 1.0))[:, np.newaxis]
    patches = np.minimum(pixels, max_pixels) / PIXELS_PER_PATCH
    shrunk = patches * np.square(np.minimum(_LONGEST_SIDE / sizes.max(axis=1), 1.0))
    capped = [np.minimum(patches, most) for most in _MOST_PATCHES]
    counts = (*capped, shrunk, _tiles(sizes), _anyres(sizes))
    return [round(float(each.sum()), 1) for each in counts]


def _tiles(sizes: _Floats) -> _Floats:
    """Return the tiles of each image, with the one that shows it whole."""
    aspects, grids = _GRIDS.T
    nearest = np.abs(sizes[:, :1] / sizes[:, 1:] - aspects).argmin(axis=1)
    tiles: _Floats = grids[nearest]
    times = np.floor(np.sqrt(sizes.prod(axis=1) / (tiles * _HALF_TILE_PIXELS)))
    most = np.floor(np.sqrt(_MOST_TILES / tiles))
    tiles *= np.square(np.clip(times, 1.0, most))
    return tiles + (tiles > 1.0)


def _anyres(sizes: _Floats) -> _Floats:
    """Return the tokens of each image with its tiles, as LLaVA-NeXT makes them."""
    width, height = sizes[:, :1], sizes[:, 1:]
    across, down = _ANYRES.T
    scale = np.minimum(_TILE * across / width, _TILE * down / height)
    kept = np.minimum(np.floor(width * scale) * np.floor(height * scale), width * height)
    # Of grids that keep as much, the one that wastes least.
    chosen = (kept - 1e-9 * _TILE**2 * across * down).argmax(axis=1)
    columns, rows = _TILE_PATCHES * _ANYRES[chosen].T
    wide = sizes[:, 0] / sizes[:, 1]
    is_wide = wide > columns / rows
    narrower = columns - 2 * np.floor((columns - np.floor(rows * wide)) / 2)
    lower = rows - 2 * np.floor((rows - np.floor(columns / wide)) / 2)
    columns, rows = np.where(is_wide, columns, narrower), np.where(is_wide, lower, rows)
    tokens: _Floats = _TILE_PATCHES**2 + rows * columns + rows
    return tokens


def measure(
    sample: bytes,
    text_bytes: int,
    *,
    messages: int,
    prompts: int = 1,
    tools: int = 0,
    media: tuple[float, ...] = NO_MEDIA,
) -> Measure:
    """Measure a prompt, or several together, by a UTF-8 sample of its `text_bytes` of text.

    `media` are from `measure_media`. A sample should consist of many short pieces: a few long ones
    miss parts of a mixed prompt.
    """
    text, unseen = text_features(sample), 0.0
    if (scale := _scale(text_bytes, sample)) > 1.0:
        text, unseen = scaled(text, scale)
    counts = (float(prompts), float(messages), float(tools), 1.0 if tools else 0.0)
    features = counts + media + _NO_OPTIONAL + tuple(text.tolist())
    return Measure(text_bytes, features=features, unseen=unseen)


def scaled(counts: _Floats, scale: float) -> tuple[_Floats, float]:
    """Return the counts of a text that is so many times its sample, and the share not seen."""
    # Rounded to a tenth: the note carries it as text, and no estimate needs more digits.
    return np.rint(counts * (10.0 * scale)) / 10.0, round(1.0 - 1.0 / scale, 3)


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
    return structs.replace(measure, features=(*counted, *optional, *text))


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
