"""The prompts of the simulated pool, without the checks of a whole request."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.simulator.pool.prompt import Message, PromptEncoder
from extproc.simulator.pool.refusal import RefusedError
from extproc.simulator.pool.tokenizer import CHARACTERS_PER_TOKEN, VOCABULARY, Tokenizer

WINDOW = 64
TOKENIZER = Tokenizer()
ENCODER = PromptEncoder(TOKENIZER, "tiny", WINDOW)


def said(content: object, role: str = "user", **fields: object) -> Message:
    return Message(role=role, content=content, **fields)


def refusal(call: object, *arguments: object) -> dict[str, object]:
    with pytest.raises(RefusedError) as refused:
        call(*arguments)
    assert refused.value.status == 400
    return json.loads(refused.value.body)["error"]


def test_a_message_is_framed_by_special_tokens():
    ids = ENCODER.read_chat([said("hello")], None)
    start, end, message = 200_006, 200_007, 200_008
    user, hello, assistant = (TOKENIZER.encode(text) for text in ("user", "hello", "assistant"))
    assert ids == [start, *user, message, *hello, end, start, *assistant]


def test_a_special_token_in_a_text_is_text():
    assert 200_006 not in ENCODER.read_text("<|start|>")


def test_a_text_has_the_ids_of_the_tokenizer():
    assert ENCODER.read_text("one two") == TOKENIZER.encode("one two")


def test_tools_come_before_the_conversation():
    tools = [{"type": "function", "function": {"name": "f"}}]
    first = said(json.dumps(tools, separators=(",", ":")), role="system")
    assert ENCODER.encode_chat([said("x")], tools) == ENCODER.encode_chat([first, said("x")], None)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (said("hi", name="ann"), "ann\nhi"),
        (said("hi", reasoning="so"), "so\nhi"),
        (said("hi", reasoning_content="so"), "so\nhi"),
        (said(None, tool_calls=[{"id": 1}]), '[{"id":1}]'),
        (said(["a", {"type": "text", "text": "b"}]), "a\nb"),
        (said([{"type": "thinking", "thinking": "hm"}]), "hm"),
        (said([{"type": "refusal", "refusal": "no"}]), "no"),
        (said(None), ""),
    ],
)
def test_the_parts_of_a_message_are_lines_of_its_text(message, text):
    assert ENCODER.encode_chat([message], None) == ENCODER.encode_chat([said(text)], None)


@pytest.mark.parametrize("part", [{"type": "image_url"}, {"type": "input_audio"}, {}, 5, None])
def test_a_part_that_is_no_text_is_refused(part):
    assert refusal(ENCODER.encode_chat, [said([part])], None)["message"] == (
        "tiny is not a multimodal model"
    )


def test_an_empty_conversation_is_refused():
    assert "empty conversation" in refusal(ENCODER.read_chat, [], None)["message"]


@pytest.mark.parametrize(
    ("call", "argument"), [(ENCODER.read_text, " a" * WINDOW), (ENCODER.read_ids, [1] * WINDOW)]
)
def test_a_prompt_may_fill_the_window(call, argument):
    assert len(call(argument)) == WINDOW


def test_one_token_more_is_refused_without_the_length_of_a_text():
    error = refusal(ENCODER.read_text, " a" * (WINDOW + 50))
    assert "contains at least 65 input tokens" in error["message"]
    assert error["param"] == "input_tokens"


def test_ids_are_refused_with_their_number():
    error = refusal(ENCODER.read_ids, [1] * (WINDOW + 50))
    assert "contains 114 input tokens" in error["message"]


def test_a_chat_must_fit_with_its_template():
    words = " a" * (WINDOW - 8)
    assert (
        "maximum context length"
        in refusal(ENCODER.read_chat, [said(words + " a" * 3)], None)["message"]
    )
    assert len(ENCODER.read_chat([said(words)], None)) <= WINDOW


def test_a_text_of_too_many_characters_is_not_encoded():
    class Untouched:
        def encode(self, text: str) -> list[int]:
            raise AssertionError(text)

    encoder = PromptEncoder(Untouched(), "tiny", WINDOW)
    error = refusal(encoder.read_text, "a" * (CHARACTERS_PER_TOKEN * WINDOW + 1))
    assert f"contains {CHARACTERS_PER_TOKEN * WINDOW + 1} characters" in error["message"]
    assert error["param"] == "input_text"


def test_an_id_out_of_the_vocabulary_is_refused():
    assert ENCODER.read_ids([VOCABULARY - 1]) == [VOCABULARY - 1]
    message = refusal(ENCODER.read_ids, [1, VOCABULARY])["message"]
    assert message == f"Token id {VOCABULARY} is out of vocabulary"


def test_no_ids_are_left_to_the_next_check():
    assert ENCODER.read_ids([]) == []


def test_a_lone_surrogate_is_refused():
    assert "TextEncodeInput must be" in refusal(ENCODER.read_text, "\ud800")["message"]


def test_counting_has_no_window():
    assert len(ENCODER.encode(" a" * 10 * WINDOW)) == 10 * WINDOW
    assert len(ENCODER.encode_chat([said(" a" * 10 * WINDOW)], None)) > 10 * WINDOW


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_the_template_adds_four_tokens_a_message_and_two_a_request(texts):
    ids = ENCODER.encode_chat([said(text) for text in texts], None)
    assert len(ids) == sum(TOKENIZER.count(text) for text in texts) + 4 * len(texts) + 2
