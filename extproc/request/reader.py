"""Read what routing needs from the body of a request, for every API that vLLM serves.

Invariant: a router is not a validator. Whatever can be counted is counted, even beside invalid
fields, and a body that cannot be read at all raises UnreadableRequest and nothing else.
"""

from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from json import detect_encoding
from typing import Final

import msgspec

from extproc.encoding import Decoder, EncodingError
from extproc.request.apis import Api, Endpoint, api_of, endpoint
from extproc.request.fields import NoObjectError, TooManyNodesError, as_object, decode_fields
from extproc.request.form import FIELDS as FORM_FIELDS
from extproc.request.form import Form, read_form
from extproc.request.image import Image
from extproc.request.plain import PlainChat, PlainTexts, decode_plain
from extproc.request.prompt import OpaquePartError, Prompt
from extproc.request.prompts import Prompts, read_prompts
from extproc.request.request import Request, Unreadable, UnreadableRequest
from extproc.request.sample import SAMPLE_BYTES, as_str, take_sample
from extproc.request.thinking import FIELDS as THINKING_FIELDS
from extproc.request.thinking import Thinking, read_thinking
from extproc.tokens import MAX_TOKENS

__all__ = [
    "MAX_BODY_BYTES",
    "SAMPLE_BYTES",
    "Endpoint",
    "Form",
    "Image",
    "Prompt",
    "Prompts",
    "Request",
    "Thinking",
    "Unreadable",
    "UnreadableRequest",
    "endpoint",
    "read_request",
]

MAX_BODY_BYTES: Final = 64 << 20
"""The longest body that is read by default, in bytes, before and after decompression."""

MAX_DECODED_BYTES: Final = 1 << 20
"""The longest body that is decompressed, in bytes: vLLM reads none at all."""

FREE_DECODED_BYTES: Final = 1 << 16
MAX_DECODED_RATIO: Final = 64
"""A body is decompressed to at most FREE_DECODED_BYTES, plus this many for each of its own."""

MAX_MODEL_CHARS: Final = 256
"""The longest model name that is kept whole."""

MAX_OUTPUTS: Final = 16_384
"""The most sequences for one prompt: vLLM's VLLM_MAX_N_SEQUENCES."""

_TEMPLATE_TOKENS: Final = 512  # more than any known chat template adds around all messages
_ENTRY_TOKENS: Final = 32  # and around each message or tool
_LOOKED_AT: Final = 1 << 16  # bytes: texts in larger bodies are taken to be of all characters
_MOST_GROWTH: Final = 11  # of bytes beyond ASCII: Unicode's NFKC writes U+FDFA's 3 as 33
_COMMON: Final = (
    "model",
    "stream",
    "stream_options",
    "truncate",
    "store",
    "background",
    "user",
    *THINKING_FIELDS,
    *FORM_FIELDS,
)


def read_request(
    endpoint: Endpoint,
    body: bytes | bytearray | memoryview,
    encoding: str = "",
    *,
    max_bytes: int = MAX_BODY_BYTES,
    turns: bool = False,
) -> Request:
    """Read a body that was sent to an endpoint; `encoding` is its content-encoding header.

    `turns` keeps those of a conversation with its prompt, so that its beginnings can be told.
    Raises UnreadableRequest, and nothing else.
    """
    if endpoint is Endpoint.CHAT and not encoding and len(body) <= max_bytes:
        plain = decode_plain(body)
        found = None if plain is None else plain[0].read(plain[1])
        if plain and found and not (turns and (found.calls or found.images)):
            return _read_plain(plain[0], found, _most_bytes(body), turns=turns)
    text = _utf8(_decoded(bytes(body), encoding, max_bytes))
    if not text or text.isspace():
        raise UnreadableRequest(Unreadable.EMPTY)
    try:
        fields = decode_fields(text, lambda found: (*api_of(endpoint, found).fields, *_COMMON))
        return _read(api_of(endpoint, fields), fields, _most_bytes(text), turns=turns)
    except (NoObjectError, OpaquePartError):
        raise UnreadableRequest(Unreadable.SHAPE) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UnreadableRequest(Unreadable.JSON) from None
    except TooManyNodesError:
        raise UnreadableRequest(Unreadable.TOO_LARGE) from None
    except RecursionError:
        raise UnreadableRequest(Unreadable.DEPTH) from None


def _read_plain(chat: PlainChat, found: PlainTexts, size: int, *, turns: bool) -> Request:
    messages, tools = len(chat.messages), len(found.definitions) + found.calls
    outputs = 1 if chat.n is None else min(_whole(chat.n) or 1, MAX_OUTPUTS)
    limit = chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens
    prompts = Prompts(
        (_plain_prompt(found.texts, messages, tools, found.definitions, found.images),),
        conversation=chat.conversation(list(map(as_str, found.texts)), _plain_prompt)
        if turns
        else None,
    )
    return Request(
        model=_name(chat.model),
        prompts=prompts,
        token_bound=None
        if found.images
        else _most_tokens(size, messages + tools, rendered=tools > 0),
        max_tokens=_whole(limit),
        min_tokens=_whole(chat.min_tokens) or 0,
        outputs=outputs,
        usage_unstated=chat.usage_unstated,
        generates=True,
        truncates=False,
        stored=False,
        background=False,
        form=chat.form,
        user=chat.user or "",
    )


