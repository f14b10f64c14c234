"""Parses a request body to a Generation, or refuses it as vLLM 0.32 does.

The checks, their order and their messages are vLLM's (entrypoints/openai, renderers/params.py,
sampling_params.py); every refusal was compared with a running vLLM. Fields that do not affect a
simulation (temperature, stop, seed, ...) are ignored.
"""

import hashlib
import json
import secrets
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from extproc.simulator.pool.prompt import Message, PromptEncoder
from extproc.simulator.pool.refusal import (
    broken_json,
    invalid,
    missing_body,
    not_an_object,
    plain,
    refused,
    unknown_model,
)
from extproc.simulator.pool.tokenizer import Tokenizer

MAX_SEQUENCES = 16_384  # VLLM_MAX_N_SEQUENCES
MAX_PROMPTS = 1024  # VLLM_MAX_COMPLETION_PROMPTS


@dataclass(frozen=True, slots=True)
class CheckedPrompt:
    """One prompt that passed all checks: its tokens, and the most that may be generated."""

    tokens: int
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What to generate: `sequences` answers to each of the prompts."""

    request_id: str
    prompts: tuple[CheckedPrompt, ...]
    sequences: int
    min_tokens: int
    ignore_eos: bool
    stream: bool
    include_usage: bool
    continuous_usage: bool
    digest: bytes  # of the body: equal requests get equal answers


_Body = TypeVar("_Body", bound=BaseModel)


class _StreamOptions(BaseModel):
    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


# vLLM reports faults in this order of the fields.
class _Chat(BaseModel):
    messages: list[Message]
    model: str | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    tools: list[dict[str, Any]] | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    request_id: str = Field(default_factory=lambda: secrets.token_hex(8))


_Ids = list[Annotated[int, Field(ge=0)]]


class _Completion(BaseModel):
    model: str | None = None
    prompt: _Ids | list[_Ids] | str | list[str]
    max_tokens: int = 16
    n: int = 1
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    request_id: str = Field(default_factory=lambda: secrets.token_hex(8))


class _TokenizeText(BaseModel):
    model: str | None = None
    prompt: str


class _TokenizeChat(BaseModel):
    model: str | None = None
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None


class RequestReader:
    """Parses request bodies for one pool; every method raises RefusedError.

    A megabyte takes tens of milliseconds, mostly without holding the GIL.
    """

    def __init__(self, tokenizer: Tokenizer, model: str, max_model_len: int) -> None:
        self._prompts = PromptEncoder(tokenizer, model, max_model_len)
        self._model = model
        self._max_model_len = max_model_len

    def read_chat(self, body: bytes) -> Generation:
        """Parse a body of /v1/chat/completions."""
        document = _document(body)
        _check_tools(document)
        _check_stream_options(document)
        request = _validated(_Chat, document)
        self._check_model(request.model)
        if request.max_completion_tokens is not None:
            asked: int | None = request.max_completion_tokens
            self._check_asked(asked, "max_completion_tokens")
        else:
            asked = request.max_tokens
            self._check_asked(asked, "max_tokens")
        prompt = self._prompts.read_chat(request.messages, request.tools)
        return self._generation(request, body, [prompt], asked)

    def read_completion(self, body: bytes) -> Generation:
        """Parse a body of /v1/completions."""
        document = _document(body)
        _check_prompt(document)
        _check_stream_options(document)
        if document.get("max_tokens", 0) is None:
            del document["max_tokens"]
        request = _validated(_Completion, document)
        self._check_model(request.model)
        self._check_asked(request.max_tokens, "max_tokens")
        prompts = [self._prompt_ids(prompt) for prompt in _each(request.prompt)]
        return self._generation(request, body, prompts, request.max_tokens)

    def read_tokenize(self, body: bytes) -> list[int]:
        """Parse a body of /tokenize; return its token ids."""
        document = _document(body)
        if "messages" in document:
            chat = _validated(_TokenizeChat, document)
            self._check_model(chat.model)
            return self._prompts.encode_chat(chat.messages, chat.tools)
        text = _validated(_TokenizeText, document)
        self._check_model(text.model)
        return self._prompts.encode(text.prompt)

    def _prompt_ids(self, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, str):
            return self._prompts.read_text(prompt)
        return self._prompts.read_ids(prompt)

    def _generation(
        self, request: _Chat | _Completion, body: bytes, prompts: list[list[int]], asked: int | None
    ) -> Generation:
        options = request.stream_options or _StreamOptions()
        usage = bool(options.include_usage)
        return Generation(
            request_id=request.request_id,
            prompts=tuple(self._prompt(request, len(ids), asked) for ids in prompts),
            sequences=1 if request.n is None else request.n,
            min_tokens=request.min_tokens,
            ignore_eos=request.ignore_eos,
            stream=bool(request.stream),
            include_usage=usage,
            continuous_usage=usage and bool(options.continuous_usage_stats),
            digest=hashlib.sha256(body).digest(),
        )

    def _prompt(
        self, request: _Chat | _Completion, tokens: int, asked: int | None
    ) -> CheckedPrompt:
        """Clamp the output to the window and validate it as vLLM's SamplingParams does."""
        room = self._max_model_len - tokens
        limit = room if asked is None else min(asked, room)
        _check_sequences(1 if request.n is None else request.n)
        if limit < 1:
            raise refused(
                f"max_tokens must be at least 1, got {limit}.", param="max_tokens", value=limit
            )
        if request.min_tokens < 0:
            raise refused(
                f"min_tokens must be greater than or equal to 0, got {request.min_tokens}."
            )
        if request.min_tokens > limit:
            raise refused(
                f"min_tokens must be less than or equal to max_tokens={limit}, "
                f"got {request.min_tokens}."
            )
        if tokens == 0:
            raise refused("The decoder prompt cannot be empty")
        return CheckedPrompt(tokens, limit)

    def _check_model(self, model: str | None) -> None:
        if model and model != self._model:
            raise unknown_model(model, self._model)

    def _check_asked(self, asked: int | None, name: str) -> None:
        if asked is not None and asked > self._max_model_len:
            raise refused(
                f"{name}={asked} cannot be greater than max_model_len={self._max_model_len}. "
                "Please request fewer output tokens.",
                param=name,
                value=asked,
            )


