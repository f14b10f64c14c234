"""Visit each byte of a text: add up pairs of classes, and what a table has of its hashes.

Invariant: `counting.c` does the same. Where the package is compiled, Python finds that instead.
"""

import math
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extproc.budget.neighbours import hashes
from extproc.budget.values import Row

_DOUBT_BITS: Final = 24  # 65,536 bytes of text have a smaller sum than that
_MOST_IN_BYTE: Final = 16  # classes whose pairs have numbers of a byte


def sum_pairs(text: bytes, classes: bytes, places: bytes, sums: Row) -> None:
    """Count how often each class follows each, and add each count to some of `sums`, 64 at most.

    `places` has a number of eight bytes for each pair of at most 32 classes, in the order of the
    first: its bits say to which sums. `classes` has the class of each byte. A byte whose class is
    not among the pairs is left out; a newline, whose class is, precedes the text.
    """
    selection = _selection(places, len(sums))
    size = math.isqrt(selection.shape[1])
    every = (b"\n" + text).translate(classes, _left_out(classes, size))
    kind = np.uint8 if size <= _MOST_IN_BYTE else np.uint16
    pairs = np.frombuffer(every, np.uint8, len(every) - 1) * kind(size)
    pairs += np.frombuffer(every, np.uint8, -1, 1)
    selection.dot(np.bincount(pairs, minlength=size * size), np.asarray(sums))


def sum_hashed(text: bytes, starts: bytes, doubts: bytes) -> tuple[int, int]:
    """Return the sum of the bytes that `starts` has for the hashes of a text, see `neighbours`.

    `starts` has a power of two of bytes. The second sum is that of what `doubts` has for each of
    the bytes summed up, 256 in all. The text has at most 65,536 bytes.
    """
    table = _merged(starts, doubts)
    found = int(np.add.reduce(table.take(hashes(text, len(starts).bit_length() - 1))))
    return found & (1 << _DOUBT_BITS) - 1, found >> _DOUBT_BITS


@lru_cache(4)
def _selection(places: bytes, sums: int) -> NDArray[np.float64]:
    """Return a row for each sum, a column for each pair."""
    bits = np.frombuffer(places, np.uint64) >> np.arange(sums, dtype=np.uint64)[:, np.newaxis]
    return (bits & np.uint64(1)).astype(np.float64)


@lru_cache(4)
def _left_out(classes: bytes, size: int) -> bytes:
    return bytes(byte for byte in range(256) if classes[byte] >= size)


@lru_cache(1)
def _merged(starts: bytes, doubts: bytes) -> NDArray[np.uint32]:
    """Return one table for both sums."""
    first = np.frombuffer(starts, np.uint8)
    second = np.frombuffer(doubts, np.uint8)[first].astype(np.uint32)
    return first | second << np.uint32(_DOUBT_BITS)
