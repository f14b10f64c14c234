"""Encodes prompts for a simulated pool: messages or texts to token ids that fit the window.

The chat template resembles that of gpt-oss. It adds 4 tokens per message (`<|start|>`, the role,
`<|message|>`, `<|end|>`) and 2 per request (`<|start|>assistant`, where the answer begins). Tool
definitions become a system message of compact JSON.
"""

import json
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from extproc.simulator.pool.refusal import plain, refused
from extproc.simulator.pool.tokenizer import CHARACTERS_PER_TOKEN, VOCABULARY, Tokenizer

# Special tokens of gpt-oss.
_START, _END, _MESSAGE = 200_006, 200_007, 200_008
# A tuple, in which any JSON value can be looked up.
_TEXT_PARTS = ("text", "thinking", "input_text", "output_text", "refusal", "tool_reference")
_TEXT_KEYS = ("text", "thinking", "refusal", "name")


class Message(BaseModel):
    """The fields of a chat message that the template renders."""

    role: str
    content: str | list[Any] | None = None
    name: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class PromptEncoder:
    """Renders and encodes prompts for one pool; every method raises RefusedError."""

    def __init__(self, tokenizer: Tokenizer, model: str, max_model_len: int) -> None:
        self._tokenizer = tokenizer
        self._model = model
        self._max_model_len = max_model_len

    def read_chat(self, messages: list[Message], tools: list[Any] | None) -> list[int]:
        """Return the token ids of a conversation that fits the window."""
        turns = self._turns(messages, tools)
        self._check_characters(sum(len(text) for _, text in turns))
        ids = self._render(turns)
        self._check_length(len(ids), truncated=True)
        return ids

    def read_text(self, prompt: str) -> list[int]:
        """Return the token ids of a text that fits the window."""
        self._check_characters(len(prompt))
        ids = self.encode(prompt)
        self._check_length(len(ids), truncated=True)
        return ids

    def read_ids(self, prompt: list[int]) -> list[int]:
        """Return token ids that fit the vocabulary and the window."""
        if prompt and max(prompt) >= VOCABULARY:
            raise refused(f"Token id {max(prompt)} is out of vocabulary")
        self._check_length(len(prompt), truncated=False)
        return prompt

    def encode_chat(self, messages: list[Message], tools: list[Any] | None) -> list[int]:
        """Return the token ids of a conversation of any length."""
        return self._render(self._turns(messages, tools))

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text of any length."""
        try:
            return self._tokenizer.encode(text)
        except UnicodeEncodeError:
            raise refused(
                "TextEncodeInput must be Union[TextInputSequence, "
                "Tuple[InputSequence, InputSequence]]"
            ) from None

    def decode(self, ids: list[int]) -> str:
        """Return the text of token ids; special tokens have none."""
        return self._tokenizer.decode(ids)

    def _turns(self, messages: list[Message], tools: list[Any] | None) -> list[tuple[str, str]]:
        if not messages:
            raise refused(
                "Cannot apply chat template to an empty conversation. Provide at least one message."
            )
        head = [("system", _compact(tools))] if tools else []
        return head + [(message.role, self._text(message)) for message in messages]

    def _render(self, turns: list[tuple[str, str]]) -> list[int]:
        ids = [
            token
            for role, text in turns
            for token in (_START, *self.encode(role), _MESSAGE, *self.encode(text), _END)
        ]
        return [*ids, _START, *self.encode("assistant")]

    def _text(self, message: Message) -> str:
        thought = message.reasoning or message.reasoning_content
        calls = _compact(message.tool_calls) if message.tool_calls else None
        parts = (message.name, thought, self._content(message.content), calls)
        return "\n".join(part for part in parts if part)

    def _content(self, content: str | list[Any] | None) -> str:
        if not isinstance(content, list):
            return content or ""
        return "\n".join(map(self._part, content))

    def _part(self, part: object) -> str:
        if isinstance(part, str):
            return part
        if isinstance(part, dict) and part.get("type") in _TEXT_PARTS:
            return "".join(part[key] for key in _TEXT_KEYS if isinstance(part.get(key), str))
        raise refused(f"{self._model} is not a multimodal model")

    def _check_characters(self, characters: int) -> None:
        # As vLLM, before anything is encoded: a text of more characters than the longest tokens of
        # a full window have cannot fit.
        limit = CHARACTERS_PER_TOKEN * self._max_model_len
        if characters > limit:
            raise refused(
                f"This model's maximum context length is {self._max_model_len} tokens. However, "
                f"your prompt contains {characters} characters (more than {limit} characters, "
                f"which is the upper bound for {self._max_model_len} input tokens). "
                "Please reduce the length of the input prompt.",
                param="input_text",
                value=characters,
            )

    def _check_length(self, tokens: int, *, truncated: bool) -> None:
        """Check against the window; vLLM stops encoding a text one token beyond it."""
        limit = self._max_model_len
        if tokens <= limit:
            return
        found = limit + 1 if truncated else tokens
        least = "at least " if found == limit + 1 else ""
        raise refused(
            f"This model's maximum context length is {limit} tokens. However, your prompt "
            f"contains {least}{found} input tokens, which exceeds this limit even without any "
            "output tokens. Please reduce the length of the input prompt.",
            param="input_tokens",
            value=found,
        )


def _compact(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise plain(HTTPStatus.BAD_REQUEST, "There was an error parsing the body") from None
