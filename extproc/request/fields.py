"""Decode the fields of a body that are read, at a cost that is bounded by its bytes.

A body of few values is decoded at once. Of any other, fields that are not read are skipped
without building their values, and lists of token ids are counted without building their numbers.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from extproc.request.json_text import count_byte

MAX_NODES: Final = 1 << 15
"""The most lists and objects in the fields that are read, beside lists of token ids."""

MAX_ENTRIES: Final = 1 << 14
"""The most entries of lists and objects of a prompt that are looked at one by one."""

MAX_STRINGS: Final = 1 << 16
"""The most strings in a body, keys included."""

MAX_VALUES: Final = 1 << 16
"""The most values in the fields that are read, beside lists of token ids; keys do not count."""

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
# Python's float, since msgspec takes up to 13 us for a number of many digits or a large exponent.
_VALUE: Final = msgspec.json.Decoder(float_hook=float)
_SPACE: Final = b" \t\r\n"
_ID_CHARS: Final = b"0123456789,[]"
_PROBE_BYTES: Final = 256
_SHORT_BYTES: Final = 4096
_SMALL_BYTES: Final = 2 * MAX_NODES - 1  # each list has two brackets, each other value a comma
_BASE64: Final = b";base64,"
_FAR_BYTES: Final = 1 << 16  # to look for base64 takes longer than to count signs
_MOST_DATA: Final = 64


class NoObjectError(Exception):
    """The JSON is not an object."""


class TooManyNodesError(Exception):
    """A body has more strings or values than are read."""


class TokenIds(msgspec.Struct, frozen=True, gc=False):
    """A list of token ids, of which only the number matters."""

    count: int


def decode_fields(
    text: bytes, names: Callable[[Mapping[str, object]], Iterable[str]]
) -> dict[str, object]:
    """Decode a JSON object, at least the fields that `names` selects of all that are present.

    Long lists of token ids become TokenIds, or lists of TokenIds. Raises NoObjectError if the text
    is JSON of another type, msgspec.DecodeError or UnicodeDecodeError if it is not JSON, and
    TooManyNodesError.
    """
    signs = _without_base64(text)
    if _strings(signs) > MAX_STRINGS:
        raise TooManyNodesError
    if not _is_large(signs) and not _is_numeric(text):
        fields = _VALUE.decode(text)
        if isinstance(fields, dict):
            return fields
        raise NoObjectError
    try:
        undecoded = _FIELDS.decode(text)
    except msgspec.ValidationError as error:
        raise NoObjectError from error
    wanted = [name for name in names(undecoded) if name in undecoded]
    return _decode_all({name: bytes(undecoded[name]) for name in wanted})


def as_object(value: object) -> Mapping[str, object]:
    """Return a decoded value that is an object; an empty one for any other."""
    return value if isinstance(value, dict) else {}


def has_few_strings(text: bytes | bytearray | memoryview) -> bool:
    """Return whether a body has at most MAX_STRINGS, keys included."""
    return len(text) <= 2 * MAX_STRINGS or _strings(text) <= MAX_STRINGS


def is_small(text: bytes) -> bool:
    """Return whether all of a JSON value may be decoded, whatever it is."""
    return len(text) <= _SMALL_BYTES or (has_few_strings(text) and not _is_large(text))


def _without_base64(text: bytes) -> bytes:
    """Leave out long data in base64 from the places where it usually begins.

    It is within a string, up to whose next quote there are no signs of values.
    """
    pieces, rest = list[bytes](), 0
    while len(text) - rest > _FAR_BYTES and len(pieces) < _MOST_DATA:
        start = text.find(_BASE64, rest, rest + _FAR_BYTES)
        end = text.find(b'"', start) if start >= 0 else start
        if end < 0 or text[end - 1 : end] == b"\\":  # an escaped quote is no end
            break
        pieces.append(text[rest:start])
        rest = end
    return b"".join((*pieces, text[rest:])) if pieces else text


def _is_numeric(text: bytes) -> bool:
    """Guess from the middle of a body whether it holds long lists of token ids."""
    middle = len(text) // 2
    return not text[middle : middle + _PROBE_BYTES].translate(None, _ID_CHARS + _SPACE)


def _decode_all(values: Mapping[str, bytes]) -> dict[str, object]:
    known: dict[str, object] = {name: _token_ids(value) for name, value in values.items()}
    others = [value for name, value in values.items() if known[name] is None]
    # Together, or many fields of many values each would cost as often.
    if _is_large(*others) and _is_large(*map(_outside_strings, others)):
        raise TooManyNodesError
    return {
        name: _VALUE.decode(value) if known[name] is None else known[name]
        for name, value in values.items()
    }


def _is_large(*texts: bytes) -> bool:
    """Return whether there are too many values, if none of the signs is within a string."""
    nodes = sum(_count(text, b"[") + _count(text, b"{") for text in texts)
    return nodes > MAX_NODES or sum(_count(text, b",") for text in texts) >= MAX_VALUES


def _strings(text: bytes | bytearray | memoryview) -> int:
    quotes = _count(text, b'"')
    if quotes > 2 * MAX_STRINGS:
        text = bytes(text).replace(rb"\\", b"")  # so that a backslash before a quote escapes it
        quotes = _count(text, b'"') - text.count(rb"\"")
    return quotes // 2


def _count(text: bytes | bytearray | memoryview, sign: bytes) -> int:
    """Count a byte; in a long text bytes.count takes ten times as long as `count_byte`."""
    return bytes(text).count(sign) if len(text) < _SHORT_BYTES else count_byte(text, sign)


def _outside_strings(value: bytes) -> bytes:
    return b"".join(value.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])


def _token_ids(value: bytes) -> TokenIds | list[TokenIds] | None:
    """Count the ids of `[1, 2]` or `[[1, 2], [3]]`; None for any other value."""
    if not value.startswith(b"[") or value[:_PROBE_BYTES].translate(None, _ID_CHARS + _SPACE):
        return None
    if value.translate(None, _ID_CHARS + _SPACE):
        return None
    flat = value.translate(None, _SPACE)
    if flat == b"[]" or b"[]" in flat:
        return None
    if b"[" not in flat[1:]:
        return TokenIds(flat.count(b",") + 1)
    if flat.count(b"[") > MAX_ENTRIES:
        raise TooManyNodesError
    lists = flat[2:-2].split(b"],[")
    if any(b"[" in ids or b"]" in ids for ids in lists):
        return None
    return [TokenIds(ids.count(b",") + 1) for ids in lists]
