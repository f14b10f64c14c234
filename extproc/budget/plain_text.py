"""Count what estimators see of a prompt of plain text, without a Measure.

Invariant: the counts are those of `measure.measure`, and the class is that of `content_class`.
"""

from typing import Final

import numpy as np

from extproc.budget.category import CLASS_SUMS, ContentClass, class_of, content_class
from extproc.budget.features import (
    ASCII_SELECTION,
    FEATURES,
    OTHER_FEATURES,
    SELECTION,
    START_FEATURES,
    TEMPLATE_FEATURES,
    TEXT_FEATURES,
    count_ascii_pairs,
    count_pairs,
)
from extproc.budget.measure import scaled
from extproc.budget.token_starts import count_starts
from extproc.budget.weights import Vector

_SUMS: Final = np.array([[name in names for name in TEXT_FEATURES] for names in CLASS_SUMS], float)
_OF_ASCII: Final = np.vstack([ASCII_SELECTION, _SUMS @ ASCII_SELECTION])
_OF_ALL: Final = np.vstack([SELECTION, _SUMS @ SELECTION])
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

    def count(self, sample: bytes, text_bytes: int, *, messages: int, tools: int) -> ContentClass:
        """Count a prompt by a sample of its `text_bytes`; return the class of its content."""
        features = self.features
        features[_MESSAGES] = messages
        features[_TOOLS] = tools
        features[_ANY_TOOL] = tools > 0
        if sample.isascii():
            _OF_ASCII.dot(count_ascii_pairs(sample), self._text)
        else:
            _OF_ALL.dot(count_pairs(sample), self._text)
        self._starts[:] = count_starts(sample)
        self.unseen = 0.0
        if text_bytes <= len(sample):
            return class_of(*self._sums.tolist())
        text = features[len(OTHER_FEATURES) :]
        text[:], self.unseen = scaled(text, text_bytes / len(sample))
        return content_class(tuple(features.tolist()))
