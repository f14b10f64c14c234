"""What the simulated pool reads from a body, and how it refuses; the words are vLLM's."""

import contextlib
import copy
import json
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.simulator.pool.refusal import RefusedError
from extproc.simulator.pool.request import CheckedPrompt, Generation, RequestReader
from extproc.simulator.pool.tokenizer import Tokenizer

READER = RequestReader(Tokenizer(), "m", 2048)
HELLO = [{"role": "user", "content": "hello there"}]  # 2 tokens, and 4 + 2 of the template


def chat(**fields: Any) -> Generation:
    return READER.read_chat(json.dumps({"messages": HELLO, **fields}).encode())


def completion(prompt: object = "hello", **fields: Any) -> Generation:
    return READER.read_completion(json.dumps({"prompt": prompt, **fields}).encode())


def tokens(*messages: dict[str, Any], **fields: Any) -> int:
    (prompt,) = chat(messages=messages, **fields).prompts
    return prompt.tokens


def refusal(read: Any, *arguments: Any, **fields: Any) -> tuple[int, dict[str, Any]]:
    with pytest.raises(RefusedError) as caught:
        read(*arguments, **fields)
    return caught.value.status, json.loads(caught.value.body)["error"]


def message(read: Any, *arguments: Any, **fields: Any) -> str:
    status, error = refusal(read, *arguments, **fields)
    assert (status, error["type"], error["code"]) == (400, "BadRequestError", 400)
    return str(error["message"])


def test_the_template_costs_4_tokens_a_message_and_2_a_request():
    one = {"role": "user", "content": "hello there"}
    assert tokens(one) == 4 + 2 + 2
    assert tokens({"role": "system", "content": "hello there"}, one) == 2 * (4 + 2) + 2


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool", "function"])
def test_every_role_costs_the_same(role):
    assert tokens({"role": role, "content": ""}) == 4 + 2


def test_text_parts_are_joined_by_newlines():
    parts = [{"type": "text", "text": "a"}, "b", {"type": "refusal", "refusal": "c"}]
    assert tokens({"role": "user", "content": parts}) == tokens(
        {"role": "user", "content": "a\nb\nc"}
    )


def test_tools_are_a_message_of_compact_json():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    rendered = '[{"type":"function","function":{"name":"f","parameters":{}}}]'
    assert tokens(*HELLO, tools=tools) == tokens(*HELLO, {"role": "user", "content": rendered})


def test_tool_calls_names_and_reasoning_count():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    plain = {"role": "assistant", "content": "hello"}
    for more in ({"tool_calls": [call]}, {"name": "you"}, {"reasoning_content": "thus"}):
        assert tokens(plain | more) > tokens(plain)


def test_without_a_limit_the_window_is_one():
    assert chat().prompts == (CheckedPrompt(8, 2040),)


def test_prompt_and_output_beyond_the_window_are_clamped_silently():
    assert completion([5] * 2000, max_tokens=1500).prompts == (CheckedPrompt(2000, 48),)


def test_max_completion_tokens_wins():
    assert chat(max_tokens=5, max_completion_tokens=7).prompts[0].max_tokens == 7


@pytest.mark.parametrize("limit", [{}, {"max_tokens": None}])
def test_a_completion_has_16_tokens_where_none_are_asked_for(limit):
    assert completion(**limit).prompts == (CheckedPrompt(1, 16),)


@pytest.mark.parametrize(
    ("prompt", "counts"),
    [
        ("hello", [1]),
        (["hello", "a b c"], [1, 3]),
        ([1, 2, 3], [3]),
        ([[1, 2, 3], [4]], [3, 1]),
    ],
)
def test_a_completion_has_each_shape_of_prompt(prompt, counts):
    assert [read.tokens for read in completion(prompt).prompts] == counts


def test_usage_is_asked_for_with_stream_options():
    options = {"include_usage": True, "continuous_usage_stats": True}
    asked = chat(stream=True, stream_options=options)
    assert (asked.include_usage, asked.continuous_usage) == (True, True)
    assert not chat(stream=True, stream_options={"continuous_usage_stats": True}).continuous_usage


def test_numbers_and_truths_are_coerced_as_pydantic_does():
    asked = chat(max_tokens="7", stream="yes", n=None)
    assert (asked.prompts[0].max_tokens, asked.stream, asked.sequences) == (7, True, 1)


def test_the_same_body_has_the_same_digest():
    assert chat().digest == chat().digest != chat(seed=1).digest


def test_tokenize_reads_texts_and_conversations_of_any_length():
    assert READER.read_tokenize(b'{"prompt": "hello there"}') == [24912, 1354]
    assert len(READER.read_tokenize(json.dumps({"messages": HELLO}).encode())) == 8
    assert len(READER.read_tokenize(json.dumps({"prompt": "word " * 5000}).encode())) == 5001


