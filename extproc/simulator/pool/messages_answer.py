"""Renders the answers of /v1/messages: bytes as of vLLM 0.32, except for the text."""

from typing import Any

import msgspec

from extproc.simulator.pool.answer import AnswerForm, AnswerUsage, Piece, encodable

_Json = dict[str, Any]
_REASONS = {"stop": "end_turn", "length": "max_tokens"}


class MessagesForm(AnswerForm):
    """One answer of one sequence; the id is that of the chat that vLLM makes of the request."""

    def __init__(self, request_id: str, model: str) -> None:
        self._id = "chatcmpl-" + encodable(request_id)
        self._model = model
        self._opened = False
        self._finish: str | None = None

    def whole(self, pieces: list[Piece], usage: AnswerUsage) -> bytes:
        """Return the body of an answer that is not streamed."""
        (piece,) = pieces
        content = [{"type": "text", "text": piece.text}]
        reason = {"stop_reason": _REASONS[piece.finish or "stop"]}
        return msgspec.json.encode(self._message(content, reason, usage))

    def opening(self, index: int, usage: AnswerUsage | None) -> bytes:  # noqa: ARG002
        """Return the event with the prompt's tokens; `usage` must be given."""
        if usage is None:
            raise ValueError("a stream of /v1/messages states its usage from its first event")
        reasons = {"stop_reason": None, "stop_sequence": None}
        return _event("message_start", message=self._message([], reasons, usage))

    def piece(self, piece: Piece, usage: AnswerUsage | None) -> bytes:  # noqa: ARG002
        """Return the event with the next text, after the one that opens its block."""
        self._finish = piece.finish
        if not piece.text:
            return b""
        block = {"type": "text", "text": ""}
        start = b"" if self._opened else _event("content_block_start", content_block=block, index=0)
        self._opened = True
        delta = {"type": "text_delta", "text": piece.text}
        return start + _event("content_block_delta", delta=delta, index=0)

    def close(self, usage: AnswerUsage) -> bytes:
        """Return the events that end the block and the message."""
        stop = _event("content_block_stop", index=0) if self._opened else b""
        delta = {"stop_reason": _REASONS[self._finish or "stop"], "stop_sequence": None}
        return (
            stop
            + _event("message_delta", delta=delta, usage=_describe(usage))
            + _event("message_stop")
        )

    def _message(self, content: list[_Json], reasons: _Json, usage: AnswerUsage) -> _Json:
        head = {"id": self._id, "type": "message", "role": "assistant", "content": content}
        return head | {"model": self._model} | reasons | {"usage": _describe(usage)}


def _describe(usage: AnswerUsage) -> _Json:
    return {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}


def _event(kind: str, **fields: Any) -> bytes:
    body = {"type": kind} | fields
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(body))
