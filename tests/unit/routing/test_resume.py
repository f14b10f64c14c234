"""Requests that begin as earlier ones."""

import json

import pytest

from extproc.budget.features import FEATURES
from extproc.budget.values import Recalled
from extproc.request.reader import Endpoint, read_request
from extproc.routing.ask import ask
from extproc.routing.resume import find_trail, resume

SYSTEM = {"role": "system", "content": "a word " * 400}
USER = {"role": "user", "content": "And then?"}
ANSWER = {"role": "assistant", "content": "That is all."}
TOOL = {"type": "function", "function": {"name": "find"}}
CALL = {**ANSWER, "tool_calls": [{"function": {"name": "find", "arguments": "{}"}}]}
KNOWN = Recalled(800.0, 0.0)


def read(*turns, **fields):
    body = json.dumps({"model": "m", "messages": turns, **fields}).encode()
    return read_request(Endpoint.CHAT, body, turns=True)


def trail(*turns, tenant="", **fields):
    request = read(*turns, **fields)
    return find_trail(request, ask(request, tenant=tenant), b"k")


def resumed(known, *turns, **fields):
    request = read(*turns, **fields)
    asked = ask(request)
    return resume(asked, find_trail(request, asked, b"k"), known.get), asked


def whole(*turns, **fields):
    return trail(*turns, **fields).beginnings[0].digest


def counted(asked, name):
    return asked.measure.features[FEATURES.index(name)]


@pytest.mark.parametrize("turns", [[USER], [{"role": "user", "content": [1, 2]}]])
def test_a_short_prompt_and_one_that_is_no_conversation_have_none(turns):
    assert trail(*turns) is None


def test_tenants_models_and_thinking_have_digests_of_their_own():
    found = [
        trail(SYSTEM),
        trail(SYSTEM, tenant="t"),
        trail(SYSTEM, model="n"),
        trail(SYSTEM, reasoning_effort="low"),
    ]
    assert len({each.beginnings[0].digest for each in found}) == 4


def test_a_new_prompt_is_estimated_whole_and_tells_its_instructions():
    found, asked = resumed({}, SYSTEM, USER)
    assert found.measure == asked.measure
    assert found.prefix.whole == whole(SYSTEM, USER)
    assert found.prefix.part == whole(SYSTEM)
    assert not found.resumes


def test_a_prompt_without_instructions_has_no_part():
    found, _ = resumed({}, {**SYSTEM, "role": "user"}, ANSWER, USER)
    assert found.prefix.part == ""


def test_of_a_known_beginning_only_the_rest_is_estimated():
    found, asked = resumed({whole(SYSTEM, USER): KNOWN}, SYSTEM, USER, ANSWER, USER)
    assert found.resumes
    assert found.measure.token_ids == 800
    assert found.measure.text_bytes == asked.measure.text_bytes
    assert (counted(found, "request"), counted(found, "messages")) == (0.0, 2.0)
    assert counted(found, "lower") < 20
    assert found.category == asked.category


def test_the_longest_known_beginning_counts():
    known = {whole(SYSTEM): KNOWN, whole(SYSTEM, USER): Recalled(900.0, 0.0)}
    found, _ = resumed(known, SYSTEM, USER, ANSWER, USER)
    assert found.measure.token_ids == 900


def test_the_same_prompt_again_leaves_nothing_to_estimate():
    found, _ = resumed({whole(SYSTEM, USER): KNOWN}, SYSTEM, USER)
    assert not any(found.measure.features)


def test_the_doubt_of_a_part_counts():
    found, _ = resumed({whole(SYSTEM): Recalled(800.4, 7.04)}, SYSTEM, USER)
    assert (found.measure.token_ids, found.measure.doubt) == (800, 7.0)


def test_a_part_that_is_not_known_well_is_not_taken():
    found, asked = resumed({whole(SYSTEM): Recalled(800.0, 50.0)}, SYSTEM, USER)
    assert found.measure == asked.measure
    assert found.prefix.rest.text_bytes == len("And then?")
    assert not found.resumes


def test_the_instructions_on_tools_belong_to_the_beginning():
    turns = SYSTEM, USER, CALL, USER
    found, _ = resumed({whole(*turns[:2], tools=[TOOL]): KNOWN}, *turns, tools=[TOOL])
    assert (counted(found, "tools"), counted(found, "any_tool")) == (1.0, 0.0)