TOO_LONG = (
    "This model's maximum context length is 2048 tokens. However, your prompt contains {} input "
    "tokens, which exceeds this limit even without any output tokens. Please reduce the length "
    "of the input prompt. (parameter=input_tokens, value={})"
)


def test_a_text_beyond_the_window_is_refused_without_its_length():
    assert message(completion, "word " * 3000) == TOO_LONG.format("at least 2049", 2049)


def test_ids_beyond_the_window_are_refused_with_their_number():
    assert message(completion, [5] * 3000) == TOO_LONG.format("3000", 3000)


def test_more_characters_than_any_tokens_have_are_not_tokenized():
    text = message(completion, "a" * 300_000)
    assert text == (
        "This model's maximum context length is 2048 tokens. However, your prompt contains 300000 "
        "characters (more than 262144 characters, which is the upper bound for 2048 input tokens). "
        "Please reduce the length of the input prompt. (parameter=input_text, value=300000)"
    )


def test_a_prompt_that_fills_the_window_leaves_no_token():
    assert message(completion, [5] * 2048) == (
        "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)"
    )


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_more_output_than_the_window_is_refused(name):
    assert message(chat, **{name: 5000}) == (
        f"{name}=5000 cannot be greater than max_model_len=2048. Please request fewer output "
        f"tokens. (parameter={name}, value=5000)"
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"max_tokens": -1}, "max_tokens must be at least 1, got -1."),
        ({"max_tokens": 3, "min_tokens": 5}, "min_tokens must be less than or equal to max_tok"),
        ({"min_tokens": -1}, "min_tokens must be greater than or equal to 0, got -1."),
        ({"n": 0}, "n must be at least 1, got 0."),
        ({"n": 100_000}, "n must be at most 16384, got 100000."),
        ({"tools": []}, "`tools` must not be an empty array."),
        ({"tool_choice": "auto"}, "When using `tool_choice`, `tools` must be set."),
        ({"stream_options": {}, "messages": []}, "Cannot apply chat template to an empty"),
        ({"stream_options": {"include_usage": True}}, "Stream options can only be defined when"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "TextEncodeInput must be Union"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "m is not a multimodal model",
        ),
    ],
)
def test_a_chat_is_refused_in_vllms_words(fields, text):
    assert message(chat, **fields).startswith(text)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        (None, "Either prompt or prompt_embeds must be provided and non-empty."),
        ("", "Either prompt or prompt_embeds must be provided and non-empty."),
        ([], "You must pass at least one prompt"),
        ([""], "The decoder prompt cannot be empty"),
        ([10**9], "Token id 1000000000 is out of vocabulary"),
        (["a"] * 1025, "prompt list length 1025 exceeds the maximum allowed count of 1024."),
    ],
)
def test_a_prompt_is_refused_in_vllms_words(prompt, text):
    assert message(completion, prompt).startswith(text)


def test_another_model_is_not_found():
    status, error = refusal(chat, model="nope")
    assert (status, error) == (
        HTTPStatus.NOT_FOUND,
        {
            "message": "The model `nope` does not exist. Valid aliases: m.",
            "type": "NotFoundError",
            "param": "model",
            "code": 404,
        },
    )


@pytest.mark.parametrize("model", [None, "", "m"])
def test_no_model_is_the_served_one(model):
    assert chat(model=model).prompts


JSON_FAULTS = [
    (
        b"{not json",
        "1 validation error:\n  {'type': 'json_invalid', 'loc': 'body.1', 'msg': 'JSON decode "
        "error', 'input': '<dict of 0 items>', 'ctx': {'error': 'Expecting property name enclosed "
        "in double quotes'}}",
    ),
    (
        b"",
        "1 validation error:\n  {'type': 'missing', 'loc': 'body', 'msg': 'Field required', "
        "'input': 'None'}",
    ),
    (
        b"null",
        "1 validation error:\n  {'type': 'missing', 'loc': 'body', 'msg': 'Field required', "
        "'input': 'None'}",
    ),
    (
        b"[]",
        "1 validation error:\n  {'type': 'model_attributes_type', 'loc': 'body', 'msg': 'Input "
        "should be a valid dictionary or object to extract fields from', 'input': "
        "'<list of 0 items>'}",
    ),
    (
        b'{"model": "m"}',
        "1 validation error:\n  {'type': 'missing', 'loc': 'body.messages', 'msg': 'Field "
        "required', 'input': '<dict of 1 items>'}",
    ),
    (
        b'{"messages": [{"role": "user"}], "max_tokens": "x", "n": "y"}',
        "2 validation errors:\n  {'type': 'int_parsing', 'loc': 'body.max_tokens', 'msg': 'Input "
        "should be a valid integer, unable to parse string as an integer', 'input': 'x'}\n  "
        "{'type': 'int_parsing', 'loc': 'body.n', 'msg': 'Input should be a valid integer, unable "
        "to parse string as an integer', 'input': 'y'}",
    ),
]


