"""What kind of text a request carries: texts of one kind have one number of bytes per token.

A category is the content class, by the features that were counted anyway, or what a request header
of the operator's choice says; always for one model.
"""

import enum
import re
from collections.abc import Sequence

from extproc.budget.features import FEATURES

LABEL_CHARS = 96
"""Longer model names and header values are cut: a category is also a metric label."""

OTHER = "other"
"""The category of all that came when the permitted number had been reached."""

_DROPPED = re.compile(r"[^ -~]+")


class ContentClass(enum.Enum):
    """Kinds of text whose bytes per token differ by more than their spread within a kind."""

    PROSE = "prose"
    CODE = "code"
    STRUCTURED = "structured"
    CJK = "cjk"
    SCRIPT = "script"  # other alphabets of two and three bytes a letter: Cyrillic, Arabic, Greek
    MIXED = "mixed"


def _places(*names: str) -> tuple[int, ...]:
    return tuple(FEATURES.index(name) for name in names)


# Counted in pairs of characters: runs and the pairs within them are all there are of punctuation,
# and of digits all but the single ones.
_LETTERS = _places("lower", "upper")
_PUNCTUATION = _places("punct_runs", "punct_punct")
_DIGITS = _places("digit_digit", "space_digit", "punct_digit")
_WIDE2 = _places("greek_cyrillic", "semitic", "latin_accents")
_WIDE3 = _places("han_kana", "hangul", "indic")


def content_class(features: Sequence[float]) -> ContentClass:
    """Classify a text by its `features.FEATURES`; an empty text is prose."""
    letters, punctuation, digits, wide2, wide3 = (
        sum([features[place] for place in places])
        for places in (_LETTERS, _PUNCTUATION, _DIGITS, _WIDE2, _WIDE3)
    )
    # In bytes: a wide character is about as many tokens as that many ASCII letters, or more.
    wide = 2 * wide2 + 3 * wide3
    total = letters + punctuation + digits + wide
    if wide > 0.5 * total:
        return ContentClass.CJK if 3 * wide3 > 2 * wide2 else ContentClass.SCRIPT
    if wide > 0.15 * total:
        return ContentClass.MIXED
    if digits + punctuation > 0.30 * total:
        return ContentClass.STRUCTURED
    if punctuation > 0.095 * total:
        return ContentClass.CODE
    return ContentClass.PROSE


def named(value: str) -> str:
    """Return the category that a header's value names, or `unnamed` where it is empty."""
    return printable(value.strip()) or "unnamed"


def printable(text: str) -> str:
    """Return what of a client's text can stand in a header and in a metric's label."""
    return _DROPPED.sub("", text)[:LABEL_CHARS]


class Labels:
    """The categories that metrics name, at most `limit` of them: the rest are OTHER.

    Only an answered request adds one, so invented model names, which no pool serves, never do.
    """

    def __init__(self, limit: int) -> None:
        self._names = {OTHER}
        self._limit = limit

    def known(self, category: str) -> str:
        """Return the category, or OTHER where it was never taught."""
        return category if category in self._names else OTHER

    def admit(self, category: str) -> None:
        """Note that the category was taught."""
        if len(self._names) < self._limit:
            self._names.add(category)
