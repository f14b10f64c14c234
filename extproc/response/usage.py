"""What the JSON of an answer states about tokens: usage, finish reasons, errors.

One record type covers chat completions, completions, embeddings, scores, Responses, Anthropic
messages, Cohere's chats and embeddings, and their stream events; fields that are absent are None.
Counts come from outside and are used only if they are plausible.
"""

import codecs
import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from extproc.tokens import MAX_TOKENS

_IMPLAUSIBLE: Final = -1


class Finish(enum.Enum):
    """Why generation ended, over all sequences of an answer."""

    STOP = "stop"  # every sequence by itself
    LENGTH = "length"  # at least one at its limit or at the end of the window
    OTHER = "other"  # tool calls, filters, aborts, or nothing was generated
    UNTOLD = "untold"  # Envoy read the usage, and passes no reason on


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of one exchange, all prompts and all sequences of it together."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Prompt tokens that came from the prefix cache; 0 also if the pool does not state it."""
    finish: Finish


class Unlearnable(enum.Enum):
    """Why an answer teaches nothing."""

    ERROR = "error"  # the status is not 2xx, or the body is an error
    INCOMPLETE = "incomplete"  # it broke off
    ABSENT = "absent"  # complete, but it states no prompt tokens
    ENCODING = "encoding"  # unknown content encoding, or corrupt
    TOO_LARGE = "too_large"
    IMPLAUSIBLE = "implausible"  # counts that no exchange can have


def usage_by_envoy(
    prompt_tokens: int, completion_tokens: int, cached_tokens: int
) -> Usage | Unlearnable:
    """Return the usage of an answer from counts that Envoy read of it."""
    if not 1 <= prompt_tokens <= MAX_TOKENS or completion_tokens > MAX_TOKENS:
        return Unlearnable.IMPLAUSIBLE
    cached = min(cached_tokens, prompt_tokens)
    return Usage(prompt_tokens, completion_tokens, cached, Finish.UNTOLD)


class Choice(msgspec.Struct, gc=False):
    """One sequence of a chat completion or completion."""

    finish_reason: Any = None


class Record(msgspec.Struct, gc=False):
    """A JSON answer, or the data of one stream event; other fields are skipped unread."""

    type: str | None = None
    error: Any = None
    usage: msgspec.Raw = msgspec.Raw()
    choices: list[Choice] | None = None
    # Responses
    status: Any = None
    incomplete_details: Any = None
    response: "Record | str | None" = None
    # Anthropic
    stop_reason: Any = None
    message: "Record | str | None" = None  # in errors: a text
    # some servers' errors in streams
    error_type: Any = None
    error_message: Any = None
    delta: "Record | str | None" = None
    # /tokenize and /v1/messages/count_tokens
    count: Any = None
    max_model_len: Any = None
    input_tokens: Any = None
    # Cohere
    finish_reason: Any = None
    meta: Any = None  # of embeddings

    @property
    def states_usage(self) -> bool:
        """Whether it states a usage that is not null."""
        return bytes(self.usage) not in {b"", b"null"}


_RECORD: Final = msgspec.json.Decoder(Record)


def read_record(data: bytes | bytearray) -> Record | None:
    """Return the record: an empty one if the shape differs, None if the JSON is incomplete."""
    try:
        return _RECORD.decode(data)
    except msgspec.ValidationError:
        return Record()
    except (ValueError, RecursionError):
        return _read_leniently(data)


def _read_leniently(data: bytes | bytearray) -> Record | None:
    """Read what clients in Python accept: a byte order mark, and numbers that JSON does not have.

    Python's encoder writes these, for instance as the logarithm of a probability of 0.
    """
    if not (data.startswith(codecs.BOM_UTF8) or b"NaN" in data or b"Infinity" in data):
        return None
    try:
        return _RECORD.decode(msgspec.json.encode(json.loads(data)))  # NaN becomes null
    except msgspec.ValidationError:
        return Record()
    except (ValueError, RecursionError):
        return None


