"""A hash of each byte of a text and its neighbours."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

# Times 256: the fourth of the bytes that are read at once falls out.
_FACTOR: Final = np.uint32((0x9E3779B1 << 8) & 0xFFFFFFFF)


def hashes(text: bytes, bits: int) -> NDArray[np.uint32]:
    """Return a hash of so many bits for each byte; newlines surround the text."""
    around = b"\n" + text + b"\n\n"
    # Each byte as the second of a number of four bytes, which overlap.
    found: NDArray[np.uint32] = np.ndarray((len(text),), "<u4", around, 0, (1,)) * _FACTOR
    found >>= np.uint32(32 - bits)
    return found
