"""The lengths of answered requests by category: counts in bins of prompt by output tokens.

Invariant: a bin's value is within 3 % of every length in it, in both dimensions, and so are totals.
A category takes 1.5 KB for each of the 251 prompt bins that it has seen; the caller bounds the
categories.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from operator import add
from typing import Annotated, Final, Literal, NamedTuple, Self

import msgspec

from extproc.budget.saved import Name
from extproc.budget.values import Observation

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


_Row = tuple[_Count, _Count, _Count]  # prompt tokens, output tokens, how many had them


class _LengthsDocument(msgspec.Struct, omit_defaults=True):
    lengths: dict[str, list[_Row]]
    """The answered requests of each category."""
    sequences: dict[str, list[_Row]] = {}
    """The sequences of each category in which a request had several."""


class SavedLengths(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """The lengths of one category in a snapshot, by a table and prompt tokens."""

    table: Literal["lengths", "sequences"]
    category: Name
    rows: Annotated[list[_Row], msgspec.Meta(max_length=1 << 15)]


class LengthHistogram:
    """Counts of lengths, by category."""

    def __init__(self) -> None:
        # By category and prompt bin, the counts of all output bins.
        self._counts: dict[str, dict[int, array[int]]] = {}

    def __contains__(self, category: str) -> bool:
        return category in self._counts

    def observe(self, category: str, prompt: int, output: int, count: int = 1) -> None:
        """Count a length of prompt and output tokens; less than one token counts as one."""
        # max: a negative index would reach the bins from their other end.
        row = bisect_right(_PROMPT_BEGINS, max(prompt, 1)) - 1
        column = bisect_right(_OUTPUT_BEGINS, max(output, 1)) - 1
        rows = self._counts.setdefault(category, {})
        if row not in rows:
            rows[row] = array("Q", bytes(8 * len(_OUTPUT_BEGINS)))
        rows[row][column] += count

    def rows(self) -> Iterator[tuple[str, int, int, int]]:
        """Yield category, prompt tokens, output tokens and count of every bin that has any.

        Lengths counted meanwhile may or may not be included.
        """
        for category in list(self._counts):
            yield from self.rows_of(category)

    def fold(self, category: str, into: str) -> None:
        """Count the lengths of one category as those of another."""
        for row, counts in self._counts.pop(category, {}).items():
            others = self._counts.setdefault(into, {})
            if row in others:
                others[row] = array("Q", map(add, counts, others[row]))
            else:
                others[row] = counts

    def merge(self, other: "LengthHistogram") -> None:
        """Add the counts of another histogram."""
        for row in other.rows():
            self.observe(*row)

    def rows_of(self, category: str) -> Iterator[tuple[str, int, int, int]]:
        """Yield the rows of one category."""
        for row, counts in sorted(self._counts.get(category, {}).items()):
            for column, count in enumerate(counts):
                if count:
                    yield category, _PROMPT_VALUES[row], _OUTPUT_VALUES[column], count

    def save(self, table: Literal["lengths", "sequences"]) -> Iterator[SavedLengths]:
        """Yield what is kept in a snapshot."""
        for category in self._counts:
            yield SavedLengths(table, category, [row[1:] for row in self.rows_of(category)])

    def load(self, saved: SavedLengths, category: str) -> None:
        """Count the lengths that were saved as those of a category."""
        for row in saved.rows:
            self.observe(category, *row)

    @classmethod
    def from_json(cls, text: bytes | str) -> Self:
        """Read the sequences in what `write_lengths` wrote, also in a version with other bins.

        Raises ValueError with the fault and its place; all numbers of a row are at least 1.
        """
        histogram, document = cls(), msgspec.json.decode(text, type=_LengthsDocument)
        for category, rows in (document.lengths | document.sequences).items():
            for prompt, output, count in rows:
                histogram.observe(category, prompt, output, count)
        return histogram


class Lengths:
    """The lengths of answered requests, and those of their sequences.

    Sequences are counted apart from the first request on that has several.
    """

    def __init__(self) -> None:
        self._requests, self._sequences = LengthHistogram(), LengthHistogram()

    def observe(self, category: str, seen: Observation) -> None:
        """Count an answered request, and those that it stands for."""
        several, times = seen.asked.sequences > 1, seen.stands_for
        if several:
            self._count_sequences(category)
        self._requests.observe(category, seen.prompt_tokens, seen.completion_tokens, times)
        if several or category in self._sequences:
            sequence = seen.largest_prompt, seen.output_tokens
            self._sequences.observe(category, *sequence, times * seen.asked.sequences)

    def fold(self, category: str, into: str) -> None:
        """Count the lengths of one category as those of another."""
        if category in self._sequences or into in self._sequences:
            self._count_sequences(category)
            self._count_sequences(into)
        self._requests.fold(category, into)
        self._sequences.fold(category, into)

    def save(self) -> Iterator[SavedLengths]:
        """Yield what is kept in a snapshot."""
        yield from self._requests.save("lengths")
        yield from self._sequences.save("sequences")

    def load(self, saved: SavedLengths, category: str) -> None:
        """Count the lengths that were saved as those of a category."""
        histogram = self._requests if saved.table == "lengths" else self._sequences
        histogram.load(saved, category)

    def _count_sequences(self, category: str) -> None:
        """Count sequences apart from now on; so far each request had one."""
        if category not in self._sequences:
            for row in self._requests.rows_of(category):
                self._sequences.observe(*row)

    def rows(self) -> Iterator["LengthRow"]:
        """Yield all rows; lengths counted meanwhile may or may not be included."""
        for row in self._requests.rows():
            yield LengthRow("lengths", *row)
        for row in self._sequences.rows():
            yield LengthRow("sequences", *row)


class LengthRow(NamedTuple):
    """How many requests, or sequences, had a length."""

    table: str
    """The key of _LengthsDocument."""
    category: str
    prompt_tokens: int
    output_tokens: int
    seen: int


def write_lengths(rows: Iterable[LengthRow]) -> bytes:
    """Return the body of GET /lengths."""
    tables: dict[str, dict[str, list[_Row]]] = {"lengths": {}, "sequences": {}}
    for row in rows:
        counted = row.prompt_tokens, row.output_tokens, row.seen
        tables[row.table].setdefault(row.category, []).append(counted)
    return msgspec.json.encode(_LengthsDocument(**tables))