class Tally:
    """What the records of one answer have stated so far; a later usage replaces an earlier one."""

    __slots__ = ("_finishes", "_first", "_last")

    def __init__(self) -> None:
        self._first: dict[str, Any] = {}
        self._last = b""  # undecoded: if each chunk has a usage, only the last is decoded
        self._finishes: set[Finish] = set()

    def open(self, record: Record) -> None:
        """Add what is stated about the prompt before, or instead of, a final usage."""
        limited = record.max_model_len is not None  # only then does `count` count tokens
        counts = {"input_tokens": record.input_tokens, "prompt_tokens": limited and record.count}
        stated = _fields(bytes(record.usage)) or _billed(record.meta)
        self._first = stated or {k: v for k, v in counts.items() if v}

    def add(self, record: Record) -> None:
        """Add a whole answer, or a chunk of one."""
        if record.states_usage:
            self._last = bytes(record.usage)
        for choice in record.choices or ():
            if choice.finish_reason is not None:
                self._end(choice.finish_reason)
        for reason in (record.stop_reason, record.finish_reason):
            if reason is not None:
                self._end(reason)
        if record.status is not None:
            self._end(_reason(record))

    def _end(self, reason: object) -> None:
        self._finishes.add(_FINISHES.get(str(reason), Finish.OTHER))

    def usage(self) -> Usage | Unlearnable:
        """Return the usage of the whole answer."""
        stated = self._first | _fields(self._last)
        prompt, completion = _prompt_tokens(stated), _completion_tokens(stated)
        if prompt is None:
            return Unlearnable.ABSENT
        if prompt < 1 or completion < 0:
            return Unlearnable.IMPLAUSIBLE
        cached = min(max(_cached_tokens(stated), 0), prompt)
        return Usage(prompt, completion, cached, self._finish())

    def _finish(self) -> Finish:
        if Finish.LENGTH in self._finishes:
            return Finish.LENGTH
        return Finish.STOP if self._finishes == {Finish.STOP} else Finish.OTHER


_FINISHES: Final[Mapping[str, Finish]] = {
    # OpenAI's finish_reason
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    # Responses: status, or incomplete_details.reason
    "completed": Finish.STOP,
    "max_output_tokens": Finish.LENGTH,
    # Anthropic's stop_reason
    "end_turn": Finish.STOP,
    "stop_sequence": Finish.STOP,
    "max_tokens": Finish.LENGTH,
    "model_context_window_exceeded": Finish.LENGTH,
    # Cohere's finish_reason
    "COMPLETE": Finish.STOP,
    "STOP_SEQUENCE": Finish.STOP,
    "MAX_TOKENS": Finish.LENGTH,
}


def _reason(response: Record) -> object:
    match response.incomplete_details:
        case {"reason": reason}:
            return reason
        case _:
            return response.status


def _fields(usage: bytes) -> dict[str, Any]:
    """Return the fields of a usage that are not null."""
    if not usage:
        return {}
    try:
        fields = msgspec.json.decode(usage, type=dict[str, Any] | None) or {}
    except (ValueError, RecursionError):  # a text, a list, or a number out of range
        return {"prompt_tokens": _IMPLAUSIBLE}
    return _coheres(fields) or _without_nulls(fields)


def _coheres(stated: object) -> dict[str, Any]:
    """Return the counts of Cohere's shape, {"tokens": {"input_tokens": 10, ...}}, else none.

    Real Cohere bills fewer tokens than it counts, so `billed_units` are the second choice.
    """
    match stated:
        case {"tokens": {"input_tokens": _} as counts, **others} | {
            "billed_units": {"input_tokens": _} as counts,
            **others,
        }:
            cached = {"cached_tokens": others.get("cached_tokens") or 0}
            return _without_nulls(counts) | {"input_tokens_details": cached}
        case _:
            return {}


def _billed(meta: object) -> dict[str, Any]:
    """Return the counts of what vLLM states beside embeddings of Cohere's shape, else none."""
    match meta:
        case {"billed_units": units}:
            return _coheres({"billed_units": units})
        case _:
            return {}


def _without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _prompt_tokens(stated: dict[str, Any]) -> int | None:
    if "prompt_tokens" in stated:
        return _count(stated["prompt_tokens"])
    if "input_tokens" not in stated:
        return None
    # Anthropic's input_tokens exclude tokens read from the cache or written to it, and Cohere's
    # those of images.
    others = ("cache_read_input_tokens", "cache_creation_input_tokens", "image_tokens")
    parts = [_count(stated.get(key, 0)) for key in ("input_tokens", *others)]
    return _count(sum(parts)) if min(parts) >= 0 else _IMPLAUSIBLE


def _completion_tokens(stated: dict[str, Any]) -> int:
    return _count(stated.get("completion_tokens", stated.get("output_tokens", 0)))


def _cached_tokens(stated: dict[str, Any]) -> int:
    match stated.get("prompt_tokens_details", stated.get("input_tokens_details")):
        case {"cached_tokens": cached}:
            return _count(cached)
        case _:
            return _count(stated.get("cache_read_input_tokens", 0))


def _count(stated: object) -> int:
    """Return a count of tokens, or _IMPLAUSIBLE; a string of digits is a count."""
    match stated:
        case bool():
            return _IMPLAUSIBLE
        case int() if 0 <= stated <= MAX_TOKENS:
            return stated
        case float() if stated.is_integer():
            return _count(int(stated))
        case str() if len(stated) <= 10 and stated.isascii() and stated.isdigit():
            return _count(int(stated))
        case _:
            return _IMPLAUSIBLE
