"""Parses a request body to a Generation, or refuses it as vLLM 0.32 does.

The checks, their order and their messages are vLLM's (entrypoints/openai, renderers/params.py,
sampling_params.py); every refusal was compared with a running vLLM. Fields that do not affect a
simulation (temperature, stop, seed, ...) are ignored.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from extproc.simulator.pool.body import decode, first_valid, validated
from extproc.simulator.pool.messages import CountTokens, Messages
from extproc.simulator.pool.prompt import PromptEncoder
from extproc.simulator.pool.refusal import (
    CheckFailedError,
    refused,
    unknown_model,
)
from extproc.simulator.pool.responses import (
    Responses,
    check_encodable,
    check_responses,
    check_stored,
    conversation,
)
from extproc.simulator.pool.sampling import check_limits, check_sampling
from extproc.simulator.pool.shapes import (
    Chat,
    Completion,
    StreamOptions,
    TokenIds,
    TokenizeChat,
    TokenizeText,
)
from extproc.simulator.pool.tokenizer import Tokenizer

MAX_PROMPTS = 1024  # VLLM_MAX_COMPLETION_PROMPTS


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt that its answer repeats; `alone`: without the generated text."""

    text: str
    ids: list[int]
    alone: bool


@dataclass(frozen=True, slots=True)
class CheckedPrompt:
    """One prompt that passed all checks: its tokens, and the most that may be generated."""

    tokens: int
    max_tokens: int
    echo: Echo | None = None


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


@dataclass(frozen=True, slots=True)
class ResponsesGeneration:
    """What to generate for /v1/responses, and the fields of the body that the answer repeats."""

    generation: Generation
    stated: dict[str, Any]


_Request = Chat | Completion | Responses
_TOKENIZED: tuple[type[TokenizeText] | type[TokenizeChat], ...] = (TokenizeText, TokenizeChat)


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
        document = decode(body)
        _check_tools(document)
        _check_stream_options(document)
        return self._chat(validated(Chat, document), body)

    def read_messages(self, body: bytes) -> Generation:
        """Parse a body of /v1/messages; vLLM's own checks refuse it in Anthropic's shape."""
        request = validated(Messages, decode(body))
        try:
            return self._chat(request.chat(), body)
        except CheckFailedError as error:
            raise error.as_anthropic() from None

    def read_count(self, body: bytes) -> int:
        """Parse a body of /v1/messages/count_tokens; return the tokens of its prompt."""
        request = validated(CountTokens, decode(body))
        try:
            self._check_model(request.model)
            prompt = self._prompts.read_chat(request.conversation(), request.tool_definitions())
        except CheckFailedError as error:
            raise error.as_anthropic() from None
        return len(prompt)

    def read_completion(self, body: bytes) -> Generation:
        """Parse a body of /v1/completions."""
        document = decode(body)
        _check_prompt(document)
        _check_stream_options(document)
        # vLLM reads null as the default, 16, although the field is an int.
        if document.get("max_tokens", 0) is None:
            del document["max_tokens"]
        request = validated(Completion, document)
        self._check_model(request.model)
        self._check_asked(request.max_tokens, "max_tokens")
        prompts = [
            self._completed(request, self._prompt_ids(prompt), prompt)
            for prompt in _each(request.prompt)
        ]
        return _generation(request, body, prompts)

    def read_responses(self, body: bytes) -> ResponsesGeneration:
        """Parse a body of /v1/responses."""
        document = decode(body)
        check_responses(document)
        request = validated(Responses, document)
        self._check_model(request.model)
        check_stored(request)
        self._check_asked(request.max_output_tokens, "max_output_tokens")
        prompt = self._checked(
            request, len(self._responses_ids(request)), request.max_output_tokens
        )
        stated = request.describe(self._model, prompt.max_tokens)
        check_encodable(stated)
        return ResponsesGeneration(_generation(request, body, [prompt]), stated)

    def read_tokenize(self, body: bytes) -> list[int]:
        """Parse a body of /tokenize; return its token ids."""
        request = first_valid(_TOKENIZED, decode(body))
        self._check_model(request.model)
        if isinstance(request, TokenizeText):
            return self._prompts.encode(request.prompt)
        return self._prompts.encode_chat(request.messages, request.tools)

    def read_invocation(self, body: bytes) -> type[Chat] | type[Completion]:
        """Tell a chat of /invocations from a completion."""
        return Chat if "messages" in decode(body) else Completion

    def _chat(self, request: Chat, body: bytes) -> Generation:
        self._check_model(request.model)
        if request.max_completion_tokens is not None:
            asked: int | None = request.max_completion_tokens
            self._check_asked(asked, "max_completion_tokens")
        else:
            asked = request.max_tokens
            self._check_asked(asked, "max_tokens")
        ids = self._prompts.read_chat(request.messages, request.tools)
        return _generation(request, body, [self._checked(request, len(ids), asked)])

    def _responses_ids(self, request: Responses) -> list[int]:
        messages, tools = conversation(request), request.tools or None
        if request.truncates:
            # vLLM keeps the end, and room for one token.
            return self._prompts.encode_chat(messages, tools)[1 - self._max_model_len :]
        return self._prompts.read_chat(messages, tools)

    def _prompt_ids(self, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, str):
            return self._prompts.read_text(prompt)
        return self._prompts.read_ids(prompt)

    def _completed(
        self, request: Completion, ids: list[int], prompt: str | list[int]
    ) -> CheckedPrompt:
        alone = bool(request.echo) and request.max_tokens == 0
        checked = self._checked(request, len(ids), 1 if alone else request.max_tokens)
        if not request.echo:
            return checked
        text = prompt if isinstance(prompt, str) else self._prompts.decode(prompt)
        return replace(checked, echo=Echo(text, ids, alone))

    def _checked(self, request: _Request, tokens: int, asked: int | None) -> CheckedPrompt:
        """Clamp the output to the window and check it as vLLM's SamplingParams does."""
        room = self._max_model_len - tokens
        limit = room if asked is None else min(asked, room)
        check_sampling(request, _sequences(request))
        # A prompt of exactly the window leaves a limit of 0: vLLM says that max_tokens must be at
        # least 1, and not that the prompt is too long.
        check_limits(limit, request.min_tokens)
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


def _generation(request: _Request, body: bytes, prompts: list[CheckedPrompt]) -> Generation:
    options = request.stream_options or StreamOptions()
    usage = bool(options.include_usage)
    return Generation(
        request_id=request.request_id,
        prompts=tuple(prompts),
        sequences=_sequences(request),
        min_tokens=request.min_tokens,
        ignore_eos=request.ignore_eos,
        stream=bool(request.stream),
        include_usage=usage,
        continuous_usage=usage and bool(options.continuous_usage_stats),
        digest=hashlib.sha256(body).digest(),
    )


def _sequences(request: _Request) -> int:
    return 1 if request.n is None else request.n


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


def _each(prompt: str | list[str] | TokenIds | list[TokenIds]) -> list[str | list[int]]:
    """Split the `prompt` of /v1/completions, which may be a batch, into prompts."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise refused("You must pass at least one prompt")
    ids = [part for part in prompt if isinstance(part, int)]
    return [ids] if ids else [part for part in prompt if not isinstance(part, int)]


def _are_ids(values: list[Any]) -> bool:
    return all(isinstance(value, int) for value in values)
