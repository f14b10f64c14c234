"""What kind of text a request carries: texts of one kind have one number of bytes per token.

A category is the content class, by a cheap look at the bytes, or what a request header of the
operator's choice says; always for one model.
"""

import enum
import re
import string

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


def _table(classes: dict[int, bytes]) -> bytes:
    table = bytearray(256)
    for mark, members in classes.items():
        for byte in members:
            table[byte] = mark
    return bytes(table)


_LETTER, _DIGIT, _SPACE, _MARK, _LEAD2, _LEAD3, _LEAD4, _INDENT = range(1, 9)
_TABLE = _table(
    {
        _LETTER: string.ascii_letters.encode(),
        _DIGIT: string.digits.encode(),
        _SPACE: b" ",
        _INDENT: b"\n\r\t",
        _MARK: b"{}[]()<>=:;\"'_/\\#*&|+-",
        _LEAD2: bytes(range(0xC2, 0xE0)),
        _LEAD3: bytes(range(0xE0, 0xF0)),
        _LEAD4: bytes(range(0xF0, 0xF5)),
    }
)


def content_class(sample: bytes) -> ContentClass:
    """Classify UTF-8 text by the shares of its bytes; an empty text is prose."""
    marks = sample.translate(_TABLE)
    letters, digits, punctuation, wide2, wide3 = (
        marks.count(kind) for kind in (_LETTER, _DIGIT, _MARK, _LEAD2, _LEAD3)
    )
    # In bytes: a wide character is about as many tokens as that many ASCII letters, or more.
    wide = 2 * wide2 + 3 * wide3
    total = letters + digits + punctuation + wide or 1
    if wide > 0.5 * total:
        return ContentClass.CJK if wide3 > wide2 else ContentClass.SCRIPT
    if wide > 0.15 * total:
        return ContentClass.MIXED
    if digits + punctuation > 0.27 * total:
        return ContentClass.STRUCTURED
    if punctuation > 0.06 * total:
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
