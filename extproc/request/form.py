"""Read what form a request demands of its answer, from anywhere that the APIs say it.

Source: vLLM 0.32, chat_completion/protocol.py, responses/protocol.py, anthropic/protocol.py and
sampling_params.py (StructuredOutputsParams); `guided_*` are the names of its earlier versions.
"""

import enum
from collections.abc import Mapping
from typing import Final

from extproc.request.fields import as_object


class Form(enum.Enum):
    """What an answer must be like; it says much of its length."""

    FREE = ""
    STOPS = "stops"  # it ends before a text that the request names
    SHAPED = "shaped"  # JSON, a call, or what else a grammar permits


STOPS: Final = ("stop", "stop_sequences")
GRAMMARS: Final = (
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "output_format",
)
FIELDS: Final = ("response_format", "text", "output_config", "tool_choice", *STOPS, *GRAMMARS)
"""The fields of a body that are read."""

_FREE_TYPES: Final = (None, "text")
_FREE_CHOICES: Final = (None, "auto", "none")


def read_form(options: Mapping[str, object]) -> Form:
    """Return what a body demands; a shape counts before a text to stop at."""
    if options.keys().isdisjoint(FIELDS):
        return Form.FREE
    nested = (as_object(options.get(name)).get("format") for name in ("text", "output_config"))
    formats = (options.get("response_format"), *nested)
    choice = options.get("tool_choice")
    if (
        any(as_object(each).get("type") not in _FREE_TYPES for each in formats)
        or (choice.get("type") if isinstance(choice, dict) else choice) not in _FREE_CHOICES
        or any(options.get(name) for name in GRAMMARS)
    ):
        return Form.SHAPED
    return Form.STOPS if any(options.get(name) for name in STOPS) else Form.FREE
