"""The tokens of images, held to the models' own processors."""

import random

import pytest

from extproc.evaluation.images import (
    draw_size,
    gemma_3,
    image_url,
    llava_1_5,
    llava_next,
    qwen_2_vl,
)
from extproc.request.image import read_image

QWEN = qwen_2_vl(1280 * 28 * 28)


def test_the_service_reads_the_size_from_the_data_url():
    image = read_image({"url": image_url(1920, 1080)})
    assert (image.width, image.height) == (1920, 1080)


@pytest.mark.parametrize("size", [(64, 64), (4032, 3024)])
def test_some_models_use_the_same_tokens_for_every_size(size):
    assert (gemma_3(*size), llava_1_5(*size)) == (260, 576)


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [
        (672, 672, 576 + 48 * 48 + 48),  # fills two by two tiles
        (1008, 336, 576 + 72 * 24 + 24),  # fills three tiles in a row
        (336, 1008, 576 + 24 * 72 + 72),
        (640, 480, 576 + 36 * 48 + 36),  # a quarter of the rows of two by two tiles is padding
        (480, 640, 576 + 48 * 36 + 48),
    ],
)
def test_llava_next_adds_tiles_without_their_padding(width, height, tokens):
    assert llava_next(width, height) == tokens


@pytest.mark.parametrize(
    ("width", "height", "tokens"),
    [
        (560, 280, 20 * 10 + 2),
        (570, 290, 20 * 10 + 2),  # rounded to whole patches
        (10, 10, 2 * 2 + 2),  # scaled up to the fewest pixels
        (2800, 2800, 35 * 35 + 2),  # scaled down to the most pixels
    ],
)
def test_qwen_2_vl_counts_patches(width, height, tokens):
    assert QWEN(width, height) == tokens


def test_max_pixels_bounds_the_tokens_of_any_image():
    rng = random.Random(0)
    assert max(QWEN(*draw_size(rng)) for _ in range(500)) <= 1280 + 2
