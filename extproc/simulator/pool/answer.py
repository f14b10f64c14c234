"""Renders the answers with choices of a simulated pool: bytes as of vLLM 0.32, except the text.

Key order, nulls, blank lines and the content of each chunk were compared with a running vLLM.
FINGERPRINT marks every answer of these two endpoints as simulated, SIMULATED_HEADER every answer.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

FINGERPRINT = "dualpool-simulated"
SIMULATED_HEADER = "x-dualpool-simulated"
DONE = b"data: [DONE]\n\n"

_Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnswerUsage:
    """Tokens of all prompts, and of all sequences so far."""

    prompt_tokens: int
    completion_tokens: int

    def describe(self) -> dict[str, Any]:
        """Return the `usage` object of a usage chunk, without details."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "completion_tokens": self.completion_tokens,
        }


@dataclass(frozen=True, slots=True)
class Piece:
    """The next text of a sequence; finish is "stop" or "length" in its last piece, else None."""

    index: int
    text: str
    finish: str | None = None
    prompt_ids: list[int] | None = None  # in the first piece of an answer that echoes its prompt


class AnswerForm(ABC):
    """Renders one answer of an endpoint, whole or as events; an event may be empty.

    Calls: whole(), or begin(), opening() for each sequence, piece() for each text, and close().
    """

    @abstractmethod
    def whole(self, pieces: list[Piece], usage: AnswerUsage) -> bytes:
        """Return the body of an answer that is not streamed."""

    def begin(self) -> bytes:
        """Return what is sent before anything is generated."""
        return b""

    @abstractmethod
    def opening(self, index: int, usage: AnswerUsage | None) -> bytes:
        """Return the first event of a sequence; empty if the endpoint has none."""

    @abstractmethod
    def piece(self, piece: Piece, usage: AnswerUsage | None) -> bytes:
        """Return the event with the next text; usage is given if every event carries it."""

    @abstractmethod
    def close(self, usage: AnswerUsage) -> bytes:
        """Return the events that end a stream."""


class ChoicesForm(AnswerForm):
    """Answers with OpenAI's `choices`; `created` is in epoch seconds."""

    prefix: ClassVar[str]  # of ids
    whole_name: ClassVar[str]
    chunk_name: ClassVar[str]
    whole_ends: ClassVar[tuple[str, ...]]  # keys that end a whole answer, all null
    usage_ends: ClassVar[tuple[str, ...]]  # the same for the usage in a chunk with text

    def __init__(self, request_id: str, created: int, model: str, *, include_usage: bool) -> None:
        self._id = self.prefix + encodable(request_id)
        self._created = created
        self._model = model
        self._include_usage = include_usage

    def whole(self, pieces: list[Piece], usage: AnswerUsage) -> bytes:
        """Return the body of an answer that is not streamed."""
        details = _nulls("prompt_tokens_details", "completion_tokens_details")
        body = self._open(self.whole_name, [self._choice(piece) for piece in pieces])
        body |= {"service_tier": None, "system_fingerprint": FINGERPRINT}
        body |= {"usage": usage.describe() | details} | _nulls(*self.whole_ends)
        return msgspec.json.encode(body)

    def piece(self, piece: Piece, usage: AnswerUsage | None) -> bytes:
        """Return the event with the next text; usage is given if every event carries it."""
        chunk = self._open(self.chunk_name, [self._delta(piece)]) | self._running(usage)
        # vLLM 0.32 writes it into the last event before [DONE]: the usage event, or without one the
        # event with the finish_reason.
        if piece.finish and not self._include_usage:
            chunk["system_fingerprint"] = FINGERPRINT
        return _event(chunk)

    def close(self, usage: AnswerUsage) -> bytes:
        """Return the usage event, if the client asked for it, and the end of the stream."""
        if not self._include_usage:
            return DONE
        chunk = self._open(self.chunk_name, []) | {"usage": usage.describe()}
        return _event(chunk | {"system_fingerprint": FINGERPRINT}) + DONE

    @abstractmethod
    def _choice(self, piece: Piece) -> _Json: ...

    @abstractmethod
    def _delta(self, piece: Piece) -> _Json: ...

    def _running(self, usage: AnswerUsage | None) -> _Json:
        return {"usage": usage.describe() | _nulls(*self.usage_ends)} if usage else {}

    def _open(self, name: str, choices: list[_Json]) -> _Json:
        return {
            "id": self._id,
            "object": name,
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }


class ChatForm(ChoicesForm):
    """Answers of /v1/chat/completions."""

    prefix = "chatcmpl-"
    whole_name = "chat.completion"
    chunk_name = "chat.completion.chunk"
    whole_ends = (
        "prompt_logprobs",
        "prompt_token_ids",
        "prompt_text",
        "kv_transfer_params",
        "ec_transfer_params",
        "metrics",
    )
    usage_ends = ("completion_tokens_details",)

    def opening(self, index: int, usage: AnswerUsage | None) -> bytes:
        """Return the event with the role."""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        chunk = self._open(self.chunk_name, [choice]) | self._running(usage)
        return _event(chunk | _nulls("prompt_token_ids", "prompt_text"))

    def _choice(self, piece: Piece) -> _Json:
        message = {"role": "assistant", "content": piece.text}
        message |= _nulls("refusal", "annotations", "audio", "function_call", "reasoning")
        choice = {"index": piece.index, "message": message, "logprobs": None}
        ends = _nulls("stop_reason", "token_ids", "routed_experts")
        return choice | {"finish_reason": piece.finish} | ends

    def _delta(self, piece: Piece) -> _Json:
        choice = {"index": piece.index, "delta": {"content": piece.text}, "logprobs": None}
        ends = _nulls("stop_reason", "token_ids") if piece.finish else _nulls("token_ids")
        return choice | {"finish_reason": piece.finish} | ends


class CompletionForm(ChoicesForm):
    """Answers of /v1/completions."""

    prefix = "cmpl-"
    whole_name = "text_completion"
    chunk_name = "text_completion"
    whole_ends = ("kv_transfer_params", "ec_transfer_params", "metrics")
    usage_ends = ()

    def opening(self, index: int, usage: AnswerUsage | None) -> bytes:  # noqa: ARG002
        """Return b"": these streams start with text."""
        return b""

    def _choice(self, piece: Piece) -> _Json:
        ends = ("stop_reason", "token_ids", "prompt_logprobs", "prompt_token_ids", "routed_experts")
        return self._text(piece) | _nulls(*ends)

    def _delta(self, piece: Piece) -> _Json:
        ids = {"stop_reason": None, "prompt_token_ids": piece.prompt_ids, "token_ids": None}
        return self._text(piece) | ids

    def _text(self, piece: Piece) -> _Json:
        text = {"index": piece.index, "text": piece.text, "logprobs": None}
        return text | {"finish_reason": piece.finish}


def describe_models(model: str, max_model_len: int, created: int, permission_id: str) -> bytes:
    """Return the body of /v1/models."""
    permission = {
        "id": f"modelperm-{permission_id}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    card = {
        "id": model,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": model,
        "parent": None,
        "max_model_len": max_model_len,
        "permission": [permission],
    }
    return msgspec.json.encode({"object": "list", "data": [card]})


def encodable(request_id: str) -> str:
    """Return an id that the client may have chosen: UTF-8 has no lone surrogate."""
    return request_id.encode(errors="replace").decode()


def _nulls(*keys: str) -> _Json:
    return dict.fromkeys(keys)


def _event(chunk: _Json) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
