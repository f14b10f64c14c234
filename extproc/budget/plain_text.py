"""Count what estimators see of a prompt of plain text, without a Measure.

Invariant: the counts are those of `measure.measure`, and the class is that of `content_class`.
"""

from typing import Final

import numpy as np

from extproc.budget.category import CLASS_SUMS, ContentClass, class_of, content_class
from extproc.budget.counting import count_pairs
from extproc.budget.features import (
    ASCII,
    EVERY,
    FEATURES,
    OTHER_FEATURES,
    START_FEATURES,
    TEMPLATE_FEATURES,
    TEXT_FEATURES,
)
from extproc.budget.measure import scaled
from extproc.budget.token_starts import count_starts
from extproc.budget.weights import Vector

_SUMS: Final = np.array([[name in names for name in TEXT_FEATURES] for names in CLASS_SUMS], float)


def _with_sums(selection: Vector) -> Vector:
    return np.vstack([selection, _SUMS @ selection])


_OF_ASCII: Final = _with_sums(ASCII.selection)
_OF_EVERY: Final = _with_sums(EVERY.selection)
_REQUEST, _MESSAGES, _TOOLS, _ANY_TOOL = range(len(TEMPLATE_FEATURES))


class TextCounter:
    """Counts one prompt after another in the same memory."""

    def __init__(self) -> None:
        row = np.zeros(len(FEATURES) + len(CLASS_SUMS))
        row[_REQUEST] = 1.0
        self.features: Vector = row[: len(FEATURES)]
        """The `features.FEATURES` of the last prompt."""
        self.unseen = 0.0
        """The share of its text that its sample leaves out."""
        self._text, self._sums = row[len(OTHER_FEATURES) :], row[len(FEATURES) :]
        self._starts = self.features[-len(START_FEATURES) :]
        self._ascii, self._every = ASCII.zeros(), EVERY.zeros()
        self._ascii_pairs, self._every_pairs = self._ascii.reshape(-1), self._every.reshape(-1)

    def count(self, sample: bytes, text_bytes: int, *, messages: int, tools: int) -> ContentClass:
        """Count a prompt by a sample of its `text_bytes`; return the class of its content."""
        features = self.features
        features[_MESSAGES] = messages
        features[_TOOLS] = tools
        features[_ANY_TOOL] = tools > 0
        if sample.isascii():
            count_pairs(sample, ASCII.classes, self._ascii)
            _OF_ASCII.dot(self._ascii_pairs, self._text)
        else:
            count_pairs(sample, EVERY.classes, self._every)
            _OF_EVERY.dot(self._every_pairs, self._text)
        self._starts[:] = count_starts(sample)
        self.unseen = 0.0
        if text_bytes <= len(sample):
            return class_of(*self._sums.tolist())
        text = features[len(OTHER_FEATURES) :]
        text[:], self.unseen = scaled(text, text_bytes / len(sample))
        return content_class(tuple(features.tolist()))
