"""Bodies of /v1/messages; refusals are those of a running vLLM."""

import json

import pytest

from extproc.simulator.pool.refusal import RefusedError
from extproc.simulator.pool.request import RequestReader
from extproc.simulator.pool.tokenizer import Tokenizer

READER = RequestReader(Tokenizer(), "m", 2048)
HELLO = {"role": "user", "content": "hello there"}


def body(**fields) -> bytes:
    return json.dumps({"model": "m", "messages": [HELLO], "max_tokens": 9, **fields}).encode()


def tokens(*messages, **fields) -> int:
    (prompt,) = READER.read_messages(body(messages=messages or [HELLO], **fields)).prompts
    return prompt.tokens


def turn(*blocks, role: str = "user"):
    return {"role": role, "content": list(blocks)}


def refusal(read=READER.read_messages, **fields):
    with pytest.raises(RefusedError) as caught:
        read(body(**fields))
    return caught.value.status, json.loads(caught.value.body)


def test_a_text_and_a_block_of_text_are_the_same():
    assert tokens() == tokens(turn({"type": "text", "text": "hello there"})) == 8


@pytest.mark.parametrize("system", ["hello there", [{"type": "text", "text": "hello there"}]])
def test_the_system_prompt_is_a_message(system):
    assert tokens(system=system) == 8 + 6


def test_the_attribution_of_claude_code_is_dropped():
    block = {"type": "text", "text": "x-anthropic-billing-header: cc_version=1"}
    assert tokens(system=[block]) == 8


@pytest.mark.parametrize(
    "turns",
    [
        [turn({"type": "thinking", "thinking": "hm"}, role="assistant")],
        [turn({"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}, role="assistant")],
        [turn({"type": "tool_result", "tool_use_id": "t", "content": "sunny"})],
        [turn({"type": "tool_result", "content": [{"type": "text", "text": "sunny"}]})],
    ],
)
def test_blocks_of_every_kind_are_rendered(turns):
    assert tokens(HELLO, *turns) > 8


def test_a_turn_of_results_alone_adds_no_empty_message():
    result = {"type": "tool_result", "tool_use_id": "t", "content": "hello there"}
    assert tokens(turn(result)) == 8


def test_tools_are_part_of_the_prompt():
    assert tokens(tools=[{"name": "f", "input_schema": {}}]) > 8


def test_a_stream_states_its_usage_throughout():
    streamed = READER.read_messages(body(stream=True))
    assert (streamed.include_usage, streamed.continuous_usage) == (True, True)
    assert not READER.read_messages(body()).include_usage


def test_the_prompt_is_counted():
    assert READER.read_count(body()) == 8


LONG = [{"role": "user", "content": "word " * 3000}]


@pytest.mark.parametrize(
    ("fields", "status", "kind", "words"),
    [
        ({"messages": LONG}, 400, "BadRequestError", "This model's maximum context length is 2048"),
        (
            {"max_tokens": 5000},
            400,
            "BadRequestError",
            "max_completion_tokens=5000 cannot be greater",
        ),
        (
            {"messages": []},
            400,
            "BadRequestError",
            "Cannot apply chat template to an empty conversation.",
        ),
        (
            {"temperature": float("nan")},
            400,
            "BadRequestError",
            "temperature must be a finite number, got nan.",
        ),
        ({"model": "nope"}, 404, "NotFoundError", "The model `nope` does not exist."),
        (
            {"messages": [turn({"type": "image", "source": {"type": "url"}})]},
            400,
            "BadRequestError",
            "m is not a multimodal model",
        ),
    ],
)
def test_what_vllm_itself_refuses_has_the_shape_of_anthropics_api(fields, status, kind, words):
    found, document = refusal(**fields)
    assert (found, document["type"], document["error"]["type"]) == (status, "error", kind)
    assert document["error"]["message"].startswith(words)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        (
            {"max_tokens": 0},
            "'loc': 'body.max_tokens', 'msg': 'Value error, max_tokens must be positive', 'input': "
            "'0', 'ctx': {'error': ValueError('max_tokens must be positive')}",
        ),
        ({"model": ""}, "'loc': 'body.model', 'msg': 'Value error, Model is required'"),
        (
            {"messages": [{"role": "x", "content": "y"}]},
            "'loc': 'body.messages.0.role', 'msg': \"Input should be 'user', 'assistant' or",
        ),
        ({"messages": [turn({"type": "document"})]}, "'loc': 'body.messages.0.content.0.type'"),
    ],
)
def test_a_fault_of_the_fields_has_the_shape_of_openais_api(fields, fault):
    status, document = refusal(**fields)
    assert (status, document["error"]["type"]) == (400, "Bad Request")
    assert fault in document["error"]["message"]


def test_counting_refuses_as_answering_does():
    status, document = refusal(READER.read_count, model="nope")
    assert (status, document["type"]) == (404, "error")
