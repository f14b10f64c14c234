"""Prompts whose text a tokenizer counts."""

import dataclasses
import json

import pytest
from msgspec import structs

from extproc.budget.values import Observation, Outcome, Prefix
from extproc.build import build_learner, build_rules
from extproc.config.settings import Settings
from extproc.request.reader import Endpoint, read_request
from extproc.routing.ask import ask
from extproc.routing.counting import countable, counted
from extproc.routing.models import ModelRule
from extproc.routing.route import route

SAID = {"role": "user", "content": "what is the time"}
RULES = dataclasses.replace(
    build_rules(Settings()),
    models=(ModelRule("m", count=lambda text: len(text.split())),),
    count_bytes=16_384,
)


def read(**fields):
    body = {"model": "m", "messages": [SAID], **fields}
    return read_request(Endpoint.CHAT, json.dumps(body).encode())


TOOL = {"type": "function", "function": {"name": "find"}}


def texts(request, most=100):
    return countable(request, ask(request), most)


def test_the_texts_of_messages_are_counted():
    request = read(messages=[{"role": "system", "content": "be brief"}, SAID])
    assert list(texts(request).texts) == ["be brief", "what is the time"]
    asked = counted(ask(request), texts(request), len)
    assert asked.measure.counted == 24


CALL = {"id": "1", "type": "function", "function": {"name": "", "arguments": ""}}
CALLED = {"role": "assistant", "tool_calls": [CALL, CALL]}


@pytest.mark.parametrize(
    "fields", [{}, {"tool_choice": "auto"}, {"seed": 1}, {"messages": [CALLED, SAID]}]
)
def test_the_tokens_of_tool_definitions_are_told_apart(fields):
    request = read(tools=[TOOL], **fields)
    measure = counted(ask(request), texts(request), len).measure
    assert measure.counted_tools == len('{"type":"function","function":{"name":"find"}}')
    assert measure.counted == measure.counted_tools + len("what is the time")


def test_a_message_with_the_text_of_a_definition_is_no_tool():
    text = '{"type":"function","function":{"name":"find"}}'
    request = read(tools=[TOOL], messages=[{"role": "user", "content": text}, SAID])
    measure = counted(ask(request), texts(request, 200), len).measure
    assert measure.counted_tools == len(text)
    assert measure.counted == 2 * len(text) + len("what is the time")


def test_a_prompt_without_text_is_not_counted():
    assert texts(read(messages=[{"role": "user", "content": ""}])) is None


def test_a_longer_text_is_not_counted():
    assert texts(read(), most=16)
    assert not texts(read(), most=15)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{**SAID, "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"messages": [{**SAID, "content": [{"type": "input_audio", "input_audio": {}}]}]},
        {"messages": [{**SAID, "content": [{"type": "video_url", "video_url": {"url": "x"}}]}]},
        {"documents": [{"text": "a page"}]},
    ],
)
def test_media_and_optional_texts_are_not_counted(fields):
    assert not texts(read(**fields))


def test_several_prompts_are_not_counted():
    body = {"model": "m", "prompt": ["one", "two"]}
    assert not texts(read_request(Endpoint.COMPLETION, json.dumps(body).encode()))


def test_what_follows_a_known_beginning_is_not_counted():
    request = read()
    asked = structs.replace(ask(request), prefix=Prefix("a", "b", known=True))
    assert not countable(request, asked, 100)


@pytest.mark.parametrize(("limit", "tokens"), [(8000, 4), (10, 0), (9000, 0)])
def test_a_prompt_is_counted_where_its_pool_depends_on_it(limit, tokens):
    routed = route(read(max_tokens=limit), "", build_learner(Settings()), RULES)
    assert routed.asked.measure.counted == tokens


@pytest.mark.parametrize("changes", [{"count_bytes": 0}, {"models": (ModelRule("m"),)}])
def test_nothing_is_counted_without_a_tokenizer(changes):
    rules = dataclasses.replace(RULES, **changes)
    routed = route(read(max_tokens=8000), "", build_learner(Settings()), rules)
    assert not routed.asked.measure.counted


def test_a_counted_prompt_has_hardly_a_margin():
    learner = build_learner(Settings())
    body = read(max_tokens=8150)
    for _ in range(100):
        asked = route(body, "", learner, RULES).asked
        learner.learn(Observation(asked, Outcome.COMPLETE, 8192, 30, 5))
    budget = learner.budget(counted(ask(body), texts(body), lambda text: len(text.split())))
    assert (budget.prompt_tokens, budget.margin_tokens) == (30, pytest.approx(2, abs=2))
    assert route(body, "", learner, RULES).pool == "short"
