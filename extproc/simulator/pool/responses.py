"""Reads a body of /v1/responses: its conversation, its checks, and what its answer repeats.

The checks and their order are vLLM's (entrypoints/openai/responses). Nothing is stored, which is
vLLM's default too, so no response can be continued, fetched or run in the background.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from pydantic import BaseModel, Field

from extproc.simulator.pool.prompt import Message
from extproc.simulator.pool.refusal import RefusedError, failed, refused
from extproc.simulator.pool.shapes import new_id

_Penalty = Annotated[float, Field(ge=-2, le=2)]
# The keys of a function tool in an answer, after the first four.
_TOOL_ENDS = ("allowed_callers", "async", "defer_loading", "description", "output_schema")


class Responses(BaseModel):
    """A body of /v1/responses; the constants are fields of the other APIs that it lacks."""

    n: ClassVar[int] = 1
    min_tokens: ClassVar[int] = 0
    stream_options: ClassVar[None] = None

    background: bool | None = False
    input: str | list[Any]
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] | None = None
    model: str | None = None
    parallel_tool_calls: bool | None = True
    previous_response_id: str | None = None
    reasoning: dict[str, Any] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority"] = "auto"
    store: bool | None = True
    stream: bool | None = False
    temperature: float | None = None
    text: dict[str, Any] | None = None
    tool_choice: str | dict[str, Any] = "auto"
    tools: list[dict[str, Any]] = Field(default_factory=list)
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    truncation: Literal["auto", "disabled"] | None = "disabled"
    user: str | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    request_id: str = Field(default_factory=lambda: f"resp_{new_id()}")
    repetition_penalty: float | None = None
    ignore_eos: bool = False

    @property
    def truncates(self) -> bool:
        """Whether a prompt that is too long is cut."""
        return self.truncation != "disabled"

    def describe(self, model: str, max_tokens: int) -> dict[str, Any]:
        """Return the fields that the answer repeats; `max_tokens` is the most it may generate."""
        given = self.model_dump(include={"instructions", "metadata", "max_tool_calls", "user"})
        return given | {
            "model": model,
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "temperature": _or(self.temperature, 1.0),
            "tool_choice": self.tool_choice,
            "tools": [_tool(tool) for tool in self.tools],
            "top_p": _or(self.top_p, 1.0),
            "background": bool(self.background),
            "max_output_tokens": max_tokens,
            "reasoning": self.reasoning,
            "service_tier": self.service_tier,
            "text": self.text,
            "truncation": self.truncation,
            "presence_penalty": _or(self.presence_penalty, 0.0),
            "frequency_penalty": _or(self.frequency_penalty, 0.0),
        }


def check_responses(document: dict[str, Any]) -> None:
    """Check a body before its fields, and set its tool_choice; raises RefusedError."""
    if document.get("background") and not document.get("store", True):
        raise refused("background can only be used when `store` is true", param="background")
    if document.get("prompt") is not None:
        raise refused("prompt template is not supported", param="prompt")
    choice = document.get("tool_choice", "auto")
    if document.get("tools"):
        return
    if choice in ("auto", "none"):
        document["tool_choice"] = "none"
    elif choice == "required":
        raise refused(
            "Tool choice 'required' must be specified with 'tools' parameter.", param="tool_choice"
        )
    elif isinstance(choice, Mapping) and choice.get("type") in ("function", "custom"):
        raise refused("Tool choice 'function' not found in 'tools' parameter.", param="tool_choice")


def check_stored(request: Responses) -> None:
    """Refuse what needs a store of responses; raises RefusedError."""
    if request.background:
        raise failed(
            HTTPStatus.BAD_REQUEST,
            "This vLLM engine does not support `store=True` and therefore does not support the "
            "background mode. To enable these features, set the environment variable "
            "`VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server.",
            "background",
        )
    if request.previous_response_id is not None:
        raise unknown_response(request.previous_response_id)


def check_encodable(stated: Mapping[str, Any]) -> None:
    """Refuse half a surrogate pair in what the answer repeats; raises RefusedError."""
    try:
        msgspec.json.encode(stated)
    except UnicodeEncodeError as error:
        raise refused(str(error)) from None


def unknown_response(response_id: str) -> RefusedError:
    """Return the 404 for a response that is not stored."""
    text = f"Response with id '{response_id}' not found."
    return failed(HTTPStatus.NOT_FOUND, text, "response_id")


def conversation(request: Responses) -> list[Message]:
    """Return the messages that the chat template renders."""
    head = [Message(role="system", content=request.instructions)] if request.instructions else []
    if isinstance(request.input, str):
        return [*head, Message(role="user", content=request.input)]
    return [*head, *_messages(request.input)]


def _messages(items: Sequence[Any]) -> list[Message]:
    return [_message(item) for item in items if isinstance(item, Mapping)]


def _message(item: Mapping[str, Any]) -> Message:
    match item.get("type"):
        case "function_call":
            call = {key: item.get(key) for key in ("name", "arguments")}
            return Message(role="assistant", tool_calls=[call])
        case "function_call_output":
            return Message(role="tool", content=_text(item.get("output")))
        case "reasoning":
            return Message(role="assistant", reasoning=_text(item.get("content")))
        case _:
            content = item.get("content")
            known = content if isinstance(content, str | list) else None
            return Message(role=str(item.get("role", "user")), content=known)


def _text(value: object) -> str:
    if isinstance(value, list):
        parts = [part.get("text") for part in value if isinstance(part, Mapping)]
        return "".join(part for part in parts if isinstance(part, str))
    return value if isinstance(value, str) else ""


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        return tool
    keys = ("name", "parameters", "strict", "type", *_TOOL_ENDS)
    return {key: tool.get(key) for key in keys}


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
