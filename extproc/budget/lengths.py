"""How long the answered requests of each category were: counts in bins of prompt by output tokens.

The rule kept here: a bin stands for a length within 3 % of every length in it, in both dimensions,
so that totals are as exact. A category takes 1.5 KB for each prompt bin that it has seen, of 251;
the caller bounds the categories.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Annotated, Final, Self

import msgspec

MOST_PROMPT_TOKENS: Final = 1 << 24
MOST_OUTPUT_TOKENS: Final = 1 << 18
"""Longer lengths are counted as these."""
_ERROR: Final = 0.03


def _bins(largest: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return where each bin begins, and the tokens that it stands for; up to 33 they are exact."""
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


class _Document(msgspec.Struct):
    lengths: dict[str, list[tuple[_Count, _Count, _Count]]]
    """By category: prompt tokens, output tokens, and how many requests had them."""


class LengthHistogram:
    """Counts of lengths, by category."""

    def __init__(self) -> None:
        # By category and prompt bin, the counts of all output bins.
        self._counts: dict[str, dict[int, array[int]]] = {}

    def observe(self, category: str, prompt: int, output: int, requests: int = 1) -> None:
        """Count requests of so many prompt and output tokens. Less than a token counts as one."""
        # max: a pool that answers nonsense must not reach the bins from their other end.
        row = bisect_right(_PROMPT_BEGINS, max(prompt, 1)) - 1
        column = bisect_right(_OUTPUT_BEGINS, max(output, 1)) - 1
        rows = self._counts.setdefault(category, {})
        if row not in rows:
            rows[row] = array("Q", bytes(8 * len(_OUTPUT_BEGINS)))
        rows[row][column] += requests

    def rows(self) -> Iterator[tuple[str, int, int, int]]:
        """Yield category, prompt tokens, output tokens and requests of the bins that have some.

        Requests may be counted meanwhile: they are in rows that come later, or in none.
        """
        for category, rows in list(self._counts.items()):
            for row, counts in sorted(rows.items()):
                for column, requests in enumerate(counts):
                    if requests:
                        yield category, _PROMPT_VALUES[row], _OUTPUT_VALUES[column], requests

    def merge(self, other: "LengthHistogram") -> None:
        """Count all that the other has counted."""
        for row in other.rows():
            self.observe(*row)

    def to_json(self) -> bytes:
        """Write what GET /lengths gives; `from_json` reads it to the same counts."""
        return write_lengths(self.rows())

    @classmethod
    def from_json(cls, text: bytes | str) -> Self:
        """Read what `to_json` wrote, of any version with other bins.

        Raises ValueError with what is wrong and where: all of a row's numbers are at least 1.
        """
        histogram = cls()
        for category, rows in msgspec.json.decode(text, type=_Document).lengths.items():
            for prompt, output, requests in rows:
                histogram.observe(category, prompt, output, requests)
        return histogram


def write_lengths(rows: Iterable[tuple[str, int, int, int]]) -> bytes:
    """Write rows of a LengthHistogram as JSON."""
    document = _Document({})
    for category, prompt, output, requests in rows:
        document.lengths.setdefault(category, []).append((prompt, output, requests))
    return msgspec.json.encode(document)
