"""Count cheap features of a text, from which its tokens are estimated.

A table maps every byte to one of 22 character classes and drops UTF-8 continuation bytes, which
leaves one class byte per character. A histogram of adjacent pairs of classes then holds every
feature but two. For example, "ab 12" has the classes lower lower space digit digit, hence one word
start at "a" and one at "1", one digit_digit and one space_digit. The two, `token_starts`, tell what
classes cannot: how common the parts of words are.

Invariant: a feature is a count that grows with the text, never a ratio, so that a linear model of
features is additive over messages and over prompts.
"""

from array import array
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Final, NamedTuple

from extproc.budget.counting import sum_pairs
from extproc.budget.token_starts import count_starts

_LOWER, _UPPER, _DIGIT, _SPACE, _NEWLINE, _TAB, _BRACKET, _PUNCT = range(8)
_LATIN, _CYRILLIC, _SEMITIC, _INDIC, _KANA, _HAN, _HANGUL, _ASTRAL = range(8, 16)
_RARE, _EXTENDED, _VIETNAMESE, _VOWEL, _STAR, _GREEK = range(16, 22)
_CLASSES: Final = 22
# Astral: emoji and everything else that costs a token or more a character, such as controls.
_ASCII: Final = (
    ("\n", _NEWLINE),
    ("\t\r", _TAB),
    (" ", _SPACE),
    ("\"'{}[]():,;", _BRACKET),
    # Rare in English and in code: words that have them are of another language, or names.
    ("jkqz", _RARE),
    ("aeiou", _VOWEL),  # abbreviations and encoded data have fewer of them
    ("*#~+", _STAR),  # often in a row, as ornaments
)
_LEADS: Final = (
    (0xC0, _LATIN),
    (0xC4, _EXTENDED),  # Latin of Central Europe, Turkish and Vietnamese
    (0xC6, _LATIN),  # also IPA and modifiers
    (0xCE, _GREEK),
    (0xD0, _CYRILLIC),
    (0xD7, _SEMITIC),
    (0xE0, _INDIC),  # also Thai
    (0xE1, _VIETNAMESE),  # also Ethiopic, Georgian and Khmer
    (0xE2, _INDIC),  # typographic punctuation
    (0xE3, _KANA),  # also CJK punctuation
    (0xE4, _HAN),
    (0xEA, _HANGUL),
    (0xEF, _KANA),  # full-width forms
    (0xF0, _ASTRAL),
)
_CONTINUATION: Final = bytes(range(0x80, 0xC0))


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
_LOWERS: Final = (_LOWER, _RARE, _VOWEL)
_LETTERS: Final = (*_LOWERS, _UPPER)
_ALNUM: Final = (*_LETTERS, _DIGIT)
_SIGNS: Final = (_PUNCT, _STAR)
_PUNCTS: Final = (_BRACKET, *_SIGNS)
_EVERY: Final = tuple(range(_CLASSES))
_INDICS: Final = (_INDIC, _VIETNAMESE)
_LATINS: Final = (_LATIN, _EXTENDED)
_GREEK_CYRILLIC: Final = (_GREEK, _CYRILLIC)
_NON_ASCII: Final = (*range(_LATIN, _RARE), _EXTENDED, _VIETNAMESE, _GREEK)
_WORDS: Final = (*_LETTERS, *_LATINS, *_GREEK_CYRILLIC, _SEMITIC, _VIETNAMESE)

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
    "indic": ((_EVERY, _INDICS),),
    "semitic": ((_EVERY, (_SEMITIC,)),),
    "greek_cyrillic": ((_EVERY, _GREEK_CYRILLIC),),
    "non_ascii_runs": _starts(_NON_ASCII),
    "latin_accents": ((_EVERY, _LATINS),),
    "lower": ((_EVERY, _LOWERS),),
    "upper": ((_EVERY, (_UPPER,)),),
    "camel_or_mixed": ((_LOWERS, (_UPPER,)), (_LETTERS, (_DIGIT,)), ((_DIGIT,), _LETTERS)),
    "digit_digit": (((_DIGIT,), (_DIGIT,)),),
    "digit_upper": (((_DIGIT,), (_UPPER,)),),
    "space_digit": (((_SPACE,), (_DIGIT,)),),
    "punct_digit": ((_SIGNS, (_DIGIT,)),),
    "space_upper": (((_SPACE,), (_UPPER,)),),
    "upper_punct": (((_UPPER,), _SIGNS),),
    "punct_bracket": ((_SIGNS, (_BRACKET,)),),
    "bracket_punct": (((_BRACKET,), _SIGNS),),
    "bracket_newline": (((_BRACKET,), (_NEWLINE,)),),
    "space_punct": (((_SPACE,), _PUNCTS),),
    "punct_punct": ((_PUNCTS, _PUNCTS),),
    "space_space": (((_SPACE,), (_SPACE,)),),
    "newlines_tabs": ((_EVERY, (_NEWLINE, _TAB)),),
    "newline_runs": _starts((_NEWLINE,)),
    "rare_letters": ((_EVERY, (_RARE,)),),
    "latin_extended": ((_EVERY, (_EXTENDED,)),),
    "vietnamese": ((_EVERY, (_VIETNAMESE,)),),
    "word_typographic": ((_WORDS, (_INDIC,)),),
    "upper_bracket": (((_UPPER,), (_BRACKET,)),),
    "digit_bracket": (((_DIGIT,), (_BRACKET,)),),
    "space_sign": (((_SPACE,), _SIGNS),),
    "newline_sign": (((_NEWLINE,), _SIGNS),),
    "sign_newline": ((_SIGNS, (_NEWLINE,)),),
    "lower_digit": ((_LOWERS, (_DIGIT,)),),
    "vowel_consonant": (((_VOWEL,), (_LOWER, _RARE)),),
    "stars": ((_EVERY, (_STAR,)),),
    "upper_space": (((_UPPER,), (_SPACE,)),),
    "greek": ((_EVERY, (_GREEK,)),),
}
START_FEATURES: Final = ("token_starts", "token_doubts")
"""See `token_starts.count_starts`. They are the last of the features."""
TEXT_FEATURES: Final = (*_FEATURES, *START_FEATURES)
OPTIONAL_FEATURES: Final = (
    "schema",
    "past_reasoning",
    "documents",
    "unused_tools",
    "template_arguments",
)
"""Text that chat templates may drop, in tokens as the prior counts it: the weight is the share of
it that is rendered."""
TEMPLATE_FEATURES: Final = ("request", "messages", "tools", "any_tool")
SIZED_FEATURES: Final = (
    "images",
    "image_patches",
    "image_patches_640",
    "image_patches_1280",
    "image_patches_2560",
    "image_patches_5120",
    "image_patches_1024px",
    "image_tiles",
    "image_anyres",
    "stated_images",
)
"""Images of known size; their patches: all, at most so many of each image, and those of the image
with its longer side shrunk to so many pixels; their tiles; and their tokens as LLaVA-NeXT counts
them. Together they tell models apart that make a fixed number of tokens of an image, cap its area
or its side, or cut it into tiles: a cap between two of these is a mean of both. Images
whose tokens the settings state count as `stated_images` alone."""
UNSIZED_FEATURES: Final = ("unsized_images", "audios", "videos")
"""Media whose size the request does not show: each costs any number of tokens."""
MEDIA_FEATURES: Final = SIZED_FEATURES + UNSIZED_FEATURES
COUNTED_FEATURES: Final = TEMPLATE_FEATURES + MEDIA_FEATURES
OTHER_FEATURES: Final = COUNTED_FEATURES + OPTIONAL_FEATURES
FEATURES: Final = OTHER_FEATURES + TEXT_FEATURES
MEDIA: Final = slice(len(TEMPLATE_FEATURES), len(TEMPLATE_FEATURES + MEDIA_FEATURES))
"""The places of MEDIA_FEATURES in FEATURES."""
OPTIONAL: Final = slice(len(COUNTED_FEATURES), len(OTHER_FEATURES))
"""The places of OPTIONAL_FEATURES."""
NO_MEDIA: Final = (0.0,) * len(MEDIA_FEATURES)
"""What they are without media."""


