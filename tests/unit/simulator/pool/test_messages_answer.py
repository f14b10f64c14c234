"""The answers of /v1/messages, as vLLM 0.32 wrote them."""

import pytest

from extproc.simulator.pool.answer import AnswerUsage, Piece
from extproc.simulator.pool.messages_answer import MessagesForm

USAGE = AnswerUsage(prompt_tokens=10, completion_tokens=3)


def form() -> MessagesForm:
    return MessagesForm("b294", "m")


def test_a_whole_answer():
    assert form().whole([Piece(0, " sage", "length")], USAGE) == (
        b'{"id":"chatcmpl-b294","type":"message","role":"assistant",'
        b'"content":[{"type":"text","text":" sage"}],"model":"m","stop_reason":"max_tokens",'
        b'"usage":{"input_tokens":10,"output_tokens":3}}'
    )


def test_a_stream():
    given = form()
    sent = given.begin() + given.opening(0, AnswerUsage(10, 0))
    for piece in (Piece(0, " a"), Piece(0, " b"), Piece(0, "", "stop")):
        sent += given.piece(piece, USAGE)
    assert sent + given.close(USAGE) == (
        b"event: message_start\n"
        b'data: {"type":"message_start","message":{"id":"chatcmpl-b294","type":"message",'
        b'"role":"assistant","content":[],"model":"m","stop_reason":null,"stop_sequence":null,'
        b'"usage":{"input_tokens":10,"output_tokens":0}}}\n\n'
        b"event: content_block_start\n"
        b'data: {"type":"content_block_start","content_block":{"type":"text","text":""},'
        b'"index":0}\n\n'
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":" a"},'
        b'"index":0}\n\n'
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":" b"},'
        b'"index":0}\n\n'
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        b"event: message_delta\n"
        b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
        b'"usage":{"input_tokens":10,"output_tokens":3}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )


def test_an_answer_without_text_has_no_block():
    given = form()
    given.piece(Piece(0, "", "stop"), USAGE)
    assert given.close(USAGE).startswith(b"event: message_delta")


def test_a_stream_needs_the_usage_of_its_prompt():
    with pytest.raises(ValueError, match="states its usage"):
        form().opening(0, None)
