"""What a prompt is measured as, and what measures add up to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.features import FEATURES
from extproc.budget.measure import add, measure, prior_tokens, with_optional
from extproc.budget.values import Measure


def value(found: Measure, feature: str) -> float:
    return found.features[FEATURES.index(feature)]


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
    whole, sampled = prior_tokens(len(text), text), prior_tokens(len(text), text[:350])
    assert whole == pytest.approx(len(text) / 4.4, rel=0.2)
    assert sampled == pytest.approx(whole, rel=0.02)
    assert prior_tokens(0, b"") == 0.0


def test_measures_add_up():
    one, other = measure(b"the owl", 7, messages=1), measure(b"1 2 3", 10, messages=2)
    both = add(one, other, 3)
    assert both.text_bytes == 7 + 30
    assert both.unseen == 0.405  # half of 30 bytes of 37, in thousandths
    assert both.features[FEATURES.index("messages")] == 1 + 6
    assert add(Measure(0, 2), Measure(0, 3), 2) == Measure(0, 8)


def test_of_no_text_nothing_is_unseen() -> None:
    assert measure(b"", 0, messages=1).unseen == 0.0
