"""What hostile or broken answers cannot do to the estimates: each fact fails without its guard.

Honest prompts cost 1 token for 4.4 bytes and 25 for the template. An attack teaches between honest
answers; what follows is measured on honest prompts.
"""

import math
import random
from collections.abc import Callable, Iterator
from functools import cache

import pytest
from msgspec.structs import replace

from extproc.budget.calibrated import Calibrated
from extproc.budget.prior import MEASURED
from extproc.budget.steering import FLOOR
from extproc.budget.values import Asked, Observation, Outcome
from tests.support.prose import prose

# Tens of thousands of answers, of which no line is covered here alone.
pytestmark = pytest.mark.no_cover

LIMIT = 2048
SIZES = (40, 150, 500, 1200, 2500)  # words

Lie = Callable[[Observation], Observation]


def asked(words: int, output: int | None = 256, category: str = "prose") -> Asked:
    return Asked("m", category, prose(words), output)


def truth(request: Asked, completion: int = 100) -> Observation:
    tokens = int(request.measure.text_bytes / 4.4) + 25
    return Observation(request, Outcome.COMPLETE, LIMIT, tokens, completion)


def honest(answers: int, output: int | None = 256, seed: int = 1) -> Iterator[Observation]:
    draw = random.Random(seed)
    for _ in range(answers):
        request = asked(draw.randint(5, 3000), output)
        yield truth(request, int(math.exp(draw.uniform(3.0, 7.0))))


def taught(answers: int = 400, output: int | None = 256) -> Calibrated:
    calibrated = Calibrated(MEASURED, (LIMIT,), target=0.001, categories=64)
    for observation in honest(answers, output):
        calibrated.observe(observation)
    return calibrated


def attacked(share: float, lie: Lie, answers: int = 1000) -> Calibrated:
    calibrated, draw = taught(), random.Random(2)
    for observation in honest(answers, seed=3):
        calibrated.observe(lie(observation) if draw.random() < share else observation)
    return calibrated


def worst_error(calibrated: Calibrated) -> float:
    """The largest relative error over prompts of all sizes, beyond three tokens."""
    found = [(calibrated.budget(asked(n)), truth(asked(n))) for n in SIZES]
    return max((abs(b.prompt_tokens - t.prompt_tokens) - 3) / t.prompt_tokens for b, t in found)


def level(calibrated: Calibrated) -> float:
    return float(calibrated.learnt().limits[str(LIMIT)]["risk_level"])


def times(factor: float) -> Lie:
    return lambda seen: replace(seen, prompt_tokens=max(1, int(seen.prompt_tokens * factor)))


def says(tokens: int) -> Lie:
    return lambda seen: replace(seen, prompt_tokens=tokens)


@pytest.mark.parametrize(
    "lie", [times(4.9), times(10), times(2), times(0.5), times(0.22), says(90_000), says(1)]
)
def test_one_answer_in_a_hundred_that_lies_moves_no_estimate_by_2_percent(lie: Lie) -> None:
    assert worst_error(attacked(0.01, lie)) < 0.02


def test_one_answer_in_ten_without_its_cached_tokens_moves_no_estimate_by_5_percent() -> None:
    assert worst_error(attacked(0.10, times(0.25))) < 0.05


def test_one_lie_moves_an_estimate_by_4_deviations_at_most() -> None:
    calibrated, request = taught(60), asked(1500)
    before = calibrated.budget(request).prompt_tokens
    calibrated.observe(times(4.5)(truth(request)))
    assert calibrated.budget(request).prompt_tokens < before * 1.12


def test_a_thousand_short_prompts_move_no_long_one() -> None:
    calibrated, request = taught(), asked(0)
    deviation = calibrated._models.get("m").member.weights.predict(asked(2500).measure).deviation
    for answer in range(1000):
        calibrated.observe(replace(truth(request), prompt_tokens=25 + answer % 2 * 14))
    found = calibrated._models.get("m").member.weights.predict(asked(2500).measure)
    assert found.tokens == pytest.approx(truth(asked(2500)).prompt_tokens, rel=0.01)
    assert found.deviation < 1.1 * deviation


def test_whatever_is_taught_an_estimate_stays_in_the_band_around_the_prior() -> None:
    fresh, calibrated = taught(0), attacked(1.0, times(4.5), 3000)
    bound = fresh.budget(asked(2500)).prompt_tokens * 2.5 + 1000
    assert calibrated.budget(asked(2500)).prompt_tokens <= bound + 1


@pytest.mark.parametrize(
    ("words", "prompt", "completion"),
    [(5, 0, 1), (5, -30, 1), (5, 1 << 40, 1), (5, 30, -1), (5, 30, 1 << 40), (2500, 100, 1),
     (2500, 90_000, 1), (2500, 1 << 30, 1)],
)  # fmt: skip
def test_counts_that_no_tokenizer_gives_teach_nothing(
    words: int, prompt: int, completion: int
) -> None:
    calibrated = taught()
    before = calibrated.learnt()
    lie = replace(truth(asked(words)), prompt_tokens=prompt, completion_tokens=completion)
    calibrated.observe(lie)
    assert calibrated.learnt() == before


def test_answers_cut_after_one_token_do_not_shrink_the_reserve() -> None:
    calibrated = taught(output=None)
    before = calibrated.budget(asked(500, None)).output_tokens
    for seen in honest(500, output=None, seed=4):
        calibrated.observe(replace(seen, outcome=Outcome.CUT, completion_tokens=1))
    assert calibrated.budget(asked(500, None)).output_tokens >= 0.9 * before


