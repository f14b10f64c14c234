"""Request headers from HPACK blocks (RFC 7541), without decoding what nobody reads.

Our SETTINGS ask for an empty dynamic table. Once the peer keeps to that, a field means the same in
every block, so what it decodes to is kept by its bytes. The value of a field that is not needed,
such as that of a tracing header, is skipped: it is not even checked.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import hpack

MAX_LIST_BYTES: Final = 16_384
"""The longest header list that is advertised; larger ones are read, and their stream refused."""
MAX_BLOCK_BYTES: Final = 65_536
"""The longest header block that is read at all."""

_CUT_BYTES: Final = 4096  # of a block; the library bounds how many fields a longer one has
_KEPT: Final = 32  # of each kind; Envoy sends about twelve fields
_KEPT_LENGTH: Final = 256  # of a key
_KEPT_BYTES: Final = 1024  # of the fields of a request, without values that are skipped
_STATIC: Final = hpack.Decoder().header_table.STATIC_TABLE
_PSEUDO: Final = frozenset((b":method", b":path", b":scheme", b":authority"))
_NEEDED: Final = _PSEUDO | {b"content-type"}
# RFC 9113, section 8.2.2.
_FORBIDDEN: Final = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)

_Field = tuple[bytes, bytes]
_Key = TypeVar("_Key", bound=Collection[object])
_Kept = TypeVar("_Kept")


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """The headers of a request that matter here.

    malformed: they break RFC 9113, section 8. large: they exceed MAX_LIST_BYTES. is_request: False
    for trailers, which have no pseudo-headers.
    """

    path: str
    content_type: str
    malformed: bool
    large: bool
    is_request: bool


class HeaderReader:
    """Decodes the header blocks of one connection, in their order."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=4 * MAX_LIST_BYTES)
        self._alone = hpack.Decoder(max_header_list_size=4 * MAX_LIST_BYTES)
        self._alone.header_table_size = 0
        self._is_empty = False  # the dynamic table, for good: it has no room
        self._skipped: dict[bytes, _Field] = {}  # by the bytes of the name
        self._fields: dict[bytes, _Field] = {}  # by all bytes
        self._requests: dict[tuple[_Field, ...], RequestHeaders] = {}
        # Without tracing all requests have the same block.
        self._blocks: dict[bytes, RequestHeaders] = {}

    def require_empty_table(self) -> None:
        """Take an index into the dynamic table for an error: the peer has acknowledged that."""
        self._decoder.max_allowed_table_size = 0

    def read(self, block: bytes) -> RequestHeaders:
        """Decode a block. Raises hpack.HPACKError, after which no other block can be read."""
        if self._is_empty and len(block) <= _CUT_BYTES:
            found = self._blocks.get(block) or self._read_plain(block)
            if found is not None:
                return found
        decoded = list(self._decoder.decode(block, raw=True))
        self._is_empty = not self._decoder.header_table_size
        size = sum(len(name) + len(value) + 32 for name, value in decoded)
        plain_fields = [(bytes(name), bytes(value)) for name, value in decoded]
        return _request_headers(plain_fields, large=size > MAX_LIST_BYTES)

    def _read_plain(self, block: bytes) -> RequestHeaders | None:
        """Read a block while the table is empty; None if only the library can."""
        fields = self._cut(block)
        if fields is None:
            return None
        found = self._request(tuple(fields))
        _keep(self._blocks, block, found)
        return found

    def _request(self, fields: tuple[_Field, ...]) -> RequestHeaders:
        known = self._requests.get(fields)
        if known is None:
            known = _request_headers(fields, large=False)
            if sum(len(name) + len(value) for name, value in fields) <= _KEPT_BYTES:
                _keep(self._requests, fields, known)
        return known

    def _cut(self, block: bytes) -> list[_Field] | None:
        """Return the fields of a block; None if only the library can tell what it means."""
        fields, at, end = [], 0, len(block)
        try:
            while at < end:
                start, first = at, block[at]
                if first & 0x80:
                    fields.append(_STATIC[(first & 0x7F) - 1 if first > 0x80 else len(_STATIC)])
                    at += 1
                    continue
                named = _after_name(block, at)
                at = _after_string(block, named)
                fields.append(self._field(block[start:named], block[start:at]))
        except (IndexError, hpack.HPACKError):
            return None
        return fields if at == end else None

    def _field(self, name: bytes, field: bytes) -> _Field:
        found = self._skipped.get(name) or self._fields.get(field)
        if found is None:
            found = self._decode(field)
            if found[0] in _NEEDED:
                _keep(self._fields, field, found)
            else:
                found = found[0], b""
                _keep(self._skipped, name, found)
        return found

    def _decode(self, field: bytes) -> _Field:
        [(name, value)] = self._alone.decode(field, raw=True)
        return bytes(name), bytes(value)


def _keep(kept: dict[_Key, _Kept], key: _Key, value: _Kept) -> None:
    if len(key) <= _KEPT_LENGTH:
        if len(kept) >= _KEPT:
            kept.clear()
        kept[key] = value


def _after_name(block: bytes, at: int) -> int:
    """Return where a literal's name ends. Raises IndexError for what the library must read."""
    first = block[at]
    if first & 0x40:
        index, whole = first & 0x3F, 0x3F
    elif first & 0x20:  # a change of the table's size
        raise IndexError
    else:
        index, whole = first & 0x0F, 0x0F
    if index == 0:
        return _after_string(block, at + 1)
    if index < whole:
        return at + 1
    # The index goes on in the next byte; the static table ends at 61.
    if index + block[at + 1] > len(_STATIC):
        raise IndexError
    return at + 2


def _after_string(block: bytes, at: int) -> int:
    """Return where a string ends. Raises IndexError for what the library must read."""
    length = block[at] & 0x7F
    if length < 0x7F:
        return at + 1 + length
    low, high = block[at + 1], block[at + 2]
    if low < 0x80:
        return at + 2 + 0x7F + low
    if high < 0x80:
        return at + 3 + 0x7F + (low & 0x7F) + (high << 7)
    raise IndexError


def _request_headers(fields: Iterable[_Field], *, large: bool) -> RequestHeaders:
    found: dict[bytes, bytes] = {}
    malformed = regular = False
    for name, value in fields:
        if name[:1] == b":":
            malformed |= regular or name in found or name not in _PSEUDO
            found[name] = value
        else:
            regular = True
            malformed |= name in _FORBIDDEN or name != name.lower()
            if name in _NEEDED:
                found[name] = value
    return _checked(found, malformed=malformed, large=large)


def _checked(found: Mapping[bytes, bytes], *, malformed: bool, large: bool) -> RequestHeaders:
    is_request = any(name in found for name in _PSEUDO)
    required = (b":method", b":path", b":scheme")
    return RequestHeaders(
        path=found.get(b":path", b"").decode("latin-1"),
        content_type=found.get(b"content-type", b"").decode("latin-1"),
        malformed=malformed or (is_request and not all(found.get(name) for name in required)),
        large=large,
        is_request=is_request,
    )
