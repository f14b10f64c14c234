"""Read what matters for routing off a request's body, for every API that vLLM serves.

The rule it keeps: a router is not a validator. What can be counted is counted, whatever is wrong
beside it, and a body that cannot be read at all ends in UnreadableRequest and in nothing else.
"""

import enum
from dataclasses import dataclass
from typing import Final

import msgspec

from extproc.encoding import Decoder, EncodingError
from extproc.request.apis import APIS, Api, Endpoint, endpoint
from extproc.request.image import Image
from extproc.request.prompt import Prompt
from extproc.request.sample import SAMPLE_BYTES, measure

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_NODES",
    "MAX_TOKENS",
    "SAMPLE_BYTES",
    "Endpoint",
    "Image",
    "Request",
    "Unreadable",
    "UnreadableRequest",
    "endpoint",
    "read_request",
]

MAX_BODY_BYTES: Final = 64 << 20
"""The longest body that is read by default, in bytes, before and after decoding."""

MAX_NODES: Final = 1 << 20
"""The most JSON values in a body, as its commas and brackets tell: one takes up to 250 bytes."""

MAX_TOKENS: Final = 2**31 - 1
"""What a larger limit or number of sequences is taken for."""

MAX_MODEL_CHARS: Final = 256

_JSON: Final = msgspec.json.Decoder()


class Unreadable(enum.Enum):
    """Why a body could not be read."""

    ENCODING = "encoding"  # an unknown content encoding, or corrupt or truncated data
    TOO_LARGE = "too_large"  # in bytes, or in JSON values
    DEPTH = "depth"  # nested deeper than the interpreter reads
    JSON = "json"  # not JSON; NaN and lone surrogates are not
    SHAPE = "shape"  # not an object, or one that does not hold the prompt that the pool sees
    EMPTY = "empty"


class UnreadableRequest(Exception):  # noqa: N818 - what the client sent, not an error of ours
    """A body that cannot be read, and why: `reason`."""

    def __init__(self, reason: Unreadable) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a body asks of a pool."""

    model: str
    """As the client wrote it, at most MAX_MODEL_CHARS of it; "" where absent."""
    text_bytes: int
    """UTF-8 bytes, after JSON decoding, of every text that the chat template sees."""
    sample: bytes
    """That text, or where it is longer than SAMPLE_BYTES, pieces of it at even distances."""
    token_ids: int
    """Prompt tokens that were given as ids."""
    messages: int
    """Messages with the system prompt (chat), prompts (completions, embeddings), pairs (score)."""
    tools: int
    """Tool and function definitions, and tool calls."""
    images: tuple[Image, ...]
    audios: int
    videos: int
    max_tokens: int | None
    """The limit of one sequence; None where there is none, or one that no pool accepts."""
    sequences: int
    """How many sequences are generated for each prompt, at least 1."""
    usage_unstated: bool
    """Whether the answer is a stream, of one sequence, without usage as nothing was said of it."""
    generates: bool
    """Whether tokens come out at all."""


def read_request(
    endpoint: Endpoint, body: bytes, encoding: str = "", *, max_bytes: int = MAX_BODY_BYTES
) -> Request:
    """Read a body that was sent to an endpoint, with its content-encoding header.

    Raises UnreadableRequest, and nothing else.
    """
    text = _decoded(body, encoding, max_bytes)
    try:
        return _read(APIS[endpoint], _object(text))
    except RecursionError:
        raise UnreadableRequest(Unreadable.DEPTH) from None


def _decoded(body: bytes, encoding: str, max_bytes: int) -> bytes:
    if len(body) > max_bytes:
        raise UnreadableRequest(Unreadable.TOO_LARGE)
    if not encoding:
        return body
    pieces: list[bytes] = []
    room = max_bytes
    try:
        decoder = Decoder(encoding)
        for piece in decoder.feed(body):
            pieces.append(piece)
            room -= len(piece)
            if room < 0:
                break
    except EncodingError:
        raise UnreadableRequest(Unreadable.ENCODING) from None
    if room < 0:
        raise UnreadableRequest(Unreadable.TOO_LARGE)
    if body and not decoder.complete:
        raise UnreadableRequest(Unreadable.ENCODING)
    return b"".join(pieces)


def _object(text: bytes) -> dict[str, object]:
    if not text or text.isspace():
        raise UnreadableRequest(Unreadable.EMPTY)
    if len(text) > MAX_NODES and sum(map(text.count, (b",", b"[", b"{"))) > MAX_NODES:
        raise UnreadableRequest(Unreadable.TOO_LARGE)
    try:
        value = _JSON.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnreadableRequest(Unreadable.JSON) from None
    if not isinstance(value, dict):
        raise UnreadableRequest(Unreadable.SHAPE)
    return value


def _read(api: Api, body: dict[str, object]) -> Request:
    if any(body.get(field) is not None for field in api.opaque):
        raise UnreadableRequest(Unreadable.SHAPE)
    prompt = Prompt()
    for field, reader in api.prompt.items():
        if (value := body.get(field)) is not None:
            reader(prompt, value)
    text_bytes, sample = measure(prompt.texts)
    model = body.get("model")
    return Request(
        model=model[:MAX_MODEL_CHARS] if isinstance(model, str) else "",
        text_bytes=text_bytes,
        sample=sample,
        token_ids=prompt.token_ids,
        messages=_messages(api, body),
        tools=prompt.tools,
        images=tuple(prompt.images),
        audios=prompt.audios,
        videos=prompt.videos,
        max_tokens=_limit(api, body),
        sequences=_sequences(api, body),
        usage_unstated=api.usage_optional
        and body.get("stream") is True
        and "stream_options" not in body
        and _answers(api, body) <= 1,
        generates=api.generates,
    )


def _messages(api: Api, body: dict[str, object]) -> int:
    headings = sum(bool(body.get(field)) for field in api.headings)
    return headings + max(_entries(body.get(field)) for field in api.entries)


def _entries(value: object) -> int:
    match value:
        case None | []:
            return 0
        case [list(), *_]:  # conversations, or prompts as ids
            return sum(_length(each) for each in value)
        case [dict() | str(), *_]:
            return len(value)
        case _:
            return 1


def _length(value: object) -> int:
    return len(value) if isinstance(value, list) and value and isinstance(value[0], dict) else 1


def _limit(api: Api, body: dict[str, object]) -> int | None:
    # vLLM: chat_completion/protocol.py, build_tok_params: the newer name holds, unless it is null.
    for field in api.limits:
        if (value := body.get(field, api.limit)) is not None:
            return _whole(value)
    return None


def _answers(api: Api, body: dict[str, object]) -> int:
    # vLLM answers several prompts in one stream, as it does several sequences of one.
    prompts = _entries(body.get("prompt")) if "prompt" in api.entries else 1
    return prompts * _sequences(api, body)


def _sequences(api: Api, body: dict[str, object]) -> int:
    stated = [_whole(body[field]) or 1 for field in api.sequences if field in body]
    return max(stated, default=1)


def _whole(value: object) -> int | None:
    # As pydantic does where vLLM wants an int: 100.0 and " 100 " are 100, true is 1.
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int | float) and value >= 1 and value % 1 == 0:
        return int(min(value, MAX_TOKENS))
    return None