def test_lies_that_look_safe_use_up_half_of_the_risk_at_most() -> None:
    calibrated = attacked(0.02, times(4.9), 3000)
    assert level(calibrated) > 2 * FLOOR
    assert calibrated.budget(asked(800)).tokens < LIMIT


def test_refusals_without_end_leave_short_prompts_in_the_short_pool() -> None:
    calibrated = taught()
    for _ in range(3000):
        calibrated.observe(Observation(asked(1400), Outcome.REFUSED, LIMIT))
    assert level(calibrated) >= FLOOR
    assert calibrated.budget(asked(500)).tokens < LIMIT


def test_a_category_that_lies_does_not_widen_another_categorys_margin() -> None:
    calibrated = taught()
    before = calibrated.budget(asked(1200)).margin_tokens
    for seen in honest(20, seed=5):
        lie = replace(times(4)(seen), asked=replace(seen.asked, category="liar"))
        calibrated.observe(lie)
        for further in honest(10, seed=6):
            calibrated.observe(further)
    assert calibrated.budget(asked(1200)).margin_tokens < 1.5 * before + 20


def test_a_category_nobody_has_seen_is_estimated_by_what_its_model_has_learnt() -> None:
    calibrated = taught()
    new = calibrated.budget(asked(1200, category="new"))
    assert new.prompt_tokens == calibrated.budget(asked(1200)).prompt_tokens
    assert new.most > calibrated.budget(asked(1200)).most


def test_invented_model_names_push_nothing_out() -> None:
    calibrated = taught()
    for number in range(500):
        stranger = replace(asked(500), model=f"made-up-{number}")
        calibrated.budget(stranger)
        calibrated.observe(Observation(stranger, Outcome.REFUSED, LIMIT))
    assert list(calibrated.learnt().models) == ["m"]


def test_a_model_that_lies_does_not_move_another() -> None:
    calibrated = taught()
    for seen in honest(500, seed=7):
        calibrated.observe(replace(times(3)(seen), asked=replace(seen.asked, model="liar")))
    assert worst_error(calibrated) < 0.02


def test_another_tokenizer_behind_the_name_is_learnt_in_50_answers_and_back_in_50() -> None:
    calibrated = taught()
    for seen in honest(50, seed=8):
        calibrated.observe(times(1.5)(seen))
    assert calibrated.budget(asked(2500)).prompt_tokens == pytest.approx(
        1.5 * truth(asked(2500)).prompt_tokens, rel=0.04
    )
    for seen in honest(50, seed=9):
        calibrated.observe(seen)
    assert worst_error(calibrated) < 0.04


def beside(tenant: str, odd: Lie, share: int) -> tuple[float, float, float]:
    """Send honest requests, and `share` odd ones of another tenant for each.

    Returns shares of the honest requests that were misrouted and over-routed, and the forecast of
    misroutes, for the second half.
    """
    calibrated = Calibrated(MEASURED, (LIMIT,), target=0.001, categories=64, tenants=8)
    other, misrouted, over_routed = tenant and "odd", 0, 0
    for number, seen in enumerate(noisy(4000)):
        request = replace(seen.asked, tenant=tenant)
        short = calibrated.budget(request).tokens <= LIMIT
        misrouted += number >= 2000 and short and seen.needed > LIMIT
        over_routed += number >= 2000 and not short and seen.needed <= LIMIT
        calibrated.observe(replace(seen, asked=request))
        for further in noisy(share, seed=number + 10):
            added = odd(further)
            calibrated.observe(replace(added, asked=replace(added.asked, tenant=other)))
    forecast = calibrated.learnt().limits[str(LIMIT)]["misroute_forecast"]
    return misrouted / 2000, over_routed / 2000, float(forecast)


@cache
def alone() -> tuple[float, float, float]:
    return beside("honest", unlimited, 0)


def noisy(answers: int, seed: int = 1) -> Iterator[Observation]:
    draw = random.Random(seed)
    for _ in range(answers):
        request = asked(draw.randint(5, 3000), draw.choice((None, 256)))
        tokens = int(request.measure.text_bytes / 4.4 * draw.gauss(1.0, 0.03)) + 25
        completion = int(math.exp(draw.uniform(3.0, 5.0)))
        yield Observation(request, Outcome.COMPLETE, LIMIT, tokens, completion)


def unlimited(seen: Observation) -> Observation:
    request = replace(seen.asked, output_limit=None)
    return replace(seen, asked=request, completion_tokens=6000)


@pytest.mark.parametrize(
    ("odd", "share", "harm"), [(unlimited, 1, "over-routed"), (times(0.5), 4, "misrouted")]
)
def test_without_a_key_one_tenants_odd_answers_cost_the_others(
    odd: Lie, share: int, harm: str
) -> None:
    misrouted, over_routed, forecast = beside("", odd, share)
    if harm == "over-routed":
        assert over_routed > 0.2
    else:
        assert misrouted > 5 * forecast


@pytest.mark.parametrize(("odd", "share"), [(unlimited, 1), (times(0.5), 1), (times(0.5), 4)])
def test_with_a_key_the_others_fare_as_without_that_tenant(odd: Lie, share: int) -> None:
    _, over_routed_alone, _ = alone()
    misrouted, over_routed, forecast = beside("honest", odd, share)
    assert misrouted <= 0.001
    assert forecast <= 0.001
    assert over_routed <= over_routed_alone + 0.005