@pytest.mark.parametrize(("body", "text"), JSON_FAULTS)
def test_a_body_of_another_shape_is_refused_in_pydantics_words(body, text):
    status, error = refusal(READER.read_chat, body)
    assert (status, error["type"], error["message"]) == (400, "Bad Request", text)


@pytest.mark.parametrize("body", [b'{"x": "\xff"}', b"[" * 100_000, b"1" * 5000])
def test_what_no_json_parser_takes_has_the_frameworks_answer(body):
    with pytest.raises(RefusedError) as caught:
        READER.read_chat(body)
    assert caught.value.body == b'{"detail":"There was an error parsing the body"}'


@pytest.mark.parametrize("depth", range(900, 1000))
def test_tools_of_any_depth_are_read_or_refused(depth):
    tools = b'[{"a": ' + b"[" * depth + b"]" * depth + b"}]"
    with contextlib.suppress(RefusedError):
        assert READER.read_chat(b'{"messages": [{"role": "user"}], "tools": ' + tools + b"}")


def test_many_faults_are_cut_and_long_values_too():
    status, error = refusal(chat, messages=["x" * 300] * 12)
    assert status == 400
    assert error["message"].startswith("12 validation errors:\n")
    assert "x" * 200 + "...[truncated]" in error["message"]
    assert error["message"].endswith("\n  ...and 2 more errors")


def test_paths_are_cut_from_messages():
    _, error = refusal(chat, model="/opt/models/llama")
    assert error["message"] == "The model `<path>` does not exist. Valid aliases: m."


def test_a_lone_surrogate_comes_back_as_a_question_mark():
    _, error = refusal(chat, model="\ud800")
    assert error["message"] == "The model `?` does not exist. Valid aliases: m."


KEYS = st.sampled_from(
    [
        *("messages", "model", "max_tokens", "max_completion_tokens", "n", "stream", "tools"),
        *("stream_options", "tool_choice", "ignore_eos", "min_tokens", "request_id", "prompt"),
        *("role", "content", "type", "text", "name", "tool_calls", "reasoning", "include_usage"),
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 20)
    | st.floats()
    | st.sampled_from(["", "m", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
MESSAGES = st.fixed_dictionaries(
    {"role": VALUES, "content": VALUES}, optional={"tool_calls": VALUES}
)
BODIES = st.binary(max_size=20) | st.builds(
    lambda known, rest: json.dumps(known | rest).encode(),
    st.fixed_dictionaries({}, optional={"messages": st.lists(MESSAGES, max_size=3)}),
    st.dictionaries(KEYS, VALUES, max_size=6),
)


@pytest.mark.parametrize("read", [READER.read_chat, READER.read_completion, READER.read_tokenize])
@given(body=BODIES)
def test_whatever_arrives_is_read_or_refused(read, body):
    with contextlib.suppress(RefusedError):
        assert read(body)


# Where each API has its values: any of them may be of another type.
VALID = [
    (
        READER.read_chat,
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}], "name": "x"},
                {"role": "assistant", "reasoning": "b", "tool_calls": [{"function": {}}]},
            ],
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ),
    (READER.read_completion, {"prompt": [[1, 2], [3]], "echo": True, "max_tokens": 1}),
    (
        READER.read_messages,
        {
            "model": "m",
            "max_tokens": 1,
            "system": [{"type": "text", "text": "a"}],
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "content": [{"type": "text", "text": "b"}]},
                        {"type": "text", "text": "c"},
                    ],
                }
            ],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        },
    ),
    (
        READER.read_responses,
        {
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "function_call_output", "output": [{"type": "text", "text": "b"}]},
            ],
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
            "text": {"format": {"type": "text"}},
            "user": "u",
            "metadata": {"a": "b"},
        },
    ),
]


def places(value: Any) -> list[list[Any]]:
    """Return the keys that lead to each value in a document."""
    match value:
        case dict():
            inner = list(value.items())
        case list():
            inner = list(enumerate(value))
        case _:
            inner = []
    return [[]] + [[key, *path] for key, each in inner for path in places(each)]


@pytest.mark.parametrize(("read", "body"), VALID)
@given(data=st.data())
def test_a_value_of_another_type_is_read_or_refused(read, body, data):
    *path, last = data.draw(st.sampled_from(places(body)[1:]))
    changed = inner = copy.deepcopy(body)
    for key in path:
        inner = inner[key]
    inner[last] = data.draw(VALUES)
    with contextlib.suppress(RefusedError):
        assert read(json.dumps(changed).encode())