def _places(classes: Sequence[int]) -> bytes:
    """Return which features each pair of classes counts for: numbers with a bit for each."""
    found = dict.fromkeys(product(classes, classes), 0)
    for place, pairs in enumerate(_FEATURES.values()):
        for firsts, seconds in pairs:
            for pair in found.keys() & product(firsts, seconds):
                found[pair] |= 1 << place
    return array("Q", found.values()).tobytes()


class Alphabet(NamedTuple):
    """Classes of bytes, and which pairs of them the features add up."""

    classes: bytes
    """The class of each byte; one that is not among the pairs is left out."""
    places: bytes
    """Of each pair the bits of those of TEXT_FEATURES that it counts for; see `sum_pairs`."""


def _ascii() -> Alphabet:
    classes = sorted({_CLASS[byte] for byte in range(0x80)})
    table = bytes(classes.index(_CLASS[byte]) for byte in range(0x80)) + bytes([_LEFT_OUT]) * 0x80
    return Alphabet(table, _places(classes))


_LEFT_OUT: Final = 0xFF
EVERY: Final = Alphabet(
    bytes(_LEFT_OUT if byte in _CONTINUATION else _CLASS[byte] for byte in range(256)),
    _places(_EVERY),
)
"""Of UTF-8 text, a class for each character: continuation bytes have none."""
ASCII: Final = _ascii()
"""Of ASCII text, which has so few classes that its counts cost a quarter."""


def text_features(sample: bytes) -> "array[float]":
    """Count `TEXT_FEATURES` in UTF-8 text, as if a newline preceded it."""
    alphabet = ASCII if sample.isascii() else EVERY
    found = array("d", bytes(8 * len(TEXT_FEATURES)))
    sum_pairs(sample, alphabet.classes, alphabet.places, found)
    found[-len(START_FEATURES) :] = array("d", count_starts(sample))
    return found
