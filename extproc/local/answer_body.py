"""Parses an answer of the OpenAI API: usage, finish reason, and its longest sequence.

Independent of the service's own parser, so that the demo's report can check what was learnt.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """What the body of an answer says; finish is "length" if any sequence was cut."""

    whole: bool
    prompt_tokens: int = 0
    completion_tokens: int = 0
    longest_tokens: int = 0
    finish: str = ""


def read_body(body: bytes, *, stream: bool) -> ParsedAnswer:
    """Parse a JSON document or an event stream; `whole` is False if it cannot be parsed."""
    try:
        return _read_stream(body) if stream else _read_document(json.loads(body))
    except (ValueError, TypeError, KeyError, AttributeError):
        return ParsedAnswer(whole=False)


def _read_document(document: dict[str, Any]) -> ParsedAnswer:
    usage = document.get("usage") or {}
    choices = [_read_choice(choice) for choice in document.get("choices") or ()]
    return _body(usage, choices, whole_number(usage.get("completion_tokens")), whole=True)


def _read_stream(body: bytes) -> ParsedAnswer:
    """Parse a stream; without usage, chunks with text stand in for its completion tokens."""
    lines = [line[5:].strip() for line in body.splitlines() if line.startswith(b"data:")]
    chunks = [json.loads(line) for line in lines if line != b"[DONE]"]
    # The last one: with continuous_usage_stats every chunk has a usage.
    usage: dict[str, Any] = next((c["usage"] for c in reversed(chunks) if c.get("usage")), {})
    choices = [_read_choice(choice) for chunk in chunks for choice in chunk.get("choices") or ()]
    tokens = whole_number(usage.get("completion_tokens")) or sum(bool(c.size) for c in choices)
    return _body(usage, choices, tokens, whole=lines[-1:] == [b"[DONE]"])


@dataclass(frozen=True, slots=True)
class _ChoicePart:
    """A choice of a document or of a chunk; `size` is the length of its text in characters."""

    index: int
    size: int
    finish: str


def _read_choice(choice: dict[str, Any]) -> _ChoicePart:
    part = choice.get("delta") or choice.get("message") or {}
    text = choice.get("text") or part.get("content") or ""
    return _ChoicePart(choice.get("index", 0), len(text), choice.get("finish_reason") or "")


def _body(
    usage: dict[str, Any], choices: Sequence[_ChoicePart], tokens: int, *, whole: bool
) -> ParsedAnswer:
    finishes = {choice.finish for choice in choices if choice.finish}
    return ParsedAnswer(
        whole=whole,
        prompt_tokens=whole_number(usage.get("prompt_tokens")),
        completion_tokens=tokens,
        longest_tokens=_longest(tokens, choices),
        finish="length" if "length" in finishes else next(iter(sorted(finishes)), ""),
    )


def _longest(tokens: int, choices: Sequence[_ChoicePart]) -> int:
    """Divide tokens, which usage counts over all sequences, by the lengths of their texts."""
    sizes: Counter[int] = Counter()
    for choice in choices:
        sizes[choice.index] += choice.size
    total = sizes.total()
    return math.ceil(tokens * max(sizes.values()) / total) if total else tokens


def whole_number(value: object) -> int:
    """Return a non-negative integer, 0 for anything else."""
    text = str(value)
    return int(text) if text.isdigit() else 0
