"""Decode the fields of a body that are read, at a cost that is bounded by its bytes.

A body of few containers is decoded at once. Of any other, fields that are not read are skipped
without building their values, and lists of token ids are counted without building their numbers.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

MAX_NODES: Final = 1 << 15
"""The most lists and objects in one field beside lists of token ids."""

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE: Final = msgspec.json.Decoder()
_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SPACE: Final = b" \t\r\n"
_ID_CHARS: Final = b"0123456789,[]"
_PROBE_BYTES: Final = 256


class NoObjectError(Exception):
    """The JSON is not an object."""


class TooManyNodesError(Exception):
    """A field holds more than MAX_NODES values that have to be looked at."""


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
    if _containers(text) <= MAX_NODES and not _is_numeric(text):
        try:
            fields = _VALUE.decode(text)
        except msgspec.DecodeError:
            pass  # the fault may be in a field that is not read
        else:
            if isinstance(fields, dict):
                return fields
            raise NoObjectError
    try:
        undecoded = _FIELDS.decode(text)
    except msgspec.ValidationError as error:
        raise NoObjectError from error
    return {name: _decode(bytes(undecoded[name])) for name in names(undecoded) if name in undecoded}


def _is_numeric(text: bytes) -> bool:
    """Guess from the middle of a body whether it holds long lists of token ids."""
    middle = len(text) // 2
    return not text[middle : middle + _PROBE_BYTES].translate(None, _ID_CHARS + _SPACE)


def _decode(value: bytes) -> object:
    ids = _token_ids(value)
    if ids is not None:
        return ids
    if _containers(value) > MAX_NODES and _containers(_STRINGS.sub(b"", value)) > MAX_NODES:
        raise TooManyNodesError
    return _VALUE.decode(value)


def _containers(value: bytes) -> int:
    return value.count(b"[") + value.count(b"{")


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
    if flat.count(b"[") > MAX_NODES:
        raise TooManyNodesError
    lists = flat[2:-2].split(b"],[")
    if any(b"[" in ids or b"]" in ids for ids in lists):
        return None
    return [TokenIds(ids.count(b",") + 1) for ids in lists]
