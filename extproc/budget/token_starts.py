"""Estimate where the tokens of a text begin, from a table of what three bytes say of it.

The table, `token_starts.bin`, has a byte for each hash of a byte, the one before and the one after:
how many tokens begin at such a byte, in eightieths of a token, as a mean over texts and tokenizers.
Three bytes tell common parts of words, which are tokens in every vocabulary, from rare ones.
`python -m benchmarks.token_starts` writes it.
"""

from hashlib import blake2b
from pkgutil import get_data
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

FILE: Final = "token_starts.bin"
"""The table's name, beside this module."""
BITS: Final = 17
"""Of a hash: the table has 2**BITS bytes."""
_UNIT: Final = 80
_DOUBT_UNIT: Final = 1000
# One table for two sums: of a token's beginnings in the lower 24 bits, which 65,536 bytes of text
# cannot exceed, and of doubts above.
_DOUBT_BITS: Final = 24
# Times 256: the fourth of the bytes that are read at once falls out.
_FACTOR: Final = np.uint32((0x9E3779B1 << 8) & 0xFFFFFFFF)
_SHIFT: Final = np.uint32(32 - BITS)


def hashes(text: bytes) -> NDArray[np.uint32]:
    """Return a hash for each byte, of it and its neighbours; newlines surround the text."""
    around = b"\n" + text + b"\n\n"
    # Each byte as the second of a number of four bytes, which overlap.
    found: NDArray[np.uint32] = np.ndarray((len(text),), "<u4", around, 0, (1,)) * _FACTOR
    found >>= _SHIFT
    return found


def encode(starts: NDArray[np.float64]) -> bytes:
    """Return the table of the tokens that begin at a byte, by its hash."""
    return np.minimum(np.rint(starts * _UNIT), 255).astype(np.uint8).tobytes()


def _sums() -> NDArray[np.uint32]:
    """Return the two sums of a hash by its byte in the file."""
    starts = np.arange(256, dtype=np.uint32)
    likely = np.minimum(starts / _UNIT, 1.0)
    doubts = np.rint(likely * (1.0 - likely) * _DOUBT_UNIT).astype(np.uint32)
    return starts | doubts << np.uint32(_DOUBT_BITS)


def _read() -> tuple[NDArray[np.uint32], str]:
    # Not importlib.resources, which takes 0.8 MB of memory.
    data = cast("bytes", get_data("extproc.budget", FILE))
    return _sums().take(np.frombuffer(data, np.uint8)), blake2b(data, digest_size=16).hexdigest()


_TABLE, DIGEST = _read()
"""The table, and its digest: weights that were learnt with another one mean something else."""


def count_starts(sample: bytes) -> tuple[float, float]:
    """Return the tokens that begin in UTF-8 text, and how doubtful that is, as a variance.

    A longer text than 65,536 bytes would be miscounted.
    """
    found = int(np.add.reduce(_TABLE.take(hashes(sample))))
    starts, doubts = found & (1 << _DOUBT_BITS) - 1, found >> _DOUBT_BITS
    # To a tenth, as counts of a sampled text are.
    return (10 * starts // _UNIT) / 10, (10 * doubts // _DOUBT_UNIT) / 10
