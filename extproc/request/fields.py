"""Decode the fields of a body that are read, at a cost that is bounded by its bytes.

Fields that are not read are skipped without building their values, and lists of token ids are
counted without building their numbers.
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

MAX_NODES: Final = 1 << 15
"""The most JSON values in one field beside strings and token ids, by commas and brackets."""

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE: Final = msgspec.json.Decoder()
_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SPACE: Final = b" \t\r\n"
_ID_CHARS: Final = b"0123456789,[]"
_PROBE_BYTES: Final = 256


class NoObjectError(Exception):
    """The JSON is not an object."""


class TooManyNodesError(Exception):
    """A field holds more than MAX_NODES values."""


class TokenIds(msgspec.Struct, frozen=True, gc=False):
    """A list of token ids, of which only the number matters."""

    count: int


def decode_fields(text: bytes) -> dict[str, msgspec.Raw]:
    """Split a JSON object into its undecoded fields.

    Raises NoObjectError if the text is JSON of another type, msgspec.DecodeError or
    UnicodeDecodeError if it is not JSON.
    """
    try:
        return _FIELDS.decode(text)
    except msgspec.ValidationError as error:
        raise NoObjectError from error


def decode_values(fields: dict[str, msgspec.Raw], names: Iterable[str]) -> dict[str, object]:
    """Decode the named fields that are present.

    Lists of token ids become TokenIds, or lists of TokenIds. Raises TooManyNodesError, and what
    `decode_fields` raises.
    """
    return {name: _decode(bytes(fields[name])) for name in names if name in fields}


def _decode(value: bytes) -> object:
    ids = _token_ids(value)
    if ids is not None:
        return ids
    if _nodes(value) > MAX_NODES:
        structure = _STRINGS.sub(b"", value)
        if _nodes(structure) > MAX_NODES:
            raise TooManyNodesError
    return _VALUE.decode(value)


def _nodes(value: bytes) -> int:
    return sum(map(value.count, (b",", b"[", b"{")))


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
