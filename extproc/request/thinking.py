"""Read how long a request lets the model think, from anywhere that the APIs say it.

Source: vLLM 0.32, chat_completion/protocol.py and responses/protocol.py (build_chat_params),
anthropic/serving.py (_handle_thinking). Chat templates take switches of their own:
`enable_thinking` (Qwen, GLM), `thinking` (DeepSeek, Granite), `thinking_budget` (Seed).
"""

import enum
from collections.abc import Iterator, Mapping
from typing import Final

from extproc.request.fields import as_object


class Thinking(enum.Enum):
    """How long the model is to think before it answers."""

    UNSTATED = ""
    OFF = "off"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


LOW_TOKENS: Final = 2048
MEDIUM_TOKENS: Final = 8192
"""The largest budgets, in tokens, that count as low and as medium."""

FIELDS: Final = (
    "reasoning_effort",
    "reasoning",
    "thinking",
    "thinking_token_budget",
    "output_config",
    "chat_template_kwargs",
)
"""The fields of a body that are read."""

_EFFORTS: Final[Mapping[object, Thinking]] = {
    "none": Thinking.OFF,
    "minimal": Thinking.LOW,
    "low": Thinking.LOW,
    "medium": Thinking.MEDIUM,
    "high": Thinking.HIGH,
    "xhigh": Thinking.HIGH,
    "max": Thinking.HIGH,
}
_SWITCHES: Final = ("enable_thinking", "thinking", "enabled")


def read_thinking(body: Mapping[str, object]) -> Thinking:
    """Return what a body states; a switch that is off counts before budgets, these before efforts.

    A switch that is on counts as medium if nothing else is stated, and before the effort `none`.
    """
    if body.keys().isdisjoint(FIELDS):
        return Thinking.UNSTATED
    arguments = as_object(body.get("chat_template_kwargs"))
    reasoning, thinking = as_object(body.get("reasoning")), as_object(body.get("thinking"))
    switches = [each for part in (arguments, reasoning) for each in _switches(part)]
    kind = thinking.get("type")
    if False in switches or kind == "disabled":
        return Thinking.OFF
    budgets = (
        body.get("thinking_token_budget"),
        arguments.get("thinking_budget"),
        reasoning.get("max_tokens"),
        thinking.get("budget_tokens"),
    )
    parts = (body, arguments, reasoning, as_object(body.get("output_config")))
    efforts = (part.get(name) for part in parts for name in ("reasoning_effort", "effort"))
    is_on = bool(switches) or kind == "enabled"
    stated = [
        *map(_by_budget, budgets),
        *(each for each in map(_by_effort, efforts) if not (is_on and each is Thinking.OFF)),
    ]
    default = Thinking.MEDIUM if is_on else Thinking.UNSTATED
    return next((each for each in stated if each is not Thinking.UNSTATED), default)


def _switches(part: Mapping[str, object]) -> Iterator[bool]:
    for name in _SWITCHES:
        if isinstance(value := part.get(name), bool):
            yield value


def _by_effort(value: object) -> Thinking:
    known = _EFFORTS.get(value) if isinstance(value, str) else None
    return known or Thinking.UNSTATED


def _by_budget(value: object) -> Thinking:
    # -1 is no budget (sampling_params.py, validate_thinking_token_budget).
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return Thinking.UNSTATED
    if value == 0:
        return Thinking.OFF
    if value <= LOW_TOKENS:
        return Thinking.LOW
    return Thinking.MEDIUM if value <= MEDIUM_TOKENS else Thinking.HIGH
