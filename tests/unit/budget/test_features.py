"""What the features of a prompt count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.counting import sum_pairs
from extproc.budget.features import (
    ASCII,
    EVERY,
    START_FEATURES,
    TEXT_FEATURES,
    text_features,
)
from extproc.budget.token_starts import count_starts


def count(text: str, feature: str) -> float:
    return float(text_features(text.encode())[TEXT_FEATURES.index(feature)])


@pytest.mark.parametrize(
    ("text", "feature", "expected"),
    [
        ("one two, three4", "words", 3),
        ("a.b..c", "punct_runs", 2),
        ("a.b..c", "punct_punct", 1),
        ("camelCase v2x", "camel_or_mixed", 3),
        ("12345", "digit_digit", 4),
        ("a\n\nb\tc", "newlines_tabs", 3),
        ("a\n\nb\n", "newline_runs", 2),
        ("漢字かな", "han_kana", 4),
        ("漢字かな", "kana", 2),
        ("мир труд", "greek_cyrillic", 7),
        ("мир, 漢字", "non_ascii_runs", 2),
        ("한글", "hangul", 2),
        ("नमस्ते", "indic", 6),
        ("سلام", "semitic", 4),
        ("é", "latin_accents", 1),
        ("🙂\x00", "astral", 2),
        ("    x", "space_space", 3),
        ("a B (.c.)", "space_upper", 1),
        ("NO.", "upper_punct", 1),
        ("(.c.)", "punct_bracket", 1),
        ("(.c.)", "bracket_punct", 1),
        ("{\n}\n", "bracket_newline", 2),
        ("word", "words", 1),
        ("jazz kiosk", "rare_letters", 5),
        ("jazz kiosk", "lower", 9),
        ("jazz kiosk", "words", 2),
        ("kA", "camel_or_mixed", 1),
        ("ščěé", "latin_extended", 3),
        ("ščěé", "latin_accents", 4),
        ("Việt ở", "vietnamese", 2),
        ("Việt ở", "indic", 2),
        ("it’s “so”", "word_typographic", 2),
        ("F(A]", "upper_bracket", 2),
        ("[1]", "digit_bracket", 1),
        ("a -b (c", "space_sign", 1),
        ("a\n#b\n- c", "newline_sign", 2),
        ("a;\nb!\n", "sign_newline", 1),
        ("a1 k2 3", "lower_digit", 2),
        ("owls at noon", "vowel_consonant", 3),
        ("owls at noon", "lower", 10),
        ("*** a+b", "stars", 4),
        ("*** a+b", "punct_runs", 2),
        ("NO way, I", "upper_space", 1),
        ("σοφία мир", "greek", 5),
        ("σοφία мир", "greek_cyrillic", 8),
    ],
)
def test_a_feature_counts(text: str, feature: str, expected: float) -> None:
    assert count(text, feature) == expected


def test_the_last_features_count_where_tokens_begin() -> None:
    sample = "The owl sat still. Сова сидела.".encode()
    assert TEXT_FEATURES[-len(START_FEATURES) :] == START_FEATURES
    assert tuple(text_features(sample)[-len(START_FEATURES) :].tolist()) == count_starts(sample)


@given(st.text(min_size=1))
def test_no_text_is_without_a_feature_but_single_spaces(text: str) -> None:
    seen = text.strip(" ")
    assert not seen or sum(text_features(text.encode())) > 0


@given(st.text(st.characters(max_codepoint=0x7F)))
def test_ascii_counts_as_all_text_does(text):
    found = []
    for alphabet in (ASCII, EVERY):
        sums = np.zeros(len(TEXT_FEATURES))
        sum_pairs(text.encode(), alphabet.classes, alphabet.places, sums)
        found.append(sums.tolist())
    assert found[0] == found[1]
