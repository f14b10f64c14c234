"""Where a text can be cut: places, and the tokens before each."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


def cuts_of_pieces(pieces: Sequence[str], tokens: Sequence[int]) -> tuple[Positions, Positions]:
    """Return the cuts between pieces that are tokenized separately."""
    places = itertools.accumulate(map(len, pieces), initial=0)
    before = itertools.accumulate(tokens, initial=0)
    return np.array(list(places), np.int64), np.array(list(before), np.int64)