def _plain_prompt(
    texts: Sequence[str | bytes],
    messages: int,
    tools: int = 0,
    definitions: Sequence[str] = (),
    images: tuple[Image, ...] = (),
) -> Prompt:
    text_bytes, sample = take_sample(texts)
    return Prompt(
        text_bytes=text_bytes,
        sample=sample,
        token_ids=0,
        messages=messages,
        tools=tools,
        images=images,
        audios=0,
        videos=0,
        written=texts,
        definitions=definitions,
    )


def _decoded(body: bytes, encoding: str, max_bytes: int) -> bytes:
    if len(body) > max_bytes:
        raise UnreadableRequest(Unreadable.TOO_LARGE)
    if not encoding:
        return body
    # More than may come of it: to decode it costs time even if little does.
    if len(body) > MAX_DECODED_BYTES:
        raise UnreadableRequest(Unreadable.TOO_LARGE)
    pieces: list[bytes] = []
    room = min(max_bytes, MAX_DECODED_BYTES, FREE_DECODED_BYTES + MAX_DECODED_RATIO * len(body))
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


def _utf8(text: bytes) -> bytes:
    """Return a body of any encoding that vLLM detects, as UTF-8 without a byte order mark."""
    encoding = detect_encoding(text)
    if encoding in {"utf-8", "utf-8-sig"}:
        return text.removeprefix(BOM_UTF8)
    try:
        return text.decode(encoding).encode()
    except UnicodeError:
        raise UnreadableRequest(Unreadable.JSON) from None


def _read(api: Api, body: dict[str, object], size: int, *, turns: bool) -> Request:
    if any(body.get(field) is not None for field in api.opaque):
        raise UnreadableRequest(Unreadable.SHAPE)
    options = _options(api, body)
    prompts, outputs = read_prompts(api, body, turns=turns), _outputs(api, options)
    return Request(
        model=_name(body.get("model")),
        prompts=prompts,
        token_bound=_token_bound(prompts, body, size),
        max_tokens=_limit(api, options),
        min_tokens=(_whole(options.get(api.floor)) or 0) if api.floor else 0,
        outputs=outputs,
        usage_unstated=api.usage_optional
        and body.get("stream") is True
        and "stream_options" not in body,
        generates=api.generates,
        truncates=_truncates(api, body),
        stored=api.stores and bool(body.get("store", True)),
        background=api.stores and bool(body.get("background")),
        thinking=read_thinking(body) if api.generates else Thinking.UNSTATED,
        form=read_form(options) if api.generates else Form.FREE,
        user=user if isinstance(user := body.get("user"), str) else "",
    )


def _name(value: object) -> str:
    name = value if isinstance(value, str) else ""
    if len(name) <= MAX_MODEL_CHARS:
        return name
    digest = blake2b(name.encode(), digest_size=16).hexdigest()
    return f"{name[: MAX_MODEL_CHARS - len(digest)]}{digest}"


def _token_bound(prompts: Prompts, body: dict[str, object], size: int) -> int | None:
    parts = prompts.parts
    if any(part.has_media for part in parts):
        return None
    if body.get("chat_template") is not None:
        return None
    rendered = any(part.tools or part.optional for part in parts)
    entries = max(part.messages + part.tools for part in parts)
    return _most_tokens(size, entries, rendered=rendered)


def _most_bytes(body: bytes | bytearray | memoryview) -> int:
    """Return the bytes that a body's texts have at most once a tokenizer has normalised them.

    An escape has as many bytes as NFC writes its character with; to search for those of which NFKC
    makes more would take longer than all else that is read of a long text.
    """
    size = len(body)
    return size if size <= _LOOKED_AT and bytes(body).isascii() else size * _MOST_GROWTH


def _most_tokens(size: int, entries: int, *, rendered: bool) -> int:
    # A token of text has at least one byte. Decoding JSON makes no text longer, but templates write
    # it anew with spaces and lines, at most two tokens more for each of its signs.
    return size * (3 if rendered else 1) + _TEMPLATE_TOKENS + _ENTRY_TOKENS * entries


def _options(api: Api, body: dict[str, object]) -> Mapping[str, object]:
    return as_object(body.get(api.options)) if api.options else body


def _limit(api: Api, options: Mapping[str, object]) -> int | None:
    # vLLM: chat_completion/protocol.py, build_tok_params: the newer name wins unless it is null.
    for field in api.limits:
        if (value := options.get(field)) is not None:
            return _whole(value)
    return api.limit


def _truncates(api: Api, body: dict[str, object]) -> bool:
    if any(body.get(field) for field in api.truncations):
        return True
    if api.truncation and api.truncation in body and body[api.truncation] != "disabled":
        return True
    cohere = any(field in body for field in api.truncating)
    return cohere and body.get("truncate", "END") != "NONE"


def _outputs(api: Api, options: Mapping[str, object]) -> int:
    stated = [_whole(options[field]) or 1 for field in api.sequences if field in options]
    return min(max(stated, default=1), MAX_OUTPUTS)


def _whole(value: object) -> int | None:
    # As pydantic converts to int: 100.0 and " 100 " are 100, true is 1. For 0, which vLLM accepts
    # with echo, it generates one token.
    if isinstance(value, int):
        return max(1, min(value, MAX_TOKENS)) if value >= 0 else None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, float) and value >= 0 and value % 1 == 0:
        return max(1, int(min(value, MAX_TOKENS)))
    return None
