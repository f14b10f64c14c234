"""Reads a body of /v1/messages: Anthropic's messages as the chat that vLLM makes of them.

The conversion is vLLM's (entrypoints/anthropic/serving.py), for the parts that a template renders.
"""

import json
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, field_validator

from extproc.simulator.pool.prompt import Message
from extproc.simulator.pool.shapes import Chat, StreamOptions

# Claude Code's attribution: it differs in every request, so vLLM removes it.
_BILLING = "x-anthropic-billing-header"
_BlockType = Literal[
    "text",
    "image",
    "tool_use",
    "tool_result",
    "tool_reference",
    "thinking",
    "redacted_thinking",
    "tool_addition",
    "tool_removal",
]


class Block(BaseModel):
    """One block of content."""

    type: _BlockType
    text: str | None = None
    source: dict[str, Any] | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    content: str | list[dict[str, Any]] | None = None
    thinking: str | None = None


class AnthropicMessage(BaseModel):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class AnthropicTool(BaseModel):
    """One tool definition."""

    name: str
    description: str | None = None
    input_schema: dict[str, Any]


class CountTokens(BaseModel):
    """A body of /v1/messages/count_tokens."""

    model: str
    messages: list[AnthropicMessage]
    system: str | list[Block] | None = None
    tools: list[AnthropicTool] | None = None

    @field_validator("model")
    @classmethod
    def _check_model(cls, model: str) -> str:
        if not model:
            raise ValueError("Model is required")
        return model

    def conversation(self) -> list[Message]:
        """Return the messages that the chat template renders."""
        system = "".join(_system_texts(self.system))
        head = [Message(role="system", content=system)] if system else []
        return head + [made for message in self.messages for made in _convert(message)]

    def tool_definitions(self) -> list[dict[str, Any]] | None:
        """Return the tools as those of a chat."""
        if self.tools is None:
            return None
        return [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": {"type": "object"} | tool.input_schema,
                },
            }
            for tool in self.tools
        ]


class Messages(CountTokens):
    """A body of /v1/messages."""

    max_tokens: int
    stream: bool | None = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None

    @field_validator("max_tokens")
    @classmethod
    def _check_max_tokens(cls, limit: int) -> int:
        if limit <= 0:
            raise ValueError("max_tokens must be positive")
        return limit

    def chat(self) -> Chat:
        """Return the chat that vLLM makes of it; a stream states its usage throughout."""
        usage = StreamOptions(include_usage=True, continuous_usage_stats=True)
        return Chat(
            messages=self.conversation(),
            model=self.model,
            max_completion_tokens=self.max_tokens,
            stream=self.stream,
            stream_options=usage if self.stream else None,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            tools=self.tool_definitions(),
        )


def _system_texts(system: str | list[Block] | None) -> Iterator[str]:
    if isinstance(system, str):
        yield system
        return
    for block in system or ():
        if block.type == "text" and block.text and not block.text.startswith(_BILLING):
            yield block.text


def _convert(message: AnthropicMessage) -> Iterator[Message]:
    """Yield the results of tools in a message, then the message itself, unless it is empty."""
    if isinstance(message.content, str):
        yield Message(role=message.role, content=message.content)
        return
    blocks = message.content
    yield from (_tool_result(block) for block in blocks if block.type == "tool_result")
    parts = [part for block in blocks for part in _parts(block)]
    calls = [_tool_call(block) for block in blocks if block.type == "tool_use"]
    thought = "".join(block.thinking or "" for block in blocks if block.type == "thinking")
    if parts or message.role != "user":
        yield Message(
            role=message.role,
            content=parts or None,
            reasoning=thought or None,
            tool_calls=calls or None,
        )


def _parts(block: Block) -> Iterator[dict[str, Any]]:
    if block.type == "text" and block.text:
        yield {"type": "text", "text": block.text}
    elif block.type == "image" and block.source:
        yield {"type": "image_url"}


def _tool_call(block: Block) -> dict[str, Any]:
    return {"name": block.name or "", "arguments": json.dumps(block.input or {})}


def _tool_result(block: Block) -> Message:
    if isinstance(block.content, str):
        return Message(role="tool", content=block.content)
    texts = [part.get("text", "") for part in block.content or () if part.get("type") == "text"]
    return Message(role="tool", content="\n".join(map(str, texts)))
