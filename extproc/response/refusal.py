"""Recognise refusals for length among the errors of a pool.

Only the start of a message is matched: validation errors quote what the client sent, and no client
may make its request look like one that did not fit.
"""

import re
from typing import Any, Final

from extproc.response.usage import Record, read_record

_MESSAGE: Final = re.compile(
    r"This model's maximum context length is \d"  # vLLM, prompt or total; OpenAI
    r"|The engine prompt length \d+ exceeds the max_model_len"  # vLLM 0.32, Responses
    r"|Input length \(\d+\) exceeds model's maximum context length"  # vLLM 0.32
    r"|max_\w+=\d+ cannot be greater than max_model_len"  # vLLM 0.32
    # vLLM 0.32 if the prompt fills the window, and also if the client asked for 0 tokens.
    r"|max_tokens must be at least 1, got 0\b"
    r"|'max_tokens' or 'max_completion_tokens' is too large"  # vLLM before 0.20
    # vLLM 0.32: with media, and if the prompt fills the window.
    r"|The decoder prompt \(length \d+\) (is longer than|plus the number of requested output)"
    r"|The prompt \(total length \d+\) is too long to fit into the model"  # vLLM before 0.8
    r"|The input \(\d+ tokens\) is longer than the model's context length"  # SGLang
)
_CODES: Final = frozenset(
    {
        "context_length_exceeded",  # OpenAI's code
        "exceed_context_size_error",  # llama.cpp's type
    }
)


def is_refusal(body: bytes | bytearray) -> bool:
    """Return whether an error says that the prompt, or prompt plus output, does not fit."""
    record = read_record(body)
    return record is not None and states_refusal(record)


def states_refusal(record: Record) -> bool:
    """Return whether a record is an error of this kind."""
    if isinstance(record.error, dict):
        return _is_for_length(record.error)
    # Older vLLM and SGLang have the message at the top level.
    kind, message = record.error_type, record.error_message or record.message
    return _is_for_length({"type": kind, "message": message})


def _is_for_length(error: dict[str, Any]) -> bool:
    codes = {str(error.get("code")), str(error.get("type"))}
    return bool(codes & _CODES or _MESSAGE.match(str(error.get("message"))))
