"""The estimators that are compared, held to what is known of them."""

import pytest

from extproc.budget.estimate import Basis
from extproc.budget.values import Asked, Measure
from extproc.config.settings import Settings
from extproc.evaluation.cases import Case
from extproc.evaluation.options import LONG
from extproc.evaluation.replay import answer
from extproc.evaluation.rivals import EXACT, OURS, PAPER, STATIC, Peer, make_rivals
from extproc.routing.pools import Pool
from tests.support.evaluation_cases import case

LIMIT = 8192
RIVALS = make_rivals(Settings())


def sized(size: int, tokens: int, output: int | None = None, **more: int) -> Case:
    return case(asked=Asked("m", "prose", Measure(size), output), prompt_tokens=tokens, **more)


def taught(rival, *cases: Case):
    for each in cases:
        rival.observe(each, answer(each, Pool("long", LONG, LONG)))
    return rival


def normal(count: int) -> list[Case]:
    return [sized(4000, 1000)] * count


def prompt(rival, size: int = 16_384) -> int:
    return rival.budget(sized(size, 1, messages=0)).prompt_tokens


def test_the_static_rule_is_4_bytes_whatever_it_is_taught():
    static = taught(RIVALS[STATIC](LIMIT), *[sized(1000, 900)] * 20)
    assert prompt(static) == 4096


@pytest.mark.parametrize(("after", "tokens"), [(0, 35_617), (1, 20_128), (10, 5924), (30, 4256)])
def test_the_peer_is_poisoned_by_one_hi_as_its_source_says(after, tokens):
    peer = taught(Peer(), *normal(10), sized(2, 30), *normal(after))
    assert prompt(peer) == pytest.approx(tokens, rel=0.001)


def test_the_peer_uses_nothing_before_ten_samples():
    assert prompt(taught(Peer(), *[sized(1000, 900)] * 9)) == 4096


def test_the_peer_never_estimates_below_4_bytes_a_token():
    assert prompt(taught(Peer(), *[sized(5000, 1000)] * 50)) == 4096


def test_the_peer_adds_the_output_to_its_floor_alone():
    low = taught(Peer(), *[sized(1000, 500)] * 12)
    assert low.budget(sized(4000, 1, 900, messages=0)).tokens == 2000
    assert low.budget(sized(4000, 1, 1500, messages=0)).tokens == 2500


def test_the_peer_counts_a_token_for_each_structured_byte_and_learns_from_no_tools():
    tooled = sized(4400, 5000, structured_bytes=400, tools=2)
    assert Peer().budget(tooled).prompt_tokens == 1000 + 400 + 4 + 16
    assert prompt(taught(Peer(), *[tooled] * 20)) == 4096


def test_the_exact_one_has_no_error():
    exact = RIVALS[EXACT](LIMIT)
    for words in (5, 500, 5000):
        asked = case(words)
        assert exact.budget(asked).prompt_tokens == asked.prompt_tokens


def test_the_exact_one_learns_outputs_as_ours_does():
    exact, ours = RIVALS[EXACT](LIMIT), RIVALS[OURS](LIMIT)
    open_ended = case(500, None, answer=900)
    for rival in (exact, ours):
        taught(rival, *[open_ended] * 300)
    found = [rival.budget(open_ended).output_tokens for rival in (exact, ours)]
    assert found[0] >= 10
    assert found[0] == pytest.approx(found[1], rel=0.3)


def test_the_settings_decide_every_estimator():
    budget = {"target": 0.05, "prior_bytes_per_token": 2.0, "default_output_tokens": 7}
    rivals = make_rivals(Settings.model_validate({"budget": budget}))
    unstated = sized(4096, 1)
    for name, prompt_tokens in ((PAPER, 2048), (STATIC, 1024)):
        found = rivals[name](LIMIT).budget(unstated)
        assert (found.prompt_tokens, found.output_tokens) == (prompt_tokens, 7)
    ours = [each[OURS](LIMIT).budget(case(500, None)).tokens for each in (rivals, RIVALS)]
    assert ours[0] < ours[1]


def test_the_exact_one_reserves_for_the_largest_prompt_of_a_batch():
    every = Asked("m", "prose", Measure(400), 0, sequences=100, whole=Measure(40_000))
    batch = case(asked=every, prompt_tokens=120, whole_tokens=9000, completion_tokens=0)
    assert RIVALS[EXACT](LIMIT).budget(batch).prompt_tokens == 120


def test_ours_is_the_services_estimator():
    ours = RIVALS[OURS](LIMIT)
    assert ours.budget(case()).basis is Basis.PRIOR
    assert taught(ours, *[case()] * 60).budget(case()).basis is Basis.CALIBRATED


def test_the_exact_one_learns_outputs_by_the_size_of_the_prompt():
    exact = RIVALS[EXACT](LIMIT)
    short, long = case(100, None, answer=20), case(3000, None, answer=2000)
    taught(exact, *[short, long] * 200)
    found = [exact.budget(each).output_tokens for each in (short, long)]
    assert found[0] < 100
    assert found[1] > 1500
