"""The lengths of answered sequences by category: counts in bins of prompt by output tokens.

Invariant: a bin's value is within 3 % of every length in it, in both dimensions, and so are totals.
A category takes 1.5 KB for each of the 251 prompt bins that it has seen; the caller bounds the
categories.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Annotated, Final, Self

import msgspec

MOST_PROMPT_TOKENS: Final = 1 << 24
MOST_OUTPUT_TOKENS: Final = 1 << 18
"""The longest lengths that are told apart."""
_ERROR: Final = 0.03


def _bins(largest: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the first length and the value of each bin; up to 33 tokens values are exact."""
    begins, values, begin = list[int](), list[int](), 1
    while begin <= largest:
        value = int(begin * (1 + _ERROR))
        begins.append(begin)
        values.append(value)
        begin = int(value / (1 - _ERROR)) + 1
    return tuple(begins), tuple(values)


_PROMPT_BEGINS, _PROMPT_VALUES = _bins(MOST_PROMPT_TOKENS)
_OUTPUT_BEGINS, _OUTPUT_VALUES = _bins(MOST_OUTPUT_TOKENS)


_Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]


class _LengthsDocument(msgspec.Struct):
    lengths: dict[str, list[tuple[_Count, _Count, _Count]]]
    """By category: prompt tokens, output tokens, and the sequences that had them."""


class LengthHistogram:
    """Counts of lengths, by category."""

    def __init__(self) -> None:
        # By category and prompt bin, the counts of all output bins.
        self._counts: dict[str, dict[int, array[int]]] = {}

    def observe(self, category: str, prompt: int, output: int, sequences: int = 1) -> None:
        """Count sequences of these prompt and output tokens; less than one token counts as one."""
        # max: a negative index would reach the bins from their other end.
        row = bisect_right(_PROMPT_BEGINS, max(prompt, 1)) - 1
        column = bisect_right(_OUTPUT_BEGINS, max(output, 1)) - 1
        rows = self._counts.setdefault(category, {})
        if row not in rows:
            rows[row] = array("Q", bytes(8 * len(_OUTPUT_BEGINS)))
        rows[row][column] += sequences

    def rows(self) -> Iterator[tuple[str, int, int, int]]:
        """Yield category, prompt tokens, output tokens and sequences of every bin that has any.

        Sequences counted meanwhile may or may not be included.
        """
        for category, rows in list(self._counts.items()):
            for row, counts in sorted(rows.items()):
                for column, sequences in enumerate(counts):
                    if sequences:
                        yield category, _PROMPT_VALUES[row], _OUTPUT_VALUES[column], sequences

    def merge(self, other: "LengthHistogram") -> None:
        """Add the counts of another histogram."""
        for row in other.rows():
            self.observe(*row)

    def to_json(self) -> bytes:
        """Return the body of GET /lengths; `from_json` reads the same counts from it."""
        return write_lengths(self.rows())

    @classmethod
    def from_json(cls, text: bytes | str) -> Self:
        """Read what `to_json` wrote, also in a version with other bins.

        Raises ValueError with the fault and its place; all numbers of a row are at least 1.
        """
        histogram = cls()
        for category, rows in msgspec.json.decode(text, type=_LengthsDocument).lengths.items():
            for prompt, output, requests in rows:
                histogram.observe(category, prompt, output, requests)
        return histogram


def write_lengths(rows: Iterable[tuple[str, int, int, int]]) -> bytes:
    """Write rows of a LengthHistogram as JSON."""
    document = _LengthsDocument({})
    for category, prompt, output, requests in rows:
        document.lengths.setdefault(category, []).append((prompt, output, requests))
    return msgspec.json.encode(document)
