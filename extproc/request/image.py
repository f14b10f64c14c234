"""Read the size of an image from its first bytes: PNG, JPEG, GIF and WebP in base64.

Invariant: at most HEAD_CHARS of an image are decoded, and none of its pixels.
"""

import binascii
import struct
from dataclasses import dataclass
from typing import Final

HEAD_CHARS: Final = 64 * 1024
"""Base64 characters that are read: a JPEG may begin with a thumbnail and a colour profile."""

MAX_SIDE: Final = 0xFFFF
"""The longest plausible side, in pixels: the most that JPEG and GIF can state."""

_PREFIX_CHARS: Final = 64  # 48 bytes: all formats but JPEG state their size within 30
_PREFIX_BYTES: Final = 30
_DATA_URL_CHARS: Final = 256
_MAX_SEGMENTS: Final = 256

URL_CHARS: Final = _DATA_URL_CHARS + HEAD_CHARS
"""Characters of a URL that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """The size of an image in pixels; 0 x 0 if unknown."""

    width: int
    height: int


UNKNOWN: Final = Image(width=0, height=0)


def read_image(source: object) -> Image:
    """Return the size of an image in any form that the APIs accept; never raises.

    A source is a URL, {"url": URL} (chat completions), or {"data": base64} (Anthropic). The result
    is UNKNOWN for a URL other than `data:`, and for a header that is broken or of another format.
    """
    match source:
        case str(url) | {"url": str(url)}:
            return _from_url(url)
        case {"data": str(data)}:
            return _from_base64(data)
        case _:
            return UNKNOWN


def _from_url(url: str) -> Image:
    head, comma, _ = url[:_DATA_URL_CHARS].partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        return UNKNOWN
    start = len(head) + 1
    return _from_base64(url[start : start + HEAD_CHARS])


def _from_base64(text: str) -> Image:
    prefix = _bytes(text[:_PREFIX_CHARS]).ljust(_PREFIX_BYTES, b"\0")
    if prefix.startswith(b"\xff\xd8\xff"):
        width, height = _jpeg(_bytes(text[:HEAD_CHARS]))
    else:
        width, height = _size(prefix)
    if 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE:
        return Image(width=width, height=height)
    return UNKNOWN


def _bytes(text: str) -> bytes:
    compact = "".join(text.split())
    try:
        return binascii.a2b_base64(compact[: len(compact) // 4 * 4])
    except ValueError:
        return b""


def _size(head: bytes) -> tuple[int, int]:
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        return _pair(">II", head, 16)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return _pair("<HH", head, 6)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return _webp(head)
    return 0, 0


def _webp(head: bytes) -> tuple[int, int]:
    # RFC 9649, sections 2.5 to 2.7; RFC 6386, section 9.1.
    match head[12:16]:
        case b"VP8 " if head[23:26] == b"\x9d\x01\x2a":
            width, height = _pair("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L" if head[20] == 0x2F:
            bits = int.from_bytes(head[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return (
                int.from_bytes(head[24:27], "little") + 1,
                int.from_bytes(head[27:30], "little") + 1,
            )
        case _:
            return 0, 0


def _jpeg(data: bytes) -> tuple[int, int]:
    # ITU-T T.81, annex B: segments, each with its length, up to the frame header (SOF0 to SOF15).
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if at + 9 > len(data) or data[at] != 0xFF:
            break
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = _pair(">HH", data, at + 5)
            return width, height
        fill = marker == 0xFF
        at += 1 if fill else 2 + int.from_bytes(data[at + 2 : at + 4])
    return 0, 0


def _pair(layout: str, data: bytes, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(layout, data, at)
    return first, second
