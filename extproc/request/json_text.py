"""Read JSON without decoding it: count signs, cut long strings out, write it as compact JSON.

Invariant: a decoder that puts back what was cut finds what it would find in the text, or fails as
it would; what is written is what an encoder makes of the decoded value. `json_text.c` does the
same, of more texts. Where the package is compiled, Python finds that instead.
"""

from typing import Final

import msgspec
import numpy as np

_MOST: Final = 32  # strings that are looked at: to find one takes as long as to decode one
_BACKSLASH: Final = 0x5C
_PIECE_BYTES: Final = 1 << 18  # so that what is compared stays in a cache
_SPACE: Final = 0x20  # the first that is no control character
_STRING: Final = msgspec.json.Decoder(str)


def count_byte(text: bytes | bytearray | memoryview, sign: bytes) -> int:
    """Count a byte, of a long text."""
    every = np.frombuffer(text, np.uint8)
    pieces = (every[start : start + _PIECE_BYTES] for start in range(0, len(text), _PIECE_BYTES))
    return sum(int(np.count_nonzero(piece == sign[0])) for piece in pieces)


def cut_long(
    text: bytes | bytearray | memoryview, mark: bytes, least: int
) -> tuple[list[bytes], list[bytes]]:
    """Return a text in pieces, with a mark and a number for each long string, and these strings.

    A string is long from `least` bytes on, 1 or more. The strings are decoded, in UTF-8. The
    numbers are those of their places in the list. Both lists are empty if nothing is cut: what is
    invalid stays, and here also what follows many strings or an escaped quote.
    """
    body, pieces, cut = bytes(text), list[bytes](), list[bytes]()
    kept = at = 0
    for _ in range(_MOST):
        start = body.find(b'"', at) + 1
        end = body.find(b'"', start)
        if not start or end < 0 or body[end - 1] == _BACKSLASH:
            break
        found = _decoded(body[start:end]) if end - start >= least else None
        if found is not None:
            pieces += (body[kept:start], b"%b%d" % (mark, len(cut)))
            cut.append(found)
            kept = end
        at = end + 1
    return ([*pieces, body[kept:]], cut) if cut else ([], [])


def write_compact(array: bytes) -> list[str] | None:  # noqa: ARG001
    """Return each of the objects in a JSON array as compact JSON; None to have it decoded.

    Python can only decode and encode. `json_text.c` does neither, and gives None for what is no
    array of objects, and for the rare numbers and keys that an encoder would write otherwise.
    """
    return None


def _decoded(content: bytes) -> bytes | None:
    if content.isascii() and b"\\" not in content:
        return content if np.frombuffer(content, np.uint8).min() >= _SPACE else None
    try:
        return _STRING.decode(b'"%b"' % content).encode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