def _document(body: bytes) -> dict[str, Any]:
    """Decode a body with the json module, whose error messages vLLM reports."""
    if not body:
        raise missing_body()
    try:
        document = json.loads(body)
    except json.JSONDecodeError as error:
        raise broken_json(error.msg, error.pos) from None
    except (
        ValueError,
        RecursionError,
    ):  # not UTF-8, or a number of 5,000 digits, or 5,000 nested brackets
        raise plain(HTTPStatus.BAD_REQUEST, "There was an error parsing the body") from None
    if document is None:
        raise missing_body()
    if isinstance(document, dict):
        return document
    raise not_an_object(document)


def _validated(shape: type[_Body], document: object) -> _Body:
    try:
        return shape.model_validate(document, from_attributes=True)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        raise invalid([{**fault, "loc": ("body", *fault["loc"])} for fault in errors]) from None


def _check_tools(document: dict[str, Any]) -> None:
    if document.get("tools") == []:
        raise refused(
            "`tools` must not be an empty array. "
            "Either provide at least one tool or omit the field entirely.",
            param="tools",
        )
    if document.get("tool_choice") not in (None, "none") and document.get("tools") is None:
        raise refused("When using `tool_choice`, `tools` must be set.", param="tool_choice")


def _check_stream_options(document: dict[str, Any]) -> None:
    if document.get("stream_options") and not document.get("stream"):
        raise refused(
            "Stream options can only be defined when `stream=True`.", param="stream_options"
        )


def _check_prompt(document: dict[str, Any]) -> None:
    prompt = document.get("prompt")
    if prompt is None or prompt == "":
        raise refused(
            "Either prompt or prompt_embeds must be provided and non-empty.", param="prompt"
        )
    if not isinstance(prompt, list) or len(prompt) <= MAX_PROMPTS or _are_ids(prompt):
        return
    raise refused(
        f"prompt list length {len(prompt)} exceeds the maximum allowed count of {MAX_PROMPTS}. "
        "To increase this limit, set the VLLM_MAX_COMPLETION_PROMPTS environment variable.",
        param="prompt",
    )


def _check_sequences(count: int) -> None:
    if count < 1:
        raise refused(f"n must be at least 1, got {count}.")
    if count > MAX_SEQUENCES:
        raise refused(
            f"n must be at most {MAX_SEQUENCES}, got {count}. To increase this limit, set the "
            "VLLM_MAX_N_SEQUENCES environment variable."
        )


def _each(prompt: str | list[str] | _Ids | list[_Ids]) -> list[str | list[int]]:
    """Split the `prompt` of /v1/completions, which may be a batch, into prompts."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise refused("You must pass at least one prompt")
    ids = [part for part in prompt if isinstance(part, int)]
    return [ids] if ids else [part for part in prompt if not isinstance(part, int)]


def _are_ids(values: list[Any]) -> bool:
    return all(isinstance(value, int) for value in values)
