"""Images as requests carry them, and the tokens that models make of them.

The rules are those of the models' processors in Hugging Face's transformers, which vLLM follows.
"""

import base64
import math
import random
import struct
from collections.abc import Callable
from typing import Final

ImageTokens = Callable[[int, int], int]
"""Returns the tokens of an image by its width and height in pixels."""

_SIZES: Final = (
    (4032, 3024), (1920, 1080), (1024, 1024), (640, 480), (336, 336), (1240, 1754), (800, 2400),
)  # fmt: skip
_SPREAD: Final = 0.15

_GEMMA_3: Final = 256 + 4  # two newlines before and after, and two markers
_LLAVA_1_5: Final = 576  # 24 x 24 patches

_TILE: Final = 336
_TILE_PATCHES: Final = 24
_GRIDS: Final = ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1))
"""Tiles across and down: the grid_pinpoints of LLaVA-NeXT."""

_QWEN_PATCH: Final = 28
_QWEN_LEAST: Final = 56 * 56
_QWEN_MARKS: Final = 2


def draw_size(rng: random.Random) -> tuple[int, int]:
    """Draw the width and height of a photograph, a screenshot, a page or a thumbnail."""
    width, height = rng.choice(_SIZES)
    scale = math.exp(rng.gauss(0, _SPREAD))
    return max(32, int(width * scale)), max(32, int(height * scale))


def image_url(width: int, height: int) -> str:
    """Return a data URL of a PNG of this size: its header alone."""
    header = struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0)
    data = base64.b64encode(b"\x89PNG\r\n\x1a\n" + header).decode()
    return f"data:image/png;base64,{data}"


def gemma_3(width: int, height: int) -> int:  # noqa: ARG001
    """Return the tokens without pan-and-scan: the same for every size."""
    return _GEMMA_3


def llava_1_5(width: int, height: int) -> int:  # noqa: ARG001
    """Return the tokens, the same for every size."""
    return _LLAVA_1_5


def llava_next(width: int, height: int) -> int:
    """Return the tokens of the whole image and of its tiles without their padding."""
    across, down = max(_GRIDS, key=lambda grid: _grid_fit(width, height, *grid))
    columns, rows = across * _TILE_PATCHES, down * _TILE_PATCHES
    if width / height > columns / rows:
        rows -= 2 * ((rows - height * columns // width) // 2)
    else:
        columns -= 2 * ((columns - width * rows // height) // 2)
    return _TILE_PATCHES**2 + rows * columns + rows  # one token ends each row


def _grid_fit(width: int, height: int, across: int, down: int) -> tuple[int, int]:
    """Return the pixels that are kept, and less those that are wasted."""
    room_width, room_height = across * _TILE, down * _TILE
    scale = min(room_width / width, room_height / height)
    kept = min(int(width * scale) * int(height * scale), width * height)
    return kept, kept - room_width * room_height


def qwen_2_vl(max_pixels: int) -> ImageTokens:
    """Return the rule for a processor with this max_pixels."""

    def tokens(width: int, height: int) -> int:
        across, down = (max(1, round(side / _QWEN_PATCH)) for side in (width, height))
        pixels = across * down * _QWEN_PATCH**2
        if pixels > max_pixels:
            scale = math.sqrt(width * height / max_pixels) * _QWEN_PATCH
            across, down = (max(1, math.floor(side / scale)) for side in (width, height))
        elif pixels < _QWEN_LEAST:
            scale = math.sqrt(_QWEN_LEAST / (width * height)) / _QWEN_PATCH
            across, down = (math.ceil(side * scale) for side in (width, height))
        return across * down + _QWEN_MARKS

    return tokens
