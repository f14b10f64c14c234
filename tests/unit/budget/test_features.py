"""What the features of a prompt count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.features import (
    FEATURES,
    TEXT_FEATURES,
    add,
    measure,
    text_features,
    with_optional,
)
from extproc.budget.prior import prior_tokens
from extproc.budget.values import Measure


def count(text: str, feature: str) -> float:
    return float(text_features(text.encode())[TEXT_FEATURES.index(feature)])


def value(found: Measure, feature: str) -> float:
    return found.features[FEATURES.index(feature)]


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
    ],
)
def test_a_feature_counts(text: str, feature: str, expected: float) -> None:
    assert count(text, feature) == expected


@given(st.text(min_size=1))
def test_no_text_is_without_a_feature_but_single_spaces(text: str) -> None:
    seen = text.strip(" ")
    assert not seen or text_features(text.encode()).sum() > 0


@given(st.binary())
def test_any_bytes_can_be_measured(sample: bytes) -> None:
    assert all(f >= 0 for f in measure(sample, len(sample), messages=1).features)


def test_a_sample_is_scaled_to_the_text() -> None:
    half = measure(b"one two " * 100, 1600, messages=1)
    assert value(half, "words") == 400
    assert half.unseen == 0.5


def test_messages_and_tools_are_not_scaled() -> None:
    found = measure(b"x" * 100, 1000, messages=3, tools=2)
    assert [value(found, f) for f in ("request", "messages", "tools", "any_tool")] == [1, 3, 2, 1]


def test_an_image_of_unknown_size_counts_as_a_megapixel() -> None:
    known = measure(b"", 0, messages=1, images=[(1024, 1024)])
    assert known == measure(b"", 0, messages=1, images=[(0, 0)])


def test_text_that_may_be_dropped_has_features_of_its_own():
    plain = measure(b"the owl", 7, messages=1)
    found = with_optional(plain, {"schema": 40.26, "documents": 3.0})
    changed = {FEATURES[i]: new for i, new in enumerate(found.features) if new != plain.features[i]}
    assert changed == {"schema": 40.3, "documents": 3.0}
    assert with_optional(plain, {}) is plain


def test_the_prior_counts_a_text_by_a_sample_of_it():
    text = b"The owl sat still in the old barn. " * 40
    whole, sampled = prior_tokens(text, len(text)), prior_tokens(text[:350], len(text))
    assert whole == pytest.approx(len(text) / 4.4, rel=0.2)
    assert sampled == pytest.approx(whole, rel=0.02)
    assert prior_tokens(b"", 0) == 0.0


def test_measures_add_up():
    one, other = measure(b"the owl", 7, messages=1), measure(b"1 2 3", 10, messages=2)
    both = add(one, other, 3)
    assert both.text_bytes == 7 + 30
    assert both.unseen == pytest.approx(0.5 * 30 / 37, abs=0.001)
    assert both.features[FEATURES.index("messages")] == 1 + 6
    assert add(Measure(0, 2), Measure(0, 3), 2) == Measure(0, 8)
