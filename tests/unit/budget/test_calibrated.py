"""Budgets that are learnt from usage."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from extproc.budget.bounded import IDLE
from extproc.budget.calibrated import Calibrated
from extproc.budget.estimate import Basis
from extproc.budget.families import ENOUGH
from extproc.budget.known import _reserving
from extproc.budget.measure import measure, measure_media, with_optional
from extproc.budget.prior import MEASURED
from extproc.budget.steering import LEVELS
from extproc.budget.values import Asked, Learnt, Measure, Observation, Outcome, Prefix
from extproc.tokens import MAX_TOKENS
from tests.support.prose import prose

LIMIT = 2048
CATEGORIES = 256
MODELS = 64


def fresh(*limits: int) -> Calibrated:
    return Calibrated(
        MEASURED, limits or (LIMIT,), target=0.001, categories=CATEGORIES, models=MODELS
    )


def asked(words: int = 500, output: int | None = 256, category: str = "prose") -> Asked:
    return Asked("m", category, prose(words), output)


def truth(
    request: Asked, completion: int = 100, outcome: Outcome = Outcome.COMPLETE
) -> Observation:
    tokens = int(request.measure.text_bytes / 4.4) + 25
    return Observation(request, outcome, LIMIT, tokens, completion)


def taught(answers: int = 300, output: int | None = 256) -> Calibrated:
    calibrated, draw = fresh(), random.Random(1)
    for _ in range(answers):
        request = asked(draw.randint(5, 2500), output)
        calibrated.observe(truth(request, draw.randint(50, 150)))
    return calibrated


def test_a_taught_budget_is_close_and_covers() -> None:
    budget, needed = taught().budget(asked()), truth(asked()).prompt_tokens + 256
    assert needed <= budget.tokens <= needed * 1.05


def test_an_untaught_budget_covers() -> None:
    assert fresh().budget(asked()).tokens >= truth(asked()).prompt_tokens + 256


def test_a_stated_limit_is_reserved_whole() -> None:
    assert taught().budget(asked(output=777)).output_tokens == 777


def test_without_a_limit_the_reserve_is_learnt() -> None:
    assert 125 <= taught(1000, None).budget(asked(output=None)).output_tokens <= 300


def test_the_least_output_is_reserved_if_more_than_is_learnt() -> None:
    calibrated, request = taught(1000, None), asked(output=None)
    learnt = calibrated.budget(request)
    less, more = (
        calibrated.budget(replace(request, output_floor=tokens)) for tokens in (20, 20_000)
    )
    assert less == learnt
    assert more.output_tokens == 20_000
    assert more.tokens >= truth(request).prompt_tokens + 20_000


def test_prompts_given_as_ids_are_exact() -> None:
    request, calibrated = asked(), taught()
    ids = replace(request, measure=replace(request.measure, token_ids=1000))
    assert calibrated.budget(ids).tokens - calibrated.budget(request).tokens == 1000


def test_the_basis_is_told() -> None:
    assert fresh().budget(asked()).basis is Basis.PRIOR
    assert taught().budget(asked(category="new")).basis is Basis.BORROWED
    assert taught().budget(asked()).basis is Basis.CALIBRATED


def test_a_category_seen_little_keeps_a_wider_margin() -> None:
    calibrated = taught()
    new = calibrated.budget(asked(2000, category="new")).margin_tokens
    assert new > calibrated.budget(asked(2000)).margin_tokens


@pytest.mark.parametrize(
    ("prompt", "completion"), [(0, 1), (-5, 1), (1 << 40, 1), (600, -1), (99_999, 1)]
)
def test_usage_that_cannot_be_is_not_learnt(prompt: int, completion: int) -> None:
    calibrated = taught()
    before = calibrated.learnt()
    calibrated.observe(Observation(asked(), Outcome.COMPLETE, LIMIT, prompt, completion))
    assert calibrated.learnt() == before


def test_a_tiny_limit_teaches_nothing_of_unlimited_answers() -> None:
    calibrated = taught(300, None)
    before = calibrated.budget(asked(output=None)).output_tokens
    for _ in range(500):
        calibrated.observe(truth(asked(output=1), 1, Outcome.CUT))
    assert calibrated.budget(asked(output=None)).output_tokens >= before * 0.9


def test_answers_cut_by_the_window_raise_the_reserve() -> None:
    calibrated = taught(300, None)
    before = calibrated.budget(asked(output=None)).output_tokens
    for _ in range(100):
        calibrated.observe(truth(asked(output=None), 1500, Outcome.CUT))
    assert calibrated.budget(asked(output=None)).output_tokens > 2 * before


def level(calibrated: Calibrated, limit: int = LIMIT) -> float:
    return float(calibrated.learnt().limits[str(limit)]["risk_level"])


def test_refusals_lower_the_risk_that_is_taken() -> None:
    calibrated = taught()
    before = level(calibrated)
    for _ in range(30):
        calibrated.observe(Observation(asked(1400), Outcome.REFUSED, LIMIT))
    assert level(calibrated) < 0.8 * before


def test_what_no_pool_could_hold_is_not_counted_as_misrouted() -> None:
    calibrated = taught()
    before = calibrated._steering.save().evidence
    calibrated.observe(Observation(asked(3000), Outcome.REFUSED, 65_536))
    assert calibrated._steering.save().evidence == before


def test_a_refusal_tells_of_the_limits_below_it_alone() -> None:
    calibrated = fresh(1024, LIMIT)
    for _ in range(30):
        calibrated.observe(Observation(asked(1000), Outcome.REFUSED, 1024))
    refused = {
        limit: sum(risks.counted()[1]) for limit, risks in calibrated._steering.risks.items()
    }
    assert refused == {1024: pytest.approx(30, rel=0.01), LIMIT: 0}


def test_answers_cut_by_the_window_lower_the_risk_that_is_taken() -> None:
    ended, cut, request = taught(), taught(), asked(1000, None)
    fills = 2048 - truth(request).prompt_tokens
    for _ in range(30):
        ended.observe(truth(request, fills))
        cut.observe(truth(request, fills, Outcome.CUT))
    assert level(cut) < 0.8 * level(ended)


def test_names_that_are_only_asked_for_take_no_room() -> None:
    calibrated = taught()
    for name in range(3 * MODELS):
        calibrated.budget(replace(asked(), model=f"made-up-{name}"))
    assert list(calibrated.learnt().models) == ["m"]


def test_models_and_categories_are_bounded() -> None:
    calibrated = fresh()
    for name in range(CATEGORIES + 10):
        request = replace(asked(5), model=f"m{name % (MODELS + 1)}", category=str(name))
        calibrated.observe(truth(request))
    learnt = calibrated.learnt()
    assert len(learnt.models) == MODELS
    assert len([name for name in learnt.categories if "other" not in name]) <= CATEGORIES
    assert len(learnt.categories) <= CATEGORIES + MODELS


def test_a_category_that_is_idle_is_forgotten_for_a_new_one() -> None:
    calibrated = Calibrated(MEASURED, (LIMIT,), target=0.001, categories=2)
    for category in ("a", "b", *["a"] * (2 * IDLE + 1), "c"):
        calibrated.observe(truth(asked(category=category)))
    assert list(calibrated.learnt().categories) == ["a/m", "c/m"]
    assert calibrated.learnt().evicted == 1


def test_more_categories_than_are_kept_become_calibrated_all_the_same() -> None:
    calibrated = Calibrated(MEASURED, (LIMIT,), target=0.001, categories=4)
    for turn in range(12 * 60):
        calibrated.observe(truth(asked(turn, category=f"c{turn % 12}")))
    bases = {calibrated.budget(asked(category=f"c{n}")).basis for n in range(12)}
    assert bases == {Basis.CALIBRATED}
    assert list(calibrated.learnt().categories) == ["c0/m", "c1/m", "c2/m", "c3/m", "other/m"]


def test_more_models_than_are_kept_share_one_set_of_weights() -> None:
    calibrated = fresh()
    for turn in range(2 * MODELS):
        calibrated.observe(truth(replace(asked(turn), model=f"m{turn}")))
    strangers = [calibrated.budget(replace(asked(), model=name)) for name in ("x", "y")]
    assert strangers[0] == strangers[1]
    assert calibrated.learnt().models["(other)"]["samples"] == MODELS + 1


def test_a_model_that_is_forgotten_takes_its_categories_with_it() -> None:
    calibrated = fresh()
    for turn in range(MODELS - 1):
        calibrated.observe(truth(replace(asked(), model=f"m{turn}")))
    for turn in range(IDLE * MODELS):
        calibrated.observe(truth(replace(asked(), model=f"m{1 + turn % (MODELS - 2)}")))
    calibrated.observe(truth(replace(asked(), model="new")))
    assert "m0" not in calibrated.learnt().models
    assert "prose/m0" not in calibrated.learnt().categories
    assert "prose/new" in calibrated.learnt().categories


def test_a_model_that_is_forgotten_takes_its_other_categories_with_it() -> None:
    calibrated = Calibrated(MEASURED, (LIMIT,), target=0.001, categories=1, models=MODELS)
    calibrated.observe(truth(asked(category="first")))
    for turn in range(100):
        calibrated.observe(truth(replace(asked(turn), model="m0", category="second")))
    assert "other/m0" in calibrated.learnt().categories
    for turn in range(2 * IDLE * MODELS):
        calibrated.observe(truth(replace(asked(), model=f"m{1 + turn % MODELS}")))
    assert "m0" not in calibrated.learnt().models
    assert "other/m0" not in calibrated.learnt().categories


@given(
    st.integers(0, 400),
    st.lists(st.integers(1, 4000), max_size=80),
    st.integers(1, 8),
    st.integers(0, 4000),
)
def test_a_budget_never_falls_while_the_risk_falls(size, outputs, sequences, floor) -> None:
    calibrated = fresh()
    request = replace(asked(size, None), sequences=sequences, output_floor=floor)
    for number, output in enumerate(outputs):
        calibrated.observe(replace(truth(asked(number, None)), completion_tokens=output))
    known = calibrated._find_of(request)
    found = known.predict(request.measure)
    reserve = _reserving(request, found, known.category)
    totals = [reserve(level)[0] for level in LEVELS]
    assert totals == sorted(totals)


def test_all_prompts_of_a_request_teach_and_the_largest_is_reserved() -> None:
    calibrated, one = taught(), asked(4)
    text = one.measure
    features = tuple(3 * count for count in text.features)
    whole = Measure(3 * text.text_bytes, 0, features, text.unseen)
    request = replace(one, sequences=3, whole=whole, share=1 / 3)
    before = calibrated.budget(one)
    for _ in range(200):
        seen = truth(one)
        calibrated.observe(replace(seen, asked=request, prompt_tokens=3 * seen.prompt_tokens))
    assert calibrated.budget(request).prompt_tokens == pytest.approx(before.prompt_tokens, rel=0.02)
    assert calibrated.learnt().models["m"]["surprise"] < 2


def test_the_largest_of_several_prompts_has_a_wider_margin_than_all_together() -> None:
    # Their errors even out in the sum that an answer states.
    def margin(share: float) -> int:
        calibrated, draw = fresh(), random.Random(1)
        for _ in range(400):
            request = asked(draw.randint(100, 2000))
            seen = truth(replace(request, whole=request.measure, share=share))
            tokens = round(seen.prompt_tokens * draw.gauss(1.0, 0.03))
            calibrated.observe(replace(seen, prompt_tokens=tokens))
        return calibrated.budget(asked()).margin_tokens

    assert margin(1 / 16) > 1.5 * margin(1.0)


def test_a_category_that_was_never_seen_is_estimated_from_its_model() -> None:
    calibrated = taught()
    first = calibrated.budget(asked(category="new"))
    assert first.basis is Basis.BORROWED
    calibrated.observe(truth(asked(3)))
    assert calibrated.budget(asked(category="new")).basis is Basis.BORROWED


def test_two_models_do_not_share_their_weights() -> None:
    calibrated = taught()
    other = replace(asked(), model="other")
    for _ in range(100):
        calibrated.observe(replace(truth(other), prompt_tokens=1100))
    error = calibrated.budget(asked()).prompt_tokens / truth(asked()).prompt_tokens
    assert error == pytest.approx(1.0, abs=0.03)


@given(st.integers(0, 4000), st.integers(0, 4000))
def test_a_longer_limit_is_never_a_smaller_budget(first: int, second: int) -> None:
    calibrated = fresh()
    low, high = sorted((first, second))
    assert calibrated.budget(asked(50, low)).tokens <= calibrated.budget(asked(50, high)).tokens


def test_what_was_learnt_is_told_by_category() -> None:
    figures = taught().learnt().categories["prose/m"]
    assert figures["samples"] == 300
    assert figures["basis"] == "calibrated"
    assert figures["bytes_per_token"] == pytest.approx(4.3, abs=0.4)


def test_all_limits_have_one_level() -> None:
    calibrated = fresh(1024, 8192)
    for answer in range(200):
        calibrated.observe(truth(asked(550 + answer)))
    assert level(calibrated, 1024) == level(calibrated, 8192)
    limits = calibrated.learnt().limits
    assert limits["1024"]["misroute_forecast"] != limits["8192"]["misroute_forecast"]


def forecast_after_long_answers(*thresholds: int) -> float:
    """The forecast where all requests that state no limit have longer answers than was learnt."""
    calibrated = Calibrated(MEASURED, (LIMIT,), thresholds, target=0.001, categories=CATEGORIES)
    for answer in range(400):
        calibrated.observe(truth(asked(300, None), LIMIT if answer > 300 else 100))
    return float(calibrated.learnt().limits[str(LIMIT)]["misroute_forecast"])


def test_what_a_threshold_keeps_from_a_pool_is_not_misrouted_there() -> None:
    assert forecast_after_long_answers(100) < forecast_after_long_answers(LIMIT)
    assert forecast_after_long_answers() == forecast_after_long_answers(LIMIT)


def test_another_threshold_counts_from_then_on() -> None:
    calibrated = taught()
    calibrated.retune(
        (LIMIT,), (100,), target=0.001, categories=CATEGORIES, tenants=1, models=1, prefixes=0
    )
    assert calibrated._thresholds == {LIMIT: 100}


def with_reasoning(words: int, dropped: float) -> Asked:
    """A request whose template may drop `dropped` tokens of earlier reasoning."""
    request = asked(words)
    return replace(request, measure=with_optional(request.measure, {"past_reasoning": dropped}))


def mixed(rendered: float, answers: int = 400) -> Calibrated:
    """Of ten requests seven carry earlier reasoning, of which a share is rendered."""
    calibrated, draw = fresh(), random.Random(2)
    for turn in range(answers):
        words, extra = draw.randint(50, 2500), draw.randint(500, 4000) * (turn % 10 < 7)
        request = with_reasoning(words, extra)
        seen = truth(request)
        tokens = seen.prompt_tokens + round(rendered * extra)
        calibrated.observe(replace(seen, prompt_tokens=tokens))
    return calibrated


@pytest.mark.parametrize("rendered", [0.0, 1.0])
def test_text_that_a_template_may_drop_is_learnt_apart(rendered: float) -> None:
    calibrated = mixed(rendered)
    for extra in (0, 2000):
        request = with_reasoning(500, extra)
        true = truth(request).prompt_tokens + rendered * extra
        budget = calibrated.budget(request)
        assert budget.prompt_tokens == pytest.approx(true, rel=0.03)


def test_a_long_text_that_is_dropped_teaches_however_long_it_is() -> None:
    calibrated = fresh()
    request = with_reasoning(20, 50_000)
    for _ in range(60):
        calibrated.observe(truth(request))
    assert calibrated.budget(request).prompt_tokens < 1000
    assert calibrated.learnt().models["m"]["samples"] == 60


def test_a_long_text_that_is_rendered_teaches_however_long_it_is() -> None:
    calibrated = fresh()
    request = with_reasoning(20, 50_000)
    for _ in range(60):
        calibrated.observe(replace(truth(request), prompt_tokens=50_030))
    assert calibrated.budget(request).prompt_tokens == pytest.approx(50_030, rel=0.03)


@pytest.mark.parametrize(
    ("prompt", "completion", "samples"),
    [
        (1, 0, 1),
        (0, 0, 0),
        (1, -1, 0),
        (1, MAX_TOKENS - 1, 1),
        (1, MAX_TOKENS, 0),
        (MAX_TOKENS, 1, 0),
    ],
)
def test_counts_that_no_answer_has_teach_nothing(
    prompt: int, completion: int, samples: int
) -> None:
    calibrated = fresh()
    seen = truth(replace(asked(0), measure=Measure(0, 0, asked(0).measure.features)))
    calibrated.observe(replace(seen, prompt_tokens=prompt, completion_tokens=completion))
    assert sum(model["samples"] for model in calibrated.learnt().models.values()) == samples


def test_what_was_learnt_comes_in_parts_that_add_up() -> None:
    calibrated = taught()
    assert Learnt.merged(calibrated.learnt_parts()) == calibrated.learnt()


def test_an_answer_without_output_teaches_the_prompt_alone() -> None:
    calibrated, request = fresh(), asked(500, 0)
    for _ in range(60):
        calibrated.observe(truth(request, completion=0))
    assert calibrated.learnt().models["m"]["samples"] == 60
    assert calibrated.budget(request).output_tokens == 0
    assert calibrated.learnt().categories["prose/m"]["completion_tokens_p50"] > 100


def test_models_that_came_late_get_weights_of_their_own_once_others_are_idle() -> None:
    calibrated = fresh()
    for turn in range(MODELS):
        calibrated.observe(truth(replace(asked(), model=f"old{turn}")))
    for turn in range(IDLE * MODELS):
        calibrated.observe(truth(replace(asked(), model=f"new{turn % 2}")))
    assert {"new0", "new1"} <= calibrated.learnt().models.keys()


def test_a_model_of_few_tokens_for_any_image_is_learnt() -> None:
    calibrated, plain = fresh(), asked(20)
    photo = measure(b"What is this?", 13, messages=1, media=measure_media([(4032, 3024)]))
    request = replace(plain, measure=photo)
    for _ in range(60):
        calibrated.observe(replace(truth(request), prompt_tokens=283))
    assert calibrated.budget(request).prompt_tokens == pytest.approx(283, rel=0.1)


def test_outputs_are_learnt_apart_for_prompts_that_are_long_by_their_token_ids() -> None:
    short, text = asked(5, None), asked(2000, None)
    ids = truth(text).prompt_tokens
    long = replace(text, measure=replace(text.measure, token_ids=ids))
    calibrated = fresh()
    for _ in range(300):
        calibrated.observe(truth(short, 20))
        seen = truth(long, 900)
        calibrated.observe(replace(seen, prompt_tokens=seen.prompt_tokens + ids))
    outputs = [calibrated.budget(request).output_tokens for request in (short, long)]
    assert outputs[0] < 100
    assert outputs[1] > 800


def hinted(request: Asked) -> Asked:
    return replace(request, limit_is_hint=True)


def test_of_a_limit_that_is_a_hint_what_is_used_is_reserved() -> None:
    calibrated, draw = fresh(), random.Random(1)
    for _ in range(300):
        request = hinted(asked(draw.randint(5, 2500), 32_000))
        calibrated.observe(truth(request, draw.randint(50, 150)))
    assert calibrated.budget(hinted(asked(500, 32_000))).output_tokens < 400
    assert calibrated.budget(asked(500, 32_000)).output_tokens == 32_000


def test_a_small_limit_bounds_what_is_reserved_for_a_hint() -> None:
    calibrated = fresh()
    assert calibrated.budget(hinted(asked(500, 20))).output_tokens == 20


def test_what_is_expected_is_less_than_the_budget_and_that_less_than_the_most() -> None:
    budget = taught(1000, None).budget(asked(output=None))
    assert budget.expected is not None
    assert budget.most is not None
    assert budget.expected < budget.tokens < budget.most
    assert budget.expected == pytest.approx(truth(asked()).prompt_tokens + 100, rel=0.05)


def test_a_request_that_thinks_does_not_widen_the_reserve_of_others() -> None:
    calibrated, draw = fresh(), random.Random(1)
    for _ in range(600):
        words = draw.randint(5, 500)
        calibrated.observe(truth(asked(words, None), draw.randint(50, 150)))
        thinks = replace(asked(words, None), thinking="high")
        calibrated.observe(truth(thinks, draw.randint(4000, 9000)))
    assert calibrated.budget(asked(100, None)).output_tokens < 500
    assert calibrated.budget(replace(asked(100, None), thinking="high")).output_tokens > 5000


def test_an_answer_that_stands_for_several_teaches_as_several() -> None:
    alone, several = fresh(), fresh()
    for number in range(400):
        request, rare = asked(100 + number, None), number % 20 == 0
        seen = truth(request, 1500 if rare else 100)
        for _ in range(1 + 19 * rare):
            alone.observe(seen)
        several.observe(replace(seen, stands_for=20 if rare else 1))
    found = [each.budget(asked(300, None)).expected for each in (alone, several)]
    assert found[1] == pytest.approx(found[0], rel=0.1)


def test_counts_that_no_tokenizer_has_teach_the_margin_if_there_are_many() -> None:
    calibrated, before = taught(), taught().budget(asked())
    for number in range(300):
        seen = truth(asked(400 + number))
        calibrated.observe(replace(seen, prompt_tokens=12 * seen.prompt_tokens + 9000))
    after = calibrated.budget(asked())
    assert after.prompt_tokens == before.prompt_tokens
    assert after.margin_tokens > 3 * max(before.margin_tokens, 20)


def test_a_new_tenant_of_a_folded_category_is_estimated_as_others_are() -> None:
    calibrated = Calibrated(MEASURED, (LIMIT,), target=0.001, categories=4, tenants=10)
    for number in range(400):
        request = replace(asked(200, None, f"c{number % 8}"), tenant="one")
        calibrated.observe(truth(request))
    budget = calibrated.budget(replace(asked(200, None, "new"), tenant="other"))
    assert budget.expected is not None
    assert budget.most is not None
    assert budget.expected <= budget.tokens <= budget.most < 100_000


def test_answers_of_several_sequences_do_not_thin_the_tail_of_one() -> None:
    plain, mixed, draw = fresh(), fresh(), random.Random(1)
    for _ in range(600):
        outputs = [int(draw.lognormvariate(5, 1.2)) + 1 for _ in range(8)]
        request = asked(200, None)
        plain.observe(truth(request, outputs[0]))
        mixed.observe(truth(request, outputs[0]))
        mixed.observe(truth(replace(request, sequences=8), sum(outputs)))
    found = [each.budget(asked(200, None)).most for each in (plain, mixed)]
    assert found[0] is not None
    assert found[1] == pytest.approx(found[0], rel=0.2)


def test_a_name_that_counts_what_no_tokenizer_does_is_placed_and_spoils_no_other() -> None:
    calibrated = taught()
    for number in range(200):
        request = replace(asked(100 + number), model="odd")
        seen = truth(request)
        calibrated.observe(replace(seen, prompt_tokens=seen.prompt_tokens + 12_000))
    odd = calibrated.budget(replace(asked(), model="odd"))
    assert odd.basis is Basis.BORROWED
    assert odd.margin_tokens > 3 * calibrated.budget(asked()).margin_tokens
    error = calibrated.budget(asked()).prompt_tokens / truth(asked()).prompt_tokens
    assert error == pytest.approx(1.0, abs=0.03)


def continuing(
    calibrated: Calibrated, text: Asked, number: int, known: int = 10_000, tokens: int | None = None
) -> Observation:
    """An answer to a prompt of a known part and 500 words more."""
    prefix = Prefix(f"whole {number}", "part", known=True)
    ids = replace(text.measure, token_ids=known)
    request = replace(text, measure=ids, prefix=prefix)
    return replace(truth(request), prompt_tokens=tokens or known + truth(text).prompt_tokens)


def remembering() -> Calibrated:
    calibrated, draw = Calibrated(MEASURED, (LIMIT,), target=0.001, categories=8, prefixes=64), 0
    for draw in range(60):
        request = replace(asked(100 + 10 * draw), prefix=Prefix(str(draw)))
        calibrated.observe(truth(request))
    return calibrated


def test_the_tokens_of_an_answered_prompt_are_recalled() -> None:
    found = remembering().recall("59")
    assert found is not None
    assert found.tokens == truth(asked(690)).prompt_tokens
    assert found.is_known
    assert fresh().recall("59") is None


def test_what_follows_a_part_tells_the_tokens_of_the_part() -> None:
    calibrated, text = remembering(), asked(500)
    whole = replace(text, prefix=Prefix("w", "part", rest=text.measure))
    calibrated.observe(replace(truth(whole), prompt_tokens=1000 + truth(text).prompt_tokens))
    found = calibrated.recall("part")
    assert found is not None
    assert found.tokens == pytest.approx(1000, abs=30)


def test_a_known_part_has_a_margin_for_the_rest_alone() -> None:
    calibrated, text = remembering(), asked(500)
    seen = continuing(calibrated, text, 0)
    long = calibrated.budget(seen.asked)
    assert long.prompt_tokens == pytest.approx(seen.prompt_tokens, rel=0.001)
    assert long.margin_tokens < 200


def test_a_doubted_part_has_a_wider_margin() -> None:
    calibrated, text = remembering(), asked(500)
    request = continuing(calibrated, text, 0).asked
    doubted = replace(request, measure=replace(request.measure, doubt=200.0))
    assert calibrated.budget(doubted).margin_tokens > 2 * calibrated.budget(request).margin_tokens


@pytest.mark.parametrize("tokens", [12_000, 200_000])
def test_a_part_that_an_answer_contradicts_is_forgotten(tokens: int) -> None:
    calibrated, text = remembering(), asked(500)
    calibrated.observe(replace(truth(replace(text, prefix=Prefix("part"))), prompt_tokens=2500))
    before = calibrated.budget(text).prompt_tokens
    calibrated.observe(continuing(calibrated, text, 0, tokens=tokens))
    found = calibrated.recall("part")
    assert found is None or found.deviation > 0
    assert calibrated.budget(text).prompt_tokens == before


def test_an_implausible_answer_tells_no_prompt() -> None:
    calibrated = remembering()
    seen = truth(replace(asked(500), prefix=Prefix("w")))
    calibrated.observe(replace(seen, prompt_tokens=200_000))
    assert calibrated.recall("w") is None


def test_an_answer_seen_for_what_it_states_tells_its_prompt_but_no_part() -> None:
    calibrated, text = remembering(), asked(500)
    whole = replace(text, prefix=Prefix("w", "part", rest=text.measure))
    calibrated.observe(replace(truth(whole), prompt_tokens=2000, by_chance=False))
    found = calibrated.recall("w"), calibrated.recall("part")
    assert [each and each.is_known for each in found] == [True, False]


SETTINGS = {
    "target": 0.001,
    "categories": CATEGORIES,
    "tenants": 1,
    "models": MODELS,
    "prefixes": 0,
}


def test_other_limits_leave_what_was_learnt_of_prompts_and_outputs() -> None:
    calibrated, same = taught(), taught()
    calibrated.retune((4 * LIMIT,), **SETTINGS)
    assert calibrated.learnt().categories == same.learnt().categories
    assert calibrated.learnt().models == same.learnt().models
    assert set(calibrated.learnt().limits) == {str(4 * LIMIT)}


def test_the_same_settings_change_no_budget() -> None:
    calibrated = taught(304)  # the level is refreshed after every eighth answer, and by retune
    before = calibrated.budget(asked(output=None))
    calibrated.retune((LIMIT,), **SETTINGS)
    assert calibrated.budget(asked(output=None)) == before


def test_fewer_models_or_categories_forget_the_others() -> None:
    for fewer in ({"models": 2}, {"categories": 1}):
        calibrated = fresh()
        for model in ("a", "b", "c"):
            calibrated.observe(truth(replace(asked(), model=model)))
        calibrated.retune((LIMIT,), **SETTINGS | fewer)
        assert set(calibrated.learnt().categories) == {"prose/c"}
        calibrated.observe(truth(replace(asked(), model="c")))


def counted(words: int, model: str = "m") -> Observation:
    seen = truth(replace(asked(words), model=model), completion=0, outcome=Outcome.COUNTED)
    return replace(seen, window=MAX_TOKENS)


def primed(*models: str) -> Calibrated:
    calibrated = fresh()
    for model in models:
        for number in range(ENOUGH):
            calibrated.observe(counted(300 + number, model))
    return calibrated


def test_counted_prompts_narrow_the_budget_of_a_model_without_an_answer() -> None:
    plain, known = fresh().budget(asked()), primed("m").budget(asked())
    assert (known.basis, plain.basis) == (Basis.BORROWED, Basis.PRIOR)
    assert truth(asked()).prompt_tokens + 256 <= known.tokens < 0.9 * plain.tokens


def test_counted_prompts_are_no_answers() -> None:
    learnt = primed("m").learnt()
    assert learnt.models["m"]["samples"] == 0
    assert not learnt.categories
    assert learnt.limits == fresh().learnt().limits


def test_a_model_is_known_once_its_samples_were_counted() -> None:
    calibrated = primed("m")
    assert calibrated.knows("m")
    assert not calibrated.knows("new")


def test_counts_that_no_tokenizer_makes_teach_nothing() -> None:
    calibrated = fresh()
    calibrated.observe(replace(counted(2000), prompt_tokens=MAX_TOKENS))
    assert calibrated.budget(asked()) == fresh().budget(asked())
    assert not calibrated.learnt().models


def test_models_that_are_counted_take_half_of_the_places() -> None:
    calibrated = primed(*(f"m{number}" for number in range(MODELS // 2)))
    assert calibrated.knows("new")
    assert not primed("m1").knows("new")


def test_a_count_of_a_model_without_a_place_teaches_nothing() -> None:
    calibrated = primed(*(f"m{number}" for number in range(MODELS)))
    before = calibrated.learnt()
    calibrated.observe(counted(500, "one more"))
    assert calibrated.learnt() == before


def test_what_was_counted_is_kept_in_a_snapshot() -> None:
    same = fresh()
    same.load(list(primed("m").save()))
    assert same.knows("m")
    assert same.budget(asked()) == primed("m").budget(asked())
