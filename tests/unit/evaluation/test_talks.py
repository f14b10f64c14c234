"""Conversations that go on from request to request."""

import random

from extproc.config.settings import Settings
from extproc.evaluation.cases import TEMPLATES
from extproc.evaluation.conditions import Model, Traffic, make_cases
from extproc.evaluation.scenario_run import serve_scenario
from extproc.evaluation.scenarios import Scenario
from extproc.evaluation.talks import CONVERSATIONS, INSTRUCTIONS, Talks
from tests.support.evaluation_cases import TEXTS, Words, writer

MODEL = Model(Words(), TEMPLATES[0], TEXTS)


def drafts(shape, count=200):
    rng, talks, given = random.Random(0), Talks(shape), writer()
    return [talks.go_on(rng, given) for _ in range(count)]


def opening(draft):
    return draft.body["messages"][0]["content"]


def test_a_conversation_repeats_its_earlier_turns():
    found = [draft.body["messages"] for draft in drafts(CONVERSATIONS)]
    longest = max(found, key=len)
    assert len(longest) > 4
    assert longest[:-2] in found


def test_instructions_are_shared():
    openings = {opening(draft) for draft in drafts(INSTRUCTIONS)}
    assert len(openings) <= INSTRUCTIONS.shared


def test_the_tokens_are_those_of_all_turns():
    for draft in drafts(CONVERSATIONS, 50):
        texts = [message["content"] for message in draft.body["messages"]]
        added = TEMPLATES[0].tokens(len(texts), 0)
        assert draft.prompt_tokens == sum(map(Words().count, texts)) + added


def test_the_beginnings_of_conversations_are_kept_with_their_cases():
    found = list(make_cases(((Traffic(talks=CONVERSATIONS),),), [MODEL], 40, "0"))
    assert any(case.trail for case in found)
    assert not any(case.trail for case in make_cases(((Traffic(),),), [MODEL], 40, "0"))


def test_known_beginnings_are_estimated_better():
    phases = ((Traffic(talks=CONVERSATIONS),),)
    cases = list(make_cases(phases, [MODEL], 600, "0"))
    over = []
    for prefixes in (0, 1000):
        scenario = Scenario(name="s", phases=phases, settings={"budget": {"prefixes": prefixes}})
        [found] = serve_scenario(scenario, scenario.over(Settings()), cases, "words")
        over.append(found.ours.over_routed)
    assert over[1] < over[0]
