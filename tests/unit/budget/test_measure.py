"""What a prompt is measured as, and what measures add up to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.features import FEATURES, MEDIA_FEATURES
from extproc.budget.measure import add, measure, measure_media, prior_tokens, with_optional
from extproc.budget.values import Measure
from extproc.evaluation.images import llava_next


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


def counted(*args, **kwargs) -> dict[str, float]:
    found = zip(MEDIA_FEATURES, measure_media(*args, **kwargs), strict=True)
    return {name: count for name, count in found if count}


def test_media_of_unknown_size_are_counted_by_their_kind() -> None:
    found = counted([(0, 0), (0, 0)], audios=3, videos=4)
    assert found == {"unsized_images": 2, "audios": 3, "videos": 4}
    assert counted([]) == {}


def test_an_image_counts_in_patches_that_are_capped_or_shrunk() -> None:
    assert counted([(56, 28), (2048, 1024)]) == {
        "images": 2,
        "image_patches": pytest.approx(2 + 2674.9, abs=0.1),
        "image_patches_640": 642,
        "image_patches_1280": 1282,
        "image_patches_2560": 2562,
        "image_patches_5120": pytest.approx(2 + 2674.9, abs=0.1),
        "image_patches_1024px": pytest.approx(2 + 2674.9 / 4, abs=0.1),
        "image_tiles": 3 + 9,  # at most 12, with two columns for each row: 4 x 2, and the whole
        "image_anyres": 876 + 1752,  # tested below
    }


@pytest.mark.parametrize(
    ("size", "tiles"),
    [
        ((100, 100), 1),
        ((448, 448), 1),
        ((640, 640), 5),  # fills two tiles of the four
        ((4000, 4000), 10),
        ((1920, 1080), 9),
        ((4032, 3024), 13),
        ((10_000, 10), 13),
        ((10, 10_000), 13),
    ],
)
def test_an_image_is_cut_into_tiles_near_its_aspect_ratio(size, tiles) -> None:
    assert counted([size])["image_tiles"] == tiles


@pytest.mark.parametrize(
    "size", [(56, 28), (2048, 1024), (100, 4000), (4000, 100), (640, 480), (672, 672), (800, 2400)]
)
def test_an_image_has_the_tokens_that_llava_next_makes_of_it(size) -> None:
    assert counted([size])["image_anyres"] == llava_next(*size)


def test_an_image_is_shrunk_to_the_area_of_the_model() -> None:
    assert counted([(4000, 3000)], max_pixels=480_000) == counted([(800, 600)])
    assert counted([(800, 600)], max_pixels=1 << 30) == counted([(800, 600)])


def test_images_of_stated_tokens_are_counted_alone() -> None:
    assert counted([], stated=3) == {"stated_images": 3}


def test_media_are_part_of_the_measure() -> None:
    found = measure(b"", 0, messages=1, media=measure_media([(28, 28)], videos=2))
    assert [value(found, name) for name in ("images", "image_patches", "videos")] == [1, 1, 2]


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
