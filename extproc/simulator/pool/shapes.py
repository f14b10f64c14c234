"""The fields of request bodies that affect a simulation, in vLLM's order of the fields.

The order decides which fault vLLM reports first. Other fields (stop, seed, ...) are ignored.
"""

import secrets
from typing import Annotated, Any

from pydantic import BaseModel, Field

from extproc.simulator.pool.prompt import Message

TokenIds = list[Annotated[int, Field(ge=0)]]


def new_id() -> str:
    """Return an id as vLLM's random_uuid() does: 16 hexadecimal digits."""
    return secrets.token_hex(8)


class StreamOptions(BaseModel):
    """The field `stream_options`."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Chat(BaseModel):
    """A body of /v1/chat/completions."""

    messages: list[Message]
    model: str | None = None
    frequency_penalty: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1
    presence_penalty: float | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    request_id: str = Field(default_factory=new_id)


class Completion(BaseModel):
    """A body of /v1/completions."""

    model: str | None = None
    prompt: TokenIds | list[TokenIds] | str | list[str]
    echo: bool | None = False
    frequency_penalty: float | None = None
    max_tokens: int = 16
    n: int = 1
    presence_penalty: float | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    request_id: str = Field(default_factory=new_id)


class TokenizeText(BaseModel):
    """A body of /tokenize with a text."""

    model: str | None = None
    prompt: str


class TokenizeChat(BaseModel):
    """A body of /tokenize with a conversation."""

    model: str | None = None
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
