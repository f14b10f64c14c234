"""The forms of a simulated pool's answers, as vLLM 0.32 wrote them."""

import json

import pytest

from extproc.simulator.pool.answer import (
    DONE,
    AnswerForm,
    AnswerUsage,
    ChatForm,
    CompletionForm,
    Piece,
)

USAGE = AnswerUsage(prompt_tokens=10, completion_tokens=3)
TEXT = Piece(0, " sage")
LAST = Piece(0, " sage", "length")


def chat(*, include_usage: bool = False) -> AnswerForm:
    return ChatForm("ae06", 1795286067, "m", include_usage=include_usage)


def completion(*, include_usage: bool = False) -> AnswerForm:
    return CompletionForm("ae06", 1795286067, "m", include_usage=include_usage)


HEAD = b'data: {"id":"%s","object":"%s","created":1795286067,"model":"m",'
CHAT = HEAD % (b"chatcmpl-ae06", b"chat.completion.chunk")
COMPLETION = HEAD % (b"cmpl-ae06", b"text_completion")
TOTAL = (
    b'"choices":[],"usage":{"prompt_tokens":10,"total_tokens":13,"completion_tokens":3},'
    b'"system_fingerprint":"dualpool-simulated"}\n\n'
)


def test_a_chat_stream_opens_with_the_role():
    assert chat().opening(0, None) == CHAT + (
        b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,'
        b'"finish_reason":null}],"prompt_token_ids":null,"prompt_text":null}\n\n'
    )


def test_a_chat_chunk():
    assert chat().piece(TEXT, None) == CHAT + (
        b'"choices":[{"index":0,"delta":{"content":" sage"},"logprobs":null,'
        b'"finish_reason":null,"token_ids":null}]}\n\n'
    )


def test_the_last_chat_chunk_is_signed():
    assert chat().piece(LAST, None) == CHAT + (
        b'"choices":[{"index":0,"delta":{"content":" sage"},"logprobs":null,'
        b'"finish_reason":"length","stop_reason":null,"token_ids":null}],'
        b'"system_fingerprint":"dualpool-simulated"}\n\n'
    )


def test_continuous_usage_is_in_every_chat_chunk():
    assert chat(include_usage=True).piece(TEXT, USAGE) == CHAT + (
        b'"choices":[{"index":0,"delta":{"content":" sage"},"logprobs":null,'
        b'"finish_reason":null,"token_ids":null}],"usage":{"prompt_tokens":10,"total_tokens":13,'
        b'"completion_tokens":3,"completion_tokens_details":null}}\n\n'
    )


def test_a_completion_chunk():
    assert completion().piece(TEXT, USAGE) == COMPLETION + (
        b'"choices":[{"index":0,"text":" sage","logprobs":null,"finish_reason":null,'
        b'"stop_reason":null,"prompt_token_ids":null,"token_ids":null}],'
        b'"usage":{"prompt_tokens":10,"total_tokens":13,"completion_tokens":3}}\n\n'
    )


def test_a_completion_stream_opens_with_text():
    assert completion().opening(0, None) == b""


def test_the_usage_chunk_ends_both_streams():
    assert chat(include_usage=True).close(USAGE) == CHAT + TOTAL + DONE
    assert completion(include_usage=True).close(USAGE) == COMPLETION + TOTAL + DONE


@pytest.mark.parametrize("form", [chat(), completion()])
def test_a_stream_that_states_no_usage_ends_at_once(form):
    assert form.close(USAGE) == DONE


def test_an_echoed_prompt_shows_its_ids():
    event = completion().piece(Piece(0, "hello there", "length", [24912, 1354]), None)
    assert b'"text":"hello there"' in event
    assert b'"prompt_token_ids":[24912,1354],"token_ids":null' in event


@pytest.mark.parametrize("form", [chat(include_usage=True), completion(include_usage=True)])
def test_where_a_usage_chunk_follows_only_that_is_signed(form):
    assert b"fingerprint" not in form.piece(LAST, None)


def test_a_whole_chat_answer():
    assert chat().whole([LAST], USAGE) == (
        b'{"id":"chatcmpl-ae06","object":"chat.completion","created":1795286067,"model":"m",'
        b'"choices":[{"index":0,"message":{"role":"assistant","content":" sage","refusal":null,'
        b'"annotations":null,"audio":null,"function_call":null,"reasoning":null},"logprobs":null,'
        b'"finish_reason":"length","stop_reason":null,"token_ids":null,"routed_experts":null}],'
        b'"service_tier":null,"system_fingerprint":"dualpool-simulated","usage":{"prompt_tokens":10,'
        b'"total_tokens":13,"completion_tokens":3,"prompt_tokens_details":null,'
        b'"completion_tokens_details":null},"prompt_logprobs":null,"prompt_token_ids":null,'
        b'"prompt_text":null,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}'
    )


def test_a_whole_completion():
    assert completion().whole([LAST], USAGE) == (
        b'{"id":"cmpl-ae06","object":"text_completion","created":1795286067,"model":"m",'
        b'"choices":[{"index":0,"text":" sage","logprobs":null,"finish_reason":"length",'
        b'"stop_reason":null,"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null,'
        b'"routed_experts":null}],"service_tier":null,"system_fingerprint":"dualpool-simulated",'
        b'"usage":{"prompt_tokens":10,"total_tokens":13,"completion_tokens":3,'
        b'"prompt_tokens_details":null,"completion_tokens_details":null},'
        b'"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}'
    )


def test_a_clients_name_with_a_lone_surrogate_is_sent_back_with_a_question_mark():
    form = ChatForm("\udcff", 0, "m", include_usage=False)
    assert json.loads(form.whole([LAST], USAGE))["id"] == "chatcmpl-?"
