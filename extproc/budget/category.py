"""The category of a request: the kind of its text, for one model.

Texts of one category have about the same bytes per token. The kind is the content class, found
from the features, or the value of a request header of the operator's choice.
"""

import enum
import math
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from operator import itemgetter
from typing import Final

from extproc.budget.bounded import BoundedMap
from extproc.budget.features import FEATURES, MEDIA, NO_MEDIA
from extproc.budget.saved import SavedLabels

LABEL_CHARS = 96
"""The longest label; a longer name is cut and ends in a digest of it."""

NAME_CHARS = 256
"""The longest header value that is kept whole as the name of a category."""

OTHER = "other"
"""The category of all names beyond the permitted number."""

OTHER_MODELS = "(other)"
"""The name of all further models in figures."""

UNNAMED = "unnamed"
"""The category of requests whose header names none."""

REPLACED = 4
"""Labels that are replaced for each permitted one, where the series of a replaced label stay."""

_DIGEST_CHARS = 8
_RESERVED = frozenset({OTHER, OTHER_MODELS, UNNAMED})


class ContentClass(enum.Enum):
    """Kinds of prompts whose bytes per token differ more between kinds than within one."""

    PROSE = "prose"
    CODE = "code"
    STRUCTURED = "structured"
    CJK = "cjk"
    SCRIPT = "script"  # other alphabets of two or three bytes a letter: Cyrillic, Arabic, Greek
    MIXED = "mixed"
    MEDIA = "media"  # text of any kind with images, audio or video


# Features count pairs of characters: run starts and pairs within runs add up to all punctuation,
# and to all digits but single ones.
CLASS_SUMS: Final = (
    ("lower", "upper"),  # letters
    ("punct_runs", "punct_punct"),  # punctuation
    ("digit_digit", "space_digit", "punct_digit"),  # digits
    ("greek_cyrillic", "semitic", "latin_accents"),  # of two bytes
    ("han_kana", "hangul", "indic"),  # of three bytes
)
"""The features that tell the class: the arguments of `class_of` are the sums of these."""

_SUMMED: Final = itemgetter(*map(FEATURES.index, chain(*CLASS_SUMS)))


def content_class(features: tuple[float, ...]) -> ContentClass:
    """Classify a prompt by its `features.FEATURES`; an empty one is prose."""
    if features[MEDIA] != NO_MEDIA:
        return ContentClass.MEDIA
    a, b, c, d, e, f, g, h, i, j, k, m, n = _SUMMED(features)
    return class_of(a + b, c + d, e + f + g, h + i + j, k + m + n)


def class_of(
    letters: float, punctuation: float, digits: float, wide2: float, wide3: float
) -> ContentClass:
    """Classify a text by what it consists of, in characters."""
    # In bytes: a wide character costs at least as many tokens as that many ASCII letters.
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
    """Return the category that a header's value names, UNNAMED if the value is blank."""
    return escape_reserved(_cut(value.strip(), NAME_CHARS)) or UNNAMED


@lru_cache(1024)
def escape_reserved(name: str) -> str:
    """Return a client's name with its reserved parts in upper case; slashes separate parts.

    >>> escape_reserved("other/task")
    'OTHER/task'
    """
    return "/".join(part.upper() if part in _RESERVED else part for part in name.split("/"))


@lru_cache(1024)
def label(name: str) -> str:
    """Return the name for people and metrics: printable, at most LABEL_CHARS, one for each name.

    >>> label("prose/Qwen3-模型")
    'prose/Qwen3-模型'
    """
    return _cut(name, LABEL_CHARS)


class Labels:
    """The categories that metrics name, at most `limit` with OTHER, which all others are.

    Only an answer admits one: a client cannot add invented model names, which no pool serves. One
    that is idle makes room for another, as in the estimator's own map of categories.
    """

    def __init__(self, limit: int, replaceable: float = math.inf) -> None:
        """After `replaceable` labels were replaced, those that are left stay."""
        self._names: BoundedMap[str, str] = BoundedMap(limit - 1)
        self._replaceable = replaceable

    def resize(self, limit: int, replaceable: float = math.inf) -> list[str]:
        """Admit so many labels from now on; return those that had to go."""
        self._replaceable = replaceable
        return self._names.resize(limit - 1)

    def known(self, category: str) -> str:
        """Return the label of a category, or OTHER if it is not admitted."""
        return self._names.get(label(category)) or OTHER

    def save(self) -> SavedLabels:
        """Return what is kept in a snapshot."""
        names = [(name, self._names.touched(name)) for name, _ in self._names.items()]
        return SavedLabels(self._names.save(), names)

    def load(self, saved: SavedLabels) -> None:
        """Continue with the labels that were saved."""
        self._names.load(saved.touches)
        for name, touched in saved.names:
            self._names.restore(name, name, touched)

    def admit(self, category: str) -> str | None:
        """Admit the category of an answer if there is room; return the label that it replaced."""
        name = label(category)
        known = self._names.get(name)
        if known or (self._names.has_room(name) and self._names.evicted < self._replaceable):
            return self._names.touch(name, name)
        self._names.pass_by()
        return None


def _cut(name: str, chars: int) -> str:
    """Drop what is not printable, and end a name that changes in a digest of it."""
    printable = "".join(filter(str.isprintable, name))
    if printable == name and len(name) <= chars:
        return name
    digest = blake2b(name.encode(), digest_size=_DIGEST_CHARS // 2).hexdigest()
    return f"{printable[: chars - _DIGEST_CHARS - 1]}~{digest}"
