"""Request bodies of a given size, and the prompt tokens that a pool would count of them."""

import base64
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from extproc.simulator.pool.words import WORDS

KIB: Final = 1 << 10
MIB: Final = 1 << 20

# The tokens of these words by o200k_base are of about this many bytes.
_BYTES_PER_TOKEN: Final = 5.0
_IMAGE_TOKENS: Final = 1000
_PNG_1024_BY_768: Final = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (1024).to_bytes(4) + (768).to_bytes(4) + b"\x08\x02\0\0\0"
)


@dataclass(frozen=True, slots=True)
class Body:
    """A chat request, and the prompt tokens of its usage."""

    name: str
    data: bytes
    prompt_tokens: int


def text_body(size: int, seed: int = 0) -> Body:
    """Return a request of `size` bytes whose content is text."""
    name = f"{size // MIB} MB" if size >= MIB else f"{size // KIB} KB"
    return Body(name, make_body(size, seed), round(size / _BYTES_PER_TOKEN))


def image_body(size: int) -> Body:
    """Return a request of about `size` bytes with 1 KB of text; the rest is an image in base64."""
    draw = random.Random(0)  # noqa: S311 - nothing secret
    data = base64.b64encode(_PNG_1024_BY_768 + draw.randbytes(size * 3 // 4 - KIB)).decode()
    parts = [
        {"type": "text", "text": make_text(KIB, 0)},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
    ]
    tokens = round(KIB / _BYTES_PER_TOKEN) + _IMAGE_TOKENS
    return Body(f"{size // MIB} MB, image", encode_chat(parts), tokens)


def make_body(size: int, seed: int) -> bytes:
    """Return a chat request of exactly `size` bytes."""
    return encode_chat(make_text(size - len(encode_chat("")), seed))


def make_text(size: int, seed: int) -> str:
    """Return a text of exactly `size` ASCII characters, which JSON need not escape."""
    draw = random.Random(seed)  # noqa: S311 - nothing secret
    return "".join(draw.choices(WORDS, k=size // 4 + 1))[:size].ljust(size, ".")


def encode_chat(content: object, **more: object) -> bytes:
    """Return a chat request with one message of this content and any other fields."""
    return encode_messages([{"role": "user", "content": content}], **more)


def encode_messages(messages: Sequence[object], **more: object) -> bytes:
    """Return a chat request with these messages and any other fields."""
    return json.dumps({"model": "m", "max_tokens": 500, "messages": messages} | more).encode()
