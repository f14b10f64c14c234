"""Estimate where the tokens of a text begin, from a table of what three bytes say of it.

The table, `token_starts.bin`, has a byte for each hash of a byte and its neighbours:
how many tokens begin at such a byte, in eightieths of a token, as a mean over texts and tokenizers.
Three bytes tell common parts of words, which are tokens in every vocabulary, from rare ones.
`python -m benchmarks.token_starts` writes it.
"""

from collections.abc import Iterable
from hashlib import blake2b
from pkgutil import get_data
from typing import Final, cast

from extproc.budget.counting import sum_hashed

FILE: Final = "token_starts.bin"
"""The table's name, beside this module."""
BITS: Final = 17
"""Of a hash: the table has 2**BITS bytes."""
_UNIT: Final = 80
_DOUBT_UNIT: Final = 1000


def encode(starts: Iterable[float]) -> bytes:
    """Return the table of the tokens that begin at a byte, by its hash."""
    return bytes(min(round(each * _UNIT), 255) for each in starts)


# Not importlib.resources, which takes 0.8 MB of memory.
_TABLE: Final = cast("bytes", get_data("extproc.budget", FILE))
DIGEST: Final = blake2b(_TABLE, digest_size=16).hexdigest()
"""Of the table: weights that were learnt with another one mean something else."""


def _doubts() -> bytes:
    """Return the variance of what each byte of the table says."""
    likely = [min(number / _UNIT, 1.0) for number in range(256)]
    return bytes(round(each * (1.0 - each) * _DOUBT_UNIT) for each in likely)


_DOUBTS: Final = _doubts()


def count_starts(sample: bytes) -> tuple[float, float]:
    """Return the tokens that begin in UTF-8 text, and how doubtful that is, as a variance.

    A longer text than 65,536 bytes would be miscounted.
    """
    starts, doubts = sum_hashed(sample, _TABLE, _DOUBTS)
    # To a tenth, as counts of a sampled text are.
    return (10 * starts // _UNIT) / 10, (10 * doubts // _DOUBT_UNIT) / 10
