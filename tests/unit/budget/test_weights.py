"""Prompt tokens as a linear function, and what cannot move it."""

import math
import random
from collections.abc import Callable

import pytest

from extproc.budget.measure import measure, measure_media, with_optional
from extproc.budget.prior import MEASURED
from extproc.budget.values import Measure
from extproc.budget.weights import BAND, BAND_TOKENS, TokenWeights, oddity
from extproc.evaluation.images import llava_next

PROSE = b"The pool that is chosen holds the prompt and what is answered. "


def prompt(words: int) -> Measure:
    text = (PROSE * (words // 12 + 1))[: words * 5]
    return measure(text, len(text), messages=1)


def taught(ratio: float, answers: int = 100, seed: int = 1) -> TokenWeights:
    """A filter that has seen prompts of `ratio` tokens a byte and a template of 30 tokens."""
    weights, draw = TokenWeights(MEASURED), random.Random(seed)
    for _ in range(answers):
        asked = prompt(draw.randint(20, 3000))
        weights.learn(asked, asked.text_bytes * ratio + 30)
    return weights


def error(weights: TokenWeights, ratio: float, words: int = 2000) -> float:
    asked = prompt(words)
    return weights.predict(asked).tokens / (asked.text_bytes * ratio + 30) - 1


@pytest.mark.parametrize("ratio", [0.2, 0.25, 0.4])
def test_fifty_answers_teach_a_ratio(ratio: float) -> None:
    assert abs(error(taught(ratio, 50), ratio)) < 0.02


def test_the_template_is_learnt_apart() -> None:
    weights = taught(0.25)
    assert abs(error(weights, 0.25, words=20)) < 0.15


def test_short_prompts_do_not_move_long_ones() -> None:
    weights, before = taught(0.25), error(taught(0.25), 0.25)
    for _ in range(1000):
        weights.learn(measure(b"hi", 2, messages=1), 31)
    assert abs(error(weights, 0.25) - before) < 0.01


def test_a_template_that_varies_by_tokens_is_no_other_model() -> None:
    weights, asked = taught(0.25), prompt(2000)
    before = weights.predict(asked).deviation
    for answer in range(1000):
        weights.learn(measure(b"hi", 2, messages=1), 27 + answer % 2 * 8)
    assert weights.predict(asked).deviation < 1.1 * before


def test_one_lie_in_a_hundred_moves_little() -> None:
    weights = taught(0.25)
    for answer in range(1000):
        asked = prompt(500 + answer)
        truth = asked.text_bytes * 0.25 + 30
        weights.learn(asked, truth * 4.9 if answer % 100 == 99 else truth)
    assert abs(error(weights, 0.25)) < 0.01


def test_one_answer_moves_a_prediction_by_few_deviations() -> None:
    weights, asked = taught(0.25), prompt(2000)
    before = weights.predict(asked)
    weights.learn(asked, before.tokens * 4)
    assert weights.predict(asked).tokens - before.tokens < 4 * before.deviation


def test_the_band_around_the_prior_holds_whatever_is_taught() -> None:
    weights, fresh, asked = TokenWeights(MEASURED), TokenWeights(MEASURED), prompt(2000)
    for _ in range(2000):
        weights.learn(asked, 1_000_000)
    bound = fresh.predict(asked).tokens * BAND + BAND_TOKENS
    assert weights.predict(asked).tokens == pytest.approx(bound)


def test_another_tokenizer_is_learnt_in_fifty_answers() -> None:
    weights, draw = taught(0.25, 2000), random.Random(3)
    for _ in range(50):
        asked = prompt(draw.randint(20, 3000))
        weights.learn(asked, asked.text_bytes * 0.35 + 30)
    assert abs(error(weights, 0.35)) < 0.03


def test_evidence_narrows_the_deviation() -> None:
    asked = prompt(2000)
    assert (
        taught(0.25).predict(asked).deviation < TokenWeights(MEASURED).predict(asked).deviation / 3
    )


def test_errors_even_out_over_a_long_text() -> None:
    weights = taught(0.25, answers=1000)
    short, long = (relative_deviation(weights, prompt(words)) for words in (300, 30_000))
    assert long < 0.6 * short


def test_a_text_unlike_all_taught_is_less_certain() -> None:
    weights = taught(0.25)
    asked, digits = prompt(2000), measure(b"0123456789" * 1000, 10_000, messages=1)
    known, unknown = weights.predict(asked), weights.predict(digits)
    assert unknown.deviation / unknown.tokens > 3 * known.deviation / known.tokens


@pytest.mark.parametrize(
    ("share", "plausible"), [(0.01, False), (0.5, True), (2, True), (20, False)]
)
def test_a_count_that_no_tokenizer_has_is_not_plausible(share: float, plausible: bool) -> None:
    weights, asked = TokenWeights(MEASURED), prompt(8000)
    assert weights.plausible(asked, weights.predict(asked).tokens * share) is plausible


@pytest.mark.parametrize(("words", "off"), [(2000, 1.5), (40, 2.0), (4, 0.5), (2000, 100.0)])
def test_a_surprise_is_an_error_beyond_what_templates_differ_by(words: int, off: float) -> None:
    weights, asked = taught(0.25), prompt(words)
    before, found = weights.surprise, weights.predict(asked)
    weights.learn(asked, found.tokens + off * found.deviation)
    informative = 1 / (1 + (100 / found.tokens) ** 2)
    odd = min(off**2 / (1 + (12 / found.deviation) ** 2), 16)
    assert weights.surprise == pytest.approx(before + 0.03 * informative * (odd - before))


def test_an_implausible_count_is_beyond_five_priors_and_a_template() -> None:
    weights, asked = TokenWeights(MEASURED), prompt(2000)
    prior = weights.predict(asked).tokens
    assert weights.plausible(asked, prior * 5 + 4000)
    assert not weights.plausible(asked, prior * 5 + 4001)
    assert weights.plausible(asked, prior / 5 - 200)
    assert not weights.plausible(asked, prior / 5 - 201)


def test_text_that_may_be_dropped_is_plausible_whole_and_not_at_all() -> None:
    weights, plain = TokenWeights(MEASURED), prompt(2000)
    asked = with_optional(plain, {"schema": 10_000.0})
    least = weights.predict(plain).tokens
    assert weights.plausible(asked, (least + 10_000) * 5 + 4000)
    assert not weights.plausible(asked, (least + 10_000) * 5 + 4001)
    assert weights.plausible(asked, least / 5 - 200)


def test_a_copy_learns_apart() -> None:
    weights, asked = taught(0.25), prompt(2000)
    twin, before = weights.copy(), weights.predict(asked)
    for _ in range(50):
        twin.learn(asked, 1.5 * before.tokens)
    assert weights.predict(asked) == before
    assert twin.predict(asked).tokens == pytest.approx(1.5 * before.tokens, rel=0.05)


def test_the_oddity_of_a_short_prompt_is_less() -> None:
    assert oddity(4.0, 1200.0) == pytest.approx(16.0, rel=1e-3)
    assert oddity(4.0, 12.0) == 8.0


def image_prompt(
    draw: random.Random, tokens_of: Callable[[int, int], float]
) -> tuple[Measure, float]:
    """A prompt of text and one to four images of common sizes, and its tokens."""
    text = PROSE * draw.randint(1, 60)
    sizes = [draw.choice(SIZES) for _ in range(draw.randint(1, 4))]
    asked = measure(text, len(text), messages=1, media=measure_media(sizes))
    return asked, len(text) * 0.22 + 20 + sum(tokens_of(*size) for size in sizes)


SIZES = [(1920, 1080), (4032, 3024), (1024, 1024), (512, 512), (1240, 1754), (640, 480), (224, 224)]


def capped_patches(most: int) -> Callable[[int, int], float]:
    """Qwen2-VL with max_pixels of so many patches, but for rounding."""
    return lambda width, height: min(width * height / 784, most) + 2


def side_patches(width: int, height: int) -> float:
    """Pixtral: patches of 16 pixels of an image of at most 1024 a side, and a sign for each row."""
    scale = min(1024 / max(width, height), 1.0)
    columns, rows = (math.ceil(side * scale / 16) for side in (width, height))
    return columns * rows + rows


def tiles(width: int, height: int) -> float:
    """InternVL 2.5: 256 tokens for each tile."""
    cut = {(1920, 1080): 9, (4032, 3024): 13, (1024, 1024): 10, (512, 512): 5}
    more = {(1240, 1754): 7, (640, 480): 13, (224, 224): 1}
    return 256 * (cut | more)[width, height] + 2


@pytest.mark.parametrize(
    "tokens_of",
    [lambda *_: 260, lambda *_: 576, lambda *_: 1, side_patches, tiles, llava_next,
     *(capped_patches(most) for most in (512, 1280, 4096, 16_384))],
    ids=["gemma-3", "llava", "mllama", "pixtral", "internvl", "llava-next",
         "qwen2-vl-512", "qwen2-vl-1280", "qwen2-vl-4096", "qwen2-vl"],
)  # fmt: skip
def test_what_an_image_costs_is_learnt(tokens_of: Callable[[int, int], float]) -> None:
    weights, draw = TokenWeights(MEASURED), random.Random(4)
    for _ in range(300):
        weights.learn(*image_prompt(draw, tokens_of))
    seen = [image_prompt(draw, tokens_of) for _ in range(100)]
    errors = [abs(weights.predict(asked).tokens / tokens - 1) for asked, tokens in seen]
    assert sorted(errors)[90] < 0.05
    assert weights.surprise < 2


def linked(**media: int) -> Measure:
    sizes = [(0, 0)] * media.pop("images", 0)
    return measure(PROSE, len(PROSE), messages=1, media=measure_media(sizes, **media))


@pytest.mark.parametrize("media", [{"images": 1}, {"audios": 1}, {"videos": 1}, {"stated": 1}])
@pytest.mark.parametrize("tokens", [-500, 0, 30, 10**6])
def test_any_count_is_plausible_with_media(media: dict[str, int], tokens: int) -> None:
    assert TokenWeights(MEASURED).plausible(linked(**media), tokens)


def test_media_cost_more_than_any_text() -> None:
    weights = TokenWeights(MEASURED)
    for _ in range(200):
        weights.learn(linked(videos=1), 120_000)
    assert weights.predict(linked(videos=1)).tokens == pytest.approx(120_000, rel=0.02)


def relative_deviation(weights: TokenWeights, asked: Measure) -> float:
    found = weights.predict(asked)
    return found.deviation / found.tokens


def test_media_of_unknown_size_stay_uncertain_if_their_tokens_vary() -> None:
    weights, draw = TokenWeights(MEASURED), random.Random(5)
    for _ in range(500):
        weights.learn(linked(images=1), min(draw.lognormvariate(6.5, 1.2), 16_384) + 25)
    assert relative_deviation(weights, linked(images=1)) > 0.6
    assert weights.surprise < 2


def test_media_of_unknown_size_become_certain_if_they_cost_the_same() -> None:
    weights = TokenWeights(MEASURED)
    for _ in range(500):
        weights.learn(linked(images=1), 281)
    assert relative_deviation(weights, linked(images=1)) < 0.05


def test_what_images_vary_by_does_not_blur_text() -> None:
    weights, other, draw = taught(0.25), taught(0.25), random.Random(6)
    for _ in range(200):
        weights.learn(linked(images=1), draw.choice((30, 4000)))
    found, before = (each.predict(prompt(2000)) for each in (weights, other))
    assert found.tokens == pytest.approx(before.tokens, rel=0.02)
    assert found.deviation < 1.2 * before.deviation


def test_media_never_lower_a_prediction() -> None:
    weights, plain = TokenWeights(MEASURED), measure(PROSE, len(PROSE), messages=1)
    for _ in range(50):
        weights.learn(linked(stated=1), -500)
    assert weights.predict(linked(stated=9)).tokens == weights.predict(plain).tokens
