"""What is kept apart for each tenant."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from msgspec.structs import replace

from extproc.budget.bounded import IDLE
from extproc.budget.calibrated import Calibrated
from extproc.budget.estimate import Basis
from extproc.budget.families import Member
from extproc.budget.outputs import Outputs
from extproc.budget.prior import MEASURED
from extproc.budget.states import CategoryState, Errors, ModelState
from extproc.budget.steering import Steering
from extproc.budget.tenants import FULL, OTHERS, STATES, Tenants, WeightsFit
from extproc.budget.values import Asked, Observation, Outcome
from extproc.budget.weights import Prediction, TokenWeights
from tests.support.prose import prose

LIMIT = 2048
KEY = ("m", "prose")

Odd = Callable[[Observation], Observation]


def category() -> CategoryState:
    member = Member(TokenWeights(MEASURED), placed=True)
    return CategoryState(ModelState(member, Errors(), Outputs()))


def tenants(most: int = 2) -> Tenants:
    return Tenants(most, Steering(0.001, [LIMIT]))


def kept(given: Tenants, name: str, key: tuple[str | None, str] = KEY, times: int = 1) -> float:
    for _ in range(times):
        weight = given.keep(given.find(name, key, category()))
    return weight


def request(words: int, tenant: str, output: int | None = None, model: str = "m") -> Asked:
    return Asked(model, "prose", prose(words), output, tenant=tenant)


def truth(asked: Asked, completion: int) -> Observation:
    tokens = int(asked.measure.text_bytes / 4.4) + 25
    needed = tokens + (asked.output_limit or completion)
    return Observation(asked, Outcome.COMPLETE, max(needed, LIMIT), tokens, completion)


def taught(odd: Odd | None, tenant: str, other: str, answers: int = 1500) -> Calibrated:
    """Honest answers of one tenant, and as many odd ones of another."""
    calibrated = Calibrated(MEASURED, (LIMIT,), target=0.001, categories=8, tenants=8)
    draw = random.Random(1)
    for _ in range(answers):
        asked = request(draw.randint(5, 2000), tenant)
        seen = truth(asked, draw.randint(50, 150))
        calibrated.observe(seen)
        if odd:
            calibrated.observe(odd(replace(seen, asked=replace(asked, tenant=other))))
    return calibrated


def long_output(seen: Observation) -> Observation:
    return replace(seen, completion_tokens=6000)


def dropped(seen: Observation) -> Observation:
    return replace(seen, prompt_tokens=seen.prompt_tokens // 2)


def test_long_outputs_of_one_tenant_do_not_widen_the_reserve_of_another() -> None:
    asked = request(500, "honest")
    alone = taught(None, "honest", "").budget(asked)
    beside = taught(long_output, "honest", "odd").budget(asked)
    assert beside.output_tokens <= 1.1 * alone.output_tokens
    common = taught(long_output, "", "").budget(request(500, ""))
    assert common.output_tokens > 10 * alone.output_tokens


def test_text_that_is_dropped_for_one_tenant_moves_no_estimate_of_another() -> None:
    asked, calibrated = request(1500, "honest"), taught(dropped, "honest", "odd")
    expected = truth(asked, 1).prompt_tokens
    assert calibrated.budget(asked).prompt_tokens == pytest.approx(expected, rel=0.01)
    assert calibrated.budget(asked).margin_tokens < 0.1 * expected
    odd = calibrated.budget(replace(asked, tenant="odd")).prompt_tokens
    assert odd == pytest.approx(expected / 2, rel=0.02)


def test_the_forecast_of_the_worst_tenant_is_not_hidden_by_the_mean() -> None:
    calibrated = taught(None, "honest", "")
    calibrated.observe(truth(request(50, "odd", 1), 1))
    for _ in range(20):
        calibrated.observe(Observation(request(50, "odd", 1), Outcome.REFUSED, LIMIT))
    figures = calibrated.learnt().limits[str(LIMIT)]
    assert float(figures["tenant_forecast_max"]) > 2 * float(figures["misroute_forecast"])


def test_no_part_of_what_was_learnt_forecasts_for_more_than_one_tenant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calibrated, forecasts = taught(None, "honest", "odd", 10), list[Steering]()
    for tenant in ("one", "two"):
        calibrated.observe(truth(request(50, tenant), 1))
    forecast = Steering.forecast
    monkeypatch.setattr(
        Steering, "forecast", lambda self, at: forecasts.append(self) or forecast(self, at)
    )
    seen = [len(forecasts) for _ in calibrated.learnt_parts()]
    assert len(forecasts) == 3
    assert max(after - before for before, after in pairwise([0, *seen])) == 1


def test_a_new_tenant_starts_from_what_all_have_taught() -> None:
    calibrated = taught(None, "honest", "")
    new = calibrated.budget(request(500, "new"))
    assert new.basis is Basis.BORROWED
    known = calibrated.budget(request(500, "honest"))
    assert new.prompt_tokens == known.prompt_tokens
    assert new.tokens > known.tokens


def test_a_refusal_steers_its_own_tenant_alone() -> None:
    calibrated = taught(None, "honest", "")
    calibrated.observe(truth(request(500, "odd"), 1))
    before = calibrated.budget(request(1200, "honest"))
    for _ in range(500):
        refused = Observation(request(1200, "odd"), Outcome.REFUSED, LIMIT)
        calibrated.observe(refused)
    assert calibrated.budget(request(1200, "honest")) == before


def test_a_model_that_is_evicted_takes_what_its_tenants_taught_with_it() -> None:
    calibrated = Calibrated(MEASURED, (LIMIT,), target=0.001, categories=256, tenants=8, models=64)
    for number in range(63):
        calibrated.observe(truth(request(50, "t", model=f"m{number}"), 1))
    for _ in range(IDLE * 63 + 1):
        calibrated.observe(truth(request(50, "t", model="m1"), 1))
    calibrated.observe(truth(request(50, "t", model="new"), 1))
    assert "m0" not in {key[1][0] for key, _ in calibrated._tenants._states.items()}
    assert "m0" not in {key[1] for key, _ in calibrated._tenants._fits.items()}


def test_without_tenants_there_are_no_figures_of_them() -> None:
    learnt = taught(None, "", "", 5).learnt()
    assert learnt.tenants == {}
    assert "tenant_forecast_max" not in learnt.limits[str(LIMIT)]


def test_figures_count_tenants_and_name_none() -> None:
    learnt = taught(dropped, "honest", "odd").learnt()
    assert learnt.tenants == {"kept": 2, "evicted": 0, "own_weights": 1}
    assert "honest" not in str(learnt)


def test_one_tenant_teaches_what_is_common_as_full_answers_up_to_a_bound() -> None:
    given = tenants()
    assert kept(given, "a", times=int(FULL)) == 1.0
    assert kept(given, "a", times=5000) == pytest.approx(FULL / 1000.0, rel=0.02)
    assert kept(given, "b") == 1.0


def test_tenants_beyond_the_permitted_number_are_one() -> None:
    given = tenants()
    for name in "abcd":
        kept(given, name)
    assert [given.find(name, KEY, category()).name for name in "abcd"] == ["a", "b", OTHERS, OTHERS]
    assert given.find("c", KEY, category()).state is given.find("d", KEY, category()).state
    assert len(list(given.steerings())) == 3


def test_an_idle_tenant_makes_room() -> None:
    given = tenants(1)
    kept(given, "a")
    kept(given, "b", times=IDLE + 1)
    assert given.find("b", KEY, category()).name == "b"
    kept(given, "b")
    assert given.figures()["evicted"] == 1


def test_states_beyond_the_permitted_number_are_one_for_each_category() -> None:
    given = tenants(1)
    for number in range(STATES + 1):
        kept(given, "a", ("m", f"c{number}"))
        kept(given, "a", (f"m{number}", "c"))
    first, last = (given.find("a", ("m", f"c{n}"), category()) for n in (0, STATES))
    assert first.state is given._states.get(("a", ("m", "c0")))
    assert last.state is given._other_states[("m", f"c{STATES}")]
    assert len(list(given._fits.items())) == STATES


def test_a_category_that_is_evicted_is_forgotten_for_all() -> None:
    given = tenants(1)
    for name in "ab":
        kept(given, name)
    given.forget(KEY)
    assert list(given._states.items()) == []
    assert given._other_states == {}


def test_contradiction_gives_weights_of_ones_own() -> None:
    common, fit = TokenWeights(MEASURED), WeightsFit()
    while fit.own is None:
        common.observations += 2
        fit.compare(common, 100.0)
    assert fit.own is not common


def test_errors_of_other_weights_are_forgotten() -> None:
    estimated = Prediction(20.0, 5.0)
    state = tenants().find("a", KEY, category()).state
    one, other = TokenWeights(MEASURED), TokenWeights(MEASURED)
    seen = Observation(request(9, "a"), Outcome.COMPLETE, LIMIT, 20, 5)
    state.add_score(9.0, estimated, one, seen)
    state.add_score(9.0, estimated, one, seen)
    assert state.observations == 2
    state.add_score(0.0, estimated, other, seen)
    assert state.observations == 1


def test_tenants_are_steered_to_another_target() -> None:
    common = Steering(0.001, [LIMIT])
    given = Tenants(2, common)
    kept(given, "a")
    common.retune(0.01, [2 * LIMIT])
    given.retune(2)
    for name in ("a", "b"):
        steering = given.find(name, KEY, category()).account.steering
        assert (steering.target, list(steering.risks)) == (0.01, [2 * LIMIT])


def test_of_fewer_tenants_the_last_are_kept() -> None:
    given = tenants(2)
    for name in "ab":
        kept(given, name)
    given.retune(1)
    assert given.figures()["kept"] == 1
    assert given.find("b", KEY, category()).name == "b"
