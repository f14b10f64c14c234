"""Bodies of /v1/responses; refusals are those of a running vLLM."""

import json

import pytest

from extproc.simulator.pool.refusal import RefusedError
from extproc.simulator.pool.request import RequestReader
from extproc.simulator.pool.tokenizer import Tokenizer

READER = RequestReader(Tokenizer(), "m", 2048)
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "sunny"}


def read(text: object = "hello there", **fields):
    return READER.read_responses(json.dumps({"input": text, **fields}).encode())


def tokens(*arguments, **fields) -> int:
    (prompt,) = read(*arguments, **fields).generation.prompts
    return prompt.tokens


def refusal(*arguments, **fields):
    with pytest.raises(RefusedError) as caught:
        read(*arguments, **fields)
    return caught.value.status, json.loads(caught.value.body)["error"]


def test_a_text_is_one_message():
    assert tokens() == 8
    assert tokens([{"role": "user", "content": "hello there"}]) == 8
    parts = [{"type": "input_text", "text": "hello there"}]
    assert tokens([{"role": "user", "content": parts}]) == 8


def test_instructions_are_a_message_of_their_own():
    assert tokens(instructions="hello there") == 8 + 6


@pytest.mark.parametrize(
    "item", [CALL, OUTPUT, {"type": "reasoning", "content": [{"text": "hm"}]}, {"role": "user"}]
)
def test_items_of_every_kind_are_rendered(item):
    first = {"role": "user", "content": "hello there"}
    assert tokens([first, item]) > tokens([first])


def test_an_output_of_parts_is_rendered():
    parts = [{"type": "input_text", "text": "sunny"}]
    assert tokens([OUTPUT | {"output": parts}]) == tokens([OUTPUT])


def test_the_answer_repeats_what_was_asked():
    stated = read(temperature=0.5, metadata={"a": "b"}, max_output_tokens=5, user="u").stated
    known = {"model": "m", "temperature": 0.5, "metadata": {"a": "b"}, "max_output_tokens": 5}
    assert stated.items() >= (known | {"user": "u", "tool_choice": "none", "tools": []}).items()


def test_a_function_tool_is_repeated_with_every_field():
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    stated = read(tools=[tool, {"type": "web_search"}]).stated
    assert list(stated["tools"][0])[:4] == ["name", "parameters", "strict", "type"]
    assert stated["tools"][0]["output_schema"] is None
    assert stated["tools"][1] == {"type": "web_search"}
    assert stated["tool_choice"] == "auto"


def test_without_a_limit_the_output_may_fill_the_window():
    assert read().stated["max_output_tokens"] == 2048 - 8


def test_a_prompt_is_cut_only_if_it_asks_for_that():
    assert tokens("word " * 3000, truncation="auto") == 2047
    status, error = refusal("word " * 3000)
    assert (status, error["param"]) == (400, "input_tokens")


@pytest.mark.parametrize(
    ("fields", "status", "kind", "words"),
    [
        (
            {"previous_response_id": "resp_1"},
            404,
            "invalid_request_error",
            "Response with id 'resp_1' not found.",
        ),
        (
            {"background": True},
            400,
            "invalid_request_error",
            "This vLLM engine does not support `store=True`",
        ),
        (
            {"background": True, "store": False},
            400,
            "BadRequestError",
            "background can only be used when `store` is true",
        ),
        ({"prompt": {"id": "x"}}, 400, "BadRequestError", "prompt template is not supported"),
        (
            {"max_output_tokens": 5000},
            400,
            "BadRequestError",
            "max_output_tokens=5000 cannot be greater than",
        ),
        ({"max_output_tokens": 0}, 400, "BadRequestError", "max_tokens must be at least 1, got 0."),
        (
            {"tool_choice": "required"},
            400,
            "BadRequestError",
            "Tool choice 'required' must be specified",
        ),
        (
            {"tool_choice": {"type": "function"}},
            400,
            "BadRequestError",
            "Tool choice 'function' not found",
        ),
        ({"temperature": 3}, 400, "BadRequestError", "temperature must be in [0, 2], got 3.0."),
        ({"model": "nope"}, 404, "NotFoundError", "The model `nope` does not exist."),
    ],
)
def test_a_refusal_has_vllms_words(fields, status, kind, words):
    found, error = refusal(**fields)
    assert (found, error["type"], error["code"]) == (status, kind, status)
    assert error["message"].startswith(words)


def test_a_body_without_input_counts_the_field_that_vllm_adds():
    with pytest.raises(RefusedError) as caught:
        READER.read_responses(b"{}")
    assert "'loc': 'body.input', 'msg': 'Field required', 'input': '<dict of 1 items>'" in str(
        json.loads(caught.value.body)["error"]["message"]
    )


def test_half_a_character_that_the_answer_would_repeat_is_refused():
    status, error = refusal(user="\ud800")
    assert (status, error["type"]) == (400, "BadRequestError")
    assert "surrogates not allowed" in error["message"]
