"""Measure prompts: what estimators see of them, without their text.

Invariant: a measure is additive. That of several prompts is the sum of theirs.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

from msgspec import structs

from extproc.budget.features import (
    COUNTED_FEATURES,
    NO_MEDIA,
    OPTIONAL_FEATURES,
    OTHER_FEATURES,
    text_features,
)
from extproc.budget.linear import dot, scale
from extproc.budget.prior import MEASURED
from extproc.budget.values import Measure, Row

PIXELS_PER_PATCH: Final = 784
"""28 x 28 pixels, the merged patch of the Qwen-VL family; other models learn another weight."""
# 16,384 is what Qwen2-VL has unless max_pixels is set; others have less.
_MOST_PATCHES: Final[tuple[float, ...]] = (16_384.0, 640.0, 1280.0, 2560.0, 5120.0)
_LONGEST_SIDE: Final = 1024.0
# InternVL cuts an image into at most 12 squares, in the rows and columns that are nearest to its
# aspect ratio, and of those with one ratio in as many as the image fills by half.
_MOST_TILES: Final = 12
_HALF_TILE_PIXELS: Final = 448 * 448 / 2
_GRIDS: Final = sorted(
    (columns / rows, columns * rows)
    for rows in range(1, _MOST_TILES + 1)
    for columns in range(1, _MOST_TILES // rows + 1)
    if math.gcd(columns, rows) == 1
)
_BETWEEN: Final = [(one + other) / 2 for (one, _), (other, _) in pairwise(_GRIDS)]
# LLaVA-NeXT fits an image into the grid of tiles that keeps most of its pixels, without padding.
_TILE: Final = 336
_TILE_PATCHES: Final = 24
_ANYRES: Final = ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1))
_NO_OPTIONAL: Final = (0.0,) * len(OPTIONAL_FEATURES)
_NO_SIZES: Final = (0.0,) * (len(_MOST_PATCHES) + 3)

_TEXT_WEIGHTS: Final = MEASURED.mean[len(OTHER_FEATURES) :]


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
    every = zip(*(_sized(*size, max_pixels or math.inf) for size in known), strict=True)
    sized = [round(sum(each), 1) for each in every] if known else _NO_SIZES
    unsized = len(images) - len(known)
    return (float(len(known)), *sized, *map(float, (stated, unsized, audios, videos)))


@lru_cache(512)  # more than there are known images in a request
def _sized(width: float, height: float, max_pixels: float) -> tuple[float, ...]:
    """Return what SIZED_FEATURES count of an image, but for itself and stated ones."""
    pixels = width * height
    if pixels > max_pixels:
        shrink = math.sqrt(max_pixels / pixels)
        width, height, pixels = width * shrink, height * shrink, max_pixels
    patches = pixels / PIXELS_PER_PATCH
    shrunk = patches * min(_LONGEST_SIDE / max(width, height), 1.0) ** 2
    capped = [min(patches, most) for most in _MOST_PATCHES]
    return *capped, shrunk, _tiles(width, height), _anyres(width, height)


def _tiles(width: float, height: float) -> float:
    """Return the tiles of an image, with the one that shows it whole."""
    _, tiles = _GRIDS[bisect_left(_BETWEEN, width / height)]
    times = math.floor(math.sqrt(width * height / (tiles * _HALF_TILE_PIXELS)))
    most = math.floor(math.sqrt(_MOST_TILES / tiles))
    tiles *= max(1, min(times, most)) ** 2
    return float(tiles + (tiles > 1))


def _anyres(width: float, height: float) -> float:
    """Return the tokens of an image with its tiles, as LLaVA-NeXT makes them."""

    def kept(grid: tuple[int, int]) -> float:
        across, down = grid
        scale = min(_TILE * across / width, _TILE * down / height)
        pixels = min(math.floor(width * scale) * math.floor(height * scale), width * height)
        # Of grids that keep as much, the one that wastes least.
        return pixels - 1e-9 * _TILE**2 * across * down

    across, down = max(_ANYRES, key=kept)
    columns, rows, wide = _TILE_PATCHES * across, _TILE_PATCHES * down, width / height
    if wide > columns / rows:
        rows -= 2 * ((rows - math.floor(columns / wide)) // 2)
    else:
        columns -= 2 * ((columns - math.floor(rows * wide)) // 2)
    return float(_TILE_PATCHES**2 + rows * columns + rows)


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
    if (times := _scale(text_bytes, sample)) > 1.0:
        unseen = scaled(text, times)
    counts = (float(prompts), float(messages), float(tools), 1.0 if tools else 0.0)
    features = counts + media + _NO_OPTIONAL + tuple(text)
    return Measure(text_bytes, features=features, unseen=unseen)


def scaled(counts: Row, times: float) -> float:
    """Make counts those of a text that is so many times its sample; return the share not seen."""
    # Rounded to a tenth: the note carries it as text, and no estimate needs more digits.
    scale(counts, times)
    return round(1.0 - 1.0 / times, 3)


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
    counted = dot(measure.features, MEASURED.mean) if measure.features else 0.0
    return max(counted + measure.token_ids, 1.0)


def prior_tokens(text_bytes: int, sample: bytes) -> float:
    """Estimate the tokens of a text by the prior alone, from a sample of it."""
    return _scale(text_bytes, sample) * dot(text_features(sample), _TEXT_WEIGHTS)


def _scale(text_bytes: int, sample: bytes) -> float:
    """Return how many times the sample's counts are those of the text; at least 1."""
    return max(text_bytes / len(sample), 1.0) if sample else 1.0
