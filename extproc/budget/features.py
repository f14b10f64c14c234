"""Count cheap features of a text, from which its tokens are estimated.

A table maps every byte to one of 16 character classes and drops UTF-8 continuation bytes, which
leaves one class byte per character. A histogram of adjacent pairs of classes then holds every
feature. For example, "ab 12" has the classes lower lower space digit digit, hence one word start
at "a" and one at "1", one digit_digit and one space_digit.

Invariant: a feature is a count that grows with the text, never a ratio, so that a linear model of
features is additive over messages and over prompts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extproc.budget.values import Measure

_LOWER, _UPPER, _DIGIT, _SPACE, _NEWLINE, _TAB, _BRACKET, _PUNCT = range(8)
_LATIN, _GREEK_CYRILLIC, _SEMITIC, _INDIC, _KANA, _HAN, _HANGUL, _ASTRAL = range(8, 16)
# Astral: emoji and everything else that costs a token or more a character, such as controls.
_ASCII: Final = (("\n", _NEWLINE), ("\t\r", _TAB), (" ", _SPACE), ("\"'{}[]():,;", _BRACKET))
_LEADS: Final = (
    (0xC0, _LATIN),  # also IPA and modifiers
    (0xCE, _GREEK_CYRILLIC),
    (0xD7, _SEMITIC),
    (0xE0, _INDIC),  # also Thai, Ethiopic, Georgian and (E2) typographic punctuation
    (0xE3, _KANA),  # also CJK punctuation
    (0xE4, _HAN),
    (0xEA, _HANGUL),
    (0xEF, _KANA),  # full-width forms
    (0xF0, _ASTRAL),
)
_CONTINUATION: Final = bytes(range(0x80, 0xC0))

_UNKNOWN_PIXELS: Final = 1 << 20
PIXELS_PER_PATCH: Final = 784
"""28 x 28 pixels, the merged patch of the Qwen-VL family; other models learn another weight."""


def _ascii_class(byte: int) -> int:
    char = chr(byte)
    for chars, found in _ASCII:
        if char in chars:
            return found
    if char.isalpha():
        return _LOWER if char.islower() else _UPPER
    if not char.isprintable():
        return _ASTRAL
    return _DIGIT if char.isdigit() else _PUNCT


def _class_table() -> bytes:
    table = bytearray(256)
    table[:0x80] = bytes(_ascii_class(byte) for byte in range(0x80))
    for first, found in _LEADS:
        table[first:] = bytes([found]) * (256 - first)
    return bytes(table)


_CLASS: Final = _class_table()
_LETTERS, _ALNUM, _PUNCTS = (_LOWER, _UPPER), (_LOWER, _UPPER, _DIGIT), (_BRACKET, _PUNCT)
_EVERY: Final = tuple(range(16))
_NON_ASCII: Final = tuple(range(_LATIN, 16))

_Pairs = tuple[tuple[Iterable[int], Iterable[int]], ...]


def _starts(group: Sequence[int]) -> _Pairs:
    return ((tuple(k for k in _EVERY if k not in group), group),)


# name -> the pairs of (first classes, second classes) that it counts
_FEATURES: Final[dict[str, _Pairs]] = {
    "words": _starts(_ALNUM),
    "punct_runs": _starts(_PUNCTS),
    "han_kana": ((_EVERY, (_HAN, _KANA)),),
    "kana": ((_EVERY, (_KANA,)),),
    "hangul": ((_EVERY, (_HANGUL,)),),
    "astral": ((_EVERY, (_ASTRAL,)),),
    "indic": ((_EVERY, (_INDIC,)),),
    "semitic": ((_EVERY, (_SEMITIC,)),),
    "greek_cyrillic": ((_EVERY, (_GREEK_CYRILLIC,)),),
    "non_ascii_runs": _starts(_NON_ASCII),
    "latin_accents": ((_EVERY, (_LATIN,)),),
    "lower": ((_EVERY, (_LOWER,)),),
    "upper": ((_EVERY, (_UPPER,)),),
    "camel_or_mixed": (((_LOWER,), (_UPPER,)), (_LETTERS, (_DIGIT,)), ((_DIGIT,), _LETTERS)),
    "digit_digit": (((_DIGIT,), (_DIGIT,)),),
    "digit_upper": (((_DIGIT,), (_UPPER,)),),
    "space_digit": (((_SPACE,), (_DIGIT,)),),
    "punct_digit": (((_PUNCT,), (_DIGIT,)),),
    "space_upper": (((_SPACE,), (_UPPER,)),),
    "upper_punct": (((_UPPER,), (_PUNCT,)),),
    "punct_bracket": (((_PUNCT,), (_BRACKET,)),),
    "bracket_punct": (((_BRACKET,), (_PUNCT,)),),
    "bracket_newline": (((_BRACKET,), (_NEWLINE,)),),
    "space_punct": (((_SPACE,), _PUNCTS),),
    "punct_punct": ((_PUNCTS, _PUNCTS),),
    "space_space": (((_SPACE,), (_SPACE,)),),
    "newlines_tabs": ((_EVERY, (_NEWLINE, _TAB)),),
    "newline_runs": _starts((_NEWLINE,)),
}
TEXT_FEATURES: Final = tuple(_FEATURES)
OPTIONAL_FEATURES: Final = (
    "schema",
    "past_reasoning",
    "documents",
    "unused_tools",
    "template_arguments",
)
"""Text that chat templates may drop, in tokens as the prior counts it: the weight is the share of
it that is rendered."""
COUNTED_FEATURES: Final = ("request", "messages", "tools", "any_tool", "images", "image_patches")
OTHER_FEATURES: Final = COUNTED_FEATURES + OPTIONAL_FEATURES
FEATURES: Final = OTHER_FEATURES + TEXT_FEATURES


def _selection() -> NDArray[np.float64]:
    chosen = np.zeros((256, len(TEXT_FEATURES)))
    for column, pairs in enumerate(_FEATURES.values()):
        for firsts, seconds in pairs:
            for first in firsts:
                for second in seconds:
                    chosen[first << 4 | second, column] = 1.0
    return chosen


_SELECT: Final = _selection()


def text_features(sample: bytes) -> NDArray[np.float64]:
    """Count `TEXT_FEATURES` in UTF-8 text, as if a newline preceded it."""
    classes = np.frombuffer(b"\x04" + sample.translate(_CLASS, _CONTINUATION), np.uint8)
    pairs = np.bincount((classes[:-1] << 4) | classes[1:], minlength=256)
    return np.asarray(pairs @ _SELECT)


def measure(
    sample: bytes,
    text_bytes: int,
    *,
    messages: int,
    prompts: int = 1,
    tools: int = 0,
    images: Sequence[tuple[int, int]] = (),
) -> Measure:
    """Measure a prompt, or several together, by a UTF-8 sample of its `text_bytes` of text.

    `images` are (width, height) in pixels, (0, 0) if unknown. A sample should consist of many short
    pieces: a few long ones miss parts of a mixed prompt.
    """
    scale = max(text_bytes / len(sample), 1.0) if sample else 1.0
    text = text_features(sample)
    if scale > 1.0:
        # Rounded to a tenth: the note carries it as text, and no estimate needs more digits.
        text = np.rint(text * (10.0 * scale)) / 10.0
    patches = sum([w * h or _UNKNOWN_PIXELS for w, h in images]) / PIXELS_PER_PATCH
    any_tool = 1.0 if tools else 0.0
    counts = [float(count) for count in (prompts, messages, tools)]
    none = [0.0] * len(OPTIONAL_FEATURES)
    other = (*counts, any_tool, float(len(images)), round(patches, 1), *none)
    features = (*other, *text.tolist())
    return Measure(text_bytes, features=features, unseen=round(1.0 - 1.0 / scale, 3))


def add(first: Measure, second: Measure, times: int) -> Measure:
    """Return the measure of `first` and of `times` copies of `second` together."""
    text_bytes = first.text_bytes + times * second.text_bytes
    unseen = first.unseen * first.text_bytes + times * second.unseen * second.text_bytes
    pairs = zip(first.features, second.features, strict=True)
    return Measure(
        text_bytes,
        first.token_ids + times * second.token_ids,
        tuple(one + times * other for one, other in pairs),
        round(unseen / text_bytes, 3) if text_bytes else 0.0,
    )


def with_optional(measure: Measure, tokens: Mapping[str, float]) -> Measure:
    """Add text that templates may drop, as tokens by the names of OPTIONAL_FEATURES."""
    if not tokens:
        return measure
    start, end = len(COUNTED_FEATURES), len(OTHER_FEATURES)
    optional = [round(tokens.get(name, 0.0), 1) for name in OPTIONAL_FEATURES]
    counted, text = measure.features[:start], measure.features[end:]
    return replace(measure, features=(*counted, *optional, *text))
