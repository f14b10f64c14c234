"""What a snapshot holds is bounded: a file, or a store, is input from outside.

Invariant: a value that these types admit makes no later computation raise.
"""

import math
from array import array
from typing import Annotated, Final

import msgspec
from msgspec import Meta

_MOST: Final = 1e30

Finite = Annotated[float, Meta(ge=-_MOST, le=_MOST)]
Amount = Annotated[float, Meta(ge=0.0, le=_MOST)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Growing = Annotated[float, Meta(ge=1.0, le=2e9)]
"""The weight of the latest of fading counts, which are scaled down at 1e9."""
Count = Annotated[int, Meta(ge=0, le=1 << 53)]
Name = Annotated[str, Meta(max_length=1024)]


class SavedTouches(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The counts of a bounded map in a snapshot."""

    touches: Count
    evicted: Count


class SavedLabels(msgspec.Struct, frozen=True, array_like=True, tag=11):
    """Labels in a snapshot, each with its last touch."""

    touches: SavedTouches
    names: Annotated[list[tuple[Name, Count]], msgspec.Meta(max_length=1 << 13)]


class SavedWeights(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """Token weights in a snapshot; other parts name them by their place among all of them."""

    all: bytes
    media_noise: tuple[Amount, Amount]
    surprise: Amount
    observations: Count


def doubles(data: bytes, count: int, most: float = _MOST, least: float = 0.0) -> "array[float]":
    """Read numbers in the machine's own byte order. Raises ValueError unless all are in range."""
    if len(data) != 8 * count:
        raise ValueError(f"{len(data)} bytes instead of {count} numbers")
    found = array("d", data)
    # Not a number compares as False.
    if not all(least <= value <= most for value in found):
        raise ValueError("a number out of range")
    return found


def require_one(total: float) -> None:
    """Raise ValueError unless the sum of some shares is one."""
    if not math.isclose(total, 1.0, abs_tol=1e-6):
        raise ValueError("shares that do not add up")
