"""Count what estimators see of a prompt of plain text, without a Measure.

Invariant: the counts are those of `measure.measure`, and the class is that of `content_class`.
"""

from array import array
from typing import Final

from extproc.budget.category import CLASS_SUMS, ContentClass, class_of, content_class
from extproc.budget.counting import sum_pairs
from extproc.budget.features import (
    ASCII,
    EVERY,
    FEATURES,
    OTHER_FEATURES,
    START_FEATURES,
    TEMPLATE_FEATURES,
    TEXT_FEATURES,
    Alphabet,
)
from extproc.budget.measure import scaled
from extproc.budget.token_starts import count_starts


def _with_sums(alphabet: Alphabet) -> bytes:
    """Return the places of an alphabet's pairs, with those of CLASS_SUMS behind the features."""
    found = array("Q", alphabet.places)
    for place, names in enumerate(CLASS_SUMS, len(TEXT_FEATURES)):
        # No pair counts for two features of one sum.
        summed = sum(1 << TEXT_FEATURES.index(name) for name in names)
        for pair, places in enumerate(found):
            found[pair] |= bool(places & summed) << place
    return found.tobytes()


_OF_ASCII: Final = _with_sums(ASCII)
_OF_EVERY: Final = _with_sums(EVERY)
_REQUEST, _MESSAGES, _TOOLS, _ANY_TOOL = range(len(TEMPLATE_FEATURES))
_STARTS, _DOUBTS = map(FEATURES.index, START_FEATURES)


class TextCounter:
    """Counts one prompt after another in the same memory."""

    def __init__(self) -> None:
        row = memoryview(bytearray(8 * (len(FEATURES) + len(CLASS_SUMS)))).cast("d")
        row[_REQUEST] = 1.0
        self.features = row[: len(FEATURES)]
        """The `features.FEATURES` of the last prompt."""
        self.unseen = 0.0
        """The share of its text that its sample leaves out."""
        self._text, self._sums = row[len(OTHER_FEATURES) :], row[len(FEATURES) :]

    def count(self, sample: bytes, text_bytes: int, *, messages: int, tools: int) -> ContentClass:
        """Count a prompt by a sample of its `text_bytes`; return the class of its content."""
        features = self.features
        features[_MESSAGES] = messages
        features[_TOOLS] = tools
        features[_ANY_TOOL] = tools > 0
        if sample.isascii():
            sum_pairs(sample, ASCII.classes, _OF_ASCII, self._text)
        else:
            sum_pairs(sample, EVERY.classes, _OF_EVERY, self._text)
        features[_STARTS], features[_DOUBTS] = count_starts(sample)
        self.unseen = 0.0
        if text_bytes <= len(sample):
            return class_of(*self._sums.tolist())
        self.unseen = scaled(features[len(OTHER_FEATURES) :], text_bytes / len(sample))
        return content_class(tuple(features.tolist()))
