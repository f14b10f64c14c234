"""Renders the answers of /v1/responses: bytes as of vLLM 0.32, except for the text."""

from typing import Any

import msgspec

from extproc.simulator.pool.answer import AnswerForm, AnswerUsage, Piece, encodable
from extproc.simulator.pool.shapes import new_id

_Json = dict[str, Any]
# vLLM's order of the fields; those that the answer does not set are null.
_FIELDS = (
    "id",
    "created_at",
    "incomplete_details",
    "instructions",
    "metadata",
    "model",
    "object",
    "output",
    "parallel_tool_calls",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
    "background",
    "max_output_tokens",
    "max_tool_calls",
    "previous_response_id",
    "prompt",
    "reasoning",
    "service_tier",
    "status",
    "text",
    "top_logprobs",
    "truncation",
    "usage",
    "user",
    "presence_penalty",
    "frequency_penalty",
    "kv_transfer_params",
    "ec_transfer_params",
    "input_messages",
    "output_messages",
)


class ResponsesForm(AnswerForm):
    """One answer of one sequence; `created` is in epoch seconds.

    `stated` has the fields of the request that the answer repeats.
    """

    def __init__(self, request_id: str, created: int, stated: _Json) -> None:
        self._head = {"id": encodable(request_id), "created_at": created, "object": "response"}
        self._stated = stated
        self._message_id = f"msg_{new_id()}"
        self._text = ""
        self._finish: str | None = None
        self._events = 0  # sent so far

    def whole(self, pieces: list[Piece], usage: AnswerUsage) -> bytes:
        """Return the body of an answer that is not streamed."""
        (piece,) = pieces
        self._text, self._finish = piece.text, piece.finish
        return msgspec.json.encode(self._complete(usage, [self._message("completed")]))

    def begin(self) -> bytes:
        """Return the events with the response as it is before anything is generated."""
        response = self._response("in_progress", [])
        kinds = ("response.created", "response.in_progress")
        return b"".join(self._event(kind, response=response) for kind in kinds)

    def opening(self, index: int, usage: AnswerUsage | None) -> bytes:  # noqa: ARG002
        """Return b"": the message is opened by its first text."""
        return b""

    def piece(self, piece: Piece, usage: AnswerUsage | None) -> bytes:  # noqa: ARG002
        """Return the event with the next text, after those that open the message."""
        self._finish = piece.finish
        if not piece.text:
            return b""
        opened = b"" if self._text else self._open()
        self._text += piece.text
        return opened + self._event(
            "response.output_text.delta", **self._place(), delta=piece.text, logprobs=[]
        )

    def close(self, usage: AnswerUsage) -> bytes:
        """Return the events that end the message and the response."""
        output = [self._message("completed")] if self._text else []
        done = self._done(output[0]) if output else b""
        return done + self._event("response.completed", response=self._complete(usage, output))

    def _open(self) -> bytes:
        item = self._message("in_progress")
        part = _part("", logprobs=[])
        return self._event("response.output_item.added", item=item, output_index=0) + self._event(
            "response.content_part.added", **self._place(), part=part
        )

    def _done(self, message: _Json) -> bytes:
        place, text = self._place(), self._text
        return b"".join(
            (
                self._event("response.output_text.done", **place, logprobs=[], text=text),
                self._event("response.content_part.done", **place, part=_part(text)),
                self._event("response.output_item.done", item=message, output_index=0),
            )
        )

    def _place(self) -> _Json:
        return {"content_index": 0, "item_id": self._message_id, "output_index": 0}

    def _message(self, status: str) -> _Json:
        return {
            "id": self._message_id,
            "content": [_part(self._text)] if self._text else [],
            "role": "assistant",
            "status": status,
            "type": "message",
            "phase": None,
        }

    def _complete(self, usage: AnswerUsage, output: list[_Json]) -> _Json:
        cut = self._finish == "length"
        response = self._response("incomplete" if cut else "completed", output)
        details = {"reason": "max_output_tokens"} if cut else None
        return response | {"incomplete_details": details, "usage": _describe(usage)}

    def _response(self, status: str, output: list[_Json]) -> _Json:
        known = self._head | self._stated | {"status": status, "output": output}
        return dict.fromkeys(_FIELDS) | known

    def _event(self, kind: str, **fields: Any) -> bytes:
        known = {"sequence_number": self._events, "type": kind}
        # The classes of these events, in the package openai, list their fields by name.
        body = dict(sorted((fields | known).items()))
        self._events += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(body))


def _part(text: str, *, logprobs: list[Any] | None = None) -> _Json:
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": logprobs}


def _describe(usage: AnswerUsage) -> _Json:
    prompt, output = usage.prompt_tokens, usage.completion_tokens
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": 0,
            "cache_write_tokens": 0,
            "input_tokens_per_turn": [],
            "cached_tokens_per_turn": [],
        },
        "output_tokens": output,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        },
        "total_tokens": prompt + output,
    }
