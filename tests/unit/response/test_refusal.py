"""Refusals for length, in the words of several pools."""

import json

import pytest

from extproc.response.refusal import is_refusal

TOO_LONG = (
    "This model's maximum context length is 128000 tokens. However, you requested 65535 output "
    "tokens and your prompt contains at least 62466 input tokens, for a total of at least 128001 "
    "tokens."
)


def body(error):
    return json.dumps({"error": error}).encode()


@pytest.mark.parametrize(
    "message",
    [
        TOO_LONG,  # vLLM 0.20
        "This model's maximum context length is 6048 tokens. However, you requested 6616 tokens "
        "(568 in the messages, 6048 in the completion).",  # vLLM 0.6
        "'max_tokens' or 'max_completion_tokens' is too large: 5000. This model's maximum context "
        "length is 4096 tokens and your request has 100 input tokens (5000 > 4096 - 100).",
        "The decoder prompt (length 21535) is longer than the maximum model length of 16384.",
        "The decoder prompt (length 2048) plus the number of requested output tokens (at least 1) "
        "is longer than the maximum model length of 2048. Make sure that ...",
        "The prompt (total length 25938) is too long to fit into the model (context length 4096). "
        "Make sure that `max_model_len` is no smaller than the number of text tokens plus ...",
        "Input length (3000) exceeds model's maximum context length (2048).",
    ],
)
def test_vllm_refuses_in_these_words(message):
    error = {"message": message, "type": "BadRequestError", "param": None, "code": 400}
    assert is_refusal(body(error))


def test_older_vllm_and_sglang_say_it_at_the_top():
    message = "The input (61709 tokens) is longer than the model's context length (40960 tokens)."
    answer = {"object": "error", "message": message, "type": "BadRequestError", "code": 400}
    assert is_refusal(json.dumps(answer).encode())


def test_a_code_tells_it_without_a_message():
    assert is_refusal(body({"code": "context_length_exceeded"}))


def test_llama_cpp_tells_it_by_the_type():
    message = "request (6024 tokens) exceeds the available context size (2048 tokens)"
    assert is_refusal(body({"message": message, "type": "exceed_context_size_error"}))


def test_what_a_client_wrote_and_the_pool_quotes_is_no_refusal():
    message = f"1 validation error:\n  {{'loc': 'body.n', 'input': \"{TOO_LONG}\"}}"
    assert not is_refusal(body({"message": message, "type": "Bad Request", "code": 400}))


def test_a_negative_limit_is_the_client_s_fault():
    assert not is_refusal(body({"message": "max_tokens must be at least 1, got -3."}))


@pytest.mark.parametrize(
    "answer",
    [b"", b"{", b"[]", b"{}", b"<html>", b'{"error": "no"}', b'{"error": {"code": ["a"]}}'],
)
def test_other_bodies_are_no_refusal(answer):
    assert not is_refusal(answer)
