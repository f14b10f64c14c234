"""The beginnings of conversations, by digests."""

import json

import pytest

from extproc.request import conversation
from extproc.request.conversation import LAST, LEAST_CHARS, MOST_CHARS
from extproc.request.prompt import MAX_IMAGES
from extproc.request.reader import Endpoint, read_request

LONG = "a word " * 300
SYSTEM = {"role": "system", "content": LONG}
USER = {"role": "user", "content": "And then?"}
ANSWER = {"role": "assistant", "content": "That is all."}
CALL = {"function": {"name": "find", "arguments": '{"id": 1}'}}
TOOL = {"type": "function", "function": {"name": "find", "description": LONG}}


def conversation_of(*turns, **fields):
    body = json.dumps({"model": "m", "messages": turns, **fields}).encode()
    return read_request(Endpoint.CHAT, body, turns=True).prompts.conversation


def digests(*turns, key=b"k", of=("m",), **fields):
    found = conversation_of(*turns, **fields).beginnings(key, of)
    return {each.turns: each.digest for each in found}


def image(url):
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


def audio(data):
    return {"role": "user", "content": [{"type": "input_audio", "input_audio": data}]}


def test_a_later_request_begins_with_the_earlier_one():
    assert digests(SYSTEM, USER, ANSWER, USER)[2] == digests(SYSTEM, USER)[2]


def test_the_whole_is_the_first():
    found = conversation_of(SYSTEM, USER).beginnings(b"k", ())
    assert [each.turns for each in found] == [2, 1]


def test_digests_do_not_depend_on_how_many_turns_follow():
    turns = [SYSTEM, *[USER, ANSWER] * 20]
    early, late = digests(*turns[:31]), digests(*turns[:35])
    assert late[31] == early[31]


def test_as_many_turns_at_the_end_are_looked_at():
    found = digests(SYSTEM, *[USER, ANSWER] * 20, USER)
    assert sorted(found) == [1, *range(42 - LAST, 43)]


@pytest.mark.parametrize(
    "other",
    [
        {"role": "system", "content": LONG + "."},
        {"role": "developer", "content": LONG},
        {"role": 7, "content": LONG},
        "no turn",
    ],
)
def test_another_turn_has_another_digest(other):
    assert digests(other, USER, SYSTEM).get(2) != digests(SYSTEM, USER, SYSTEM)[2]


def test_another_key_and_other_names_have_other_digests():
    found = [digests(SYSTEM), digests(SYSTEM, key=b"l"), digests(SYSTEM, of=("n",))]
    assert len({each[1] for each in found}) == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "none"},
        {"documents": [{"text": "of facts"}]},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_what_is_beside_the_turns_is_part_of_a_beginning(fields):
    assert digests(SYSTEM, **fields)[1] != digests(SYSTEM)[1]


def test_tools_are_a_beginning_of_their_own():
    assert digests(USER, tools=[TOOL])[0] == digests(ANSWER, USER, tools=[TOOL])[0]


def test_reasoning_that_was_dropped_meanwhile_is_another_text():
    thought = {**ANSWER, "reasoning": "Hm.", "tool_calls": [CALL]}
    now, past = digests(SYSTEM, USER, thought), digests(SYSTEM, USER, thought, USER)
    assert now[2] == past[2]
    assert now[3] != past[3]


def test_images_of_unknown_size_are_told_apart_by_their_address():
    one, same, other = (digests(SYSTEM, image(f"https://a/{name}")) for name in "xxy")
    assert one == same
    assert one[2] != other[2]


@pytest.mark.parametrize("data", [{"data": "BBBB", "format": "wav"}, {"data": 1}, None])
def test_recordings_are_told_apart_by_what_they_hold(data):
    assert digests(SYSTEM, audio(data)) != digests(SYSTEM, audio({"data": "AAAA"}))


def test_short_conversations_have_no_digests():
    assert not digests({**USER, "content": "x" * (LEAST_CHARS - 1)})
    assert digests({**USER, "content": "x" * LEAST_CHARS})


def test_nor_have_very_long_ones():
    assert not digests({**USER, "content": "x" * (MOST_CHARS + 1)})


def test_nor_has_the_short_beginning_of_a_long_one():
    assert sorted(digests(USER, SYSTEM)) == [2]


@pytest.mark.parametrize(
    "turns",
    [
        [[SYSTEM], SYSTEM],
        [SYSTEM, [SYSTEM]],
        [{"role": "user", "content": [1, 2, 3]}],
        [image("https://a/x")] * (MAX_IMAGES + 1),
    ],
)
def test_what_is_not_read_whole_is_no_conversation(turns):
    assert conversation_of(*turns) is None


def test_a_prompt_of_plain_text_is_no_conversation():
    body = json.dumps({"prompt": LONG}).encode()
    assert read_request(Endpoint.COMPLETION, body, turns=True).prompts.conversation is None
    body = json.dumps({"input": LONG}).encode()
    assert read_request(Endpoint.RESPONSES, body, turns=True).prompts.conversation is None


@pytest.mark.parametrize("fields", [{}, {"documents": [{"text": "d"}]}])
def test_turns_are_kept_on_request_only(fields):
    body = json.dumps({"model": "m", "messages": [SYSTEM], **fields}).encode()
    assert read_request(Endpoint.CHAT, body).prompts.conversation is None


@pytest.mark.parametrize("fields", [{}, {"tools": [TOOL]}, {"documents": [{"text": "d"}]}])
def test_the_last_turns_are_read_alone(fields):
    found = conversation_of(SYSTEM, ANSWER, USER, **fields).read_rest(1)
    assert (found.messages, found.sample) == (2, b"That is all.\nAnd then?")


def test_nothing_of_the_texts_is_shown():
    assert "word" not in repr(conversation_of(SYSTEM).texts[:0]) + repr(
        conversation.Conversation([], [], [LONG], [LONG], [], [LONG], [("schema", [LONG])], len)
    )


def test_the_parts_of_a_turn_belong_to_it():
    parts = {"role": "user", "content": [{"type": "text", "text": text} for text in ("", LONG)]}
    assert sorted(digests(parts, ANSWER, USER)) == [1, 2, 3]
    assert conversation_of(parts, ANSWER, USER).read_rest(2).sample == b"And then?"
