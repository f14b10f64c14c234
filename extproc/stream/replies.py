"""Replies to Envoy, encoded from what they say.

The service sets few fields of a ProcessingResponse, and most of their values repeat: a tree of
protobuf objects costs more than a decision.
"""

import struct
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from google.protobuf import struct_pb2
from google.protobuf.message import Message

from extproc.names import NAMESPACE
from extproc.protos.envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ProcessingResponse,
    StreamedBodyResponse,
)
from extproc.stream.wire import BYTES, DOUBLE, MAP_KEY, MAP_VALUE, NUMBER, field, tag

_KEPT: Final = 1024


def _tag(message: type[Message], name: str, wire_type: int = BYTES) -> bytes:
    return bytes([tag(message, name, wire_type)])


_PARTS: Final = {
    name: _tag(ProcessingResponse, name)
    for name in (
        "request_headers",
        "request_body",
        "request_trailers",
        "response_headers",
        "response_body",
        "response_trailers",
    )
}
_METADATA: Final = _tag(ProcessingResponse, "dynamic_metadata")
_RESPONSE: Final = _tag(HeadersResponse, "response")  # and of a BodyResponse
_HEADERS: Final = _tag(CommonResponse, "header_mutation")
_BODY: Final = _tag(CommonResponse, "body_mutation")
_CLEAR_ROUTE: Final = _tag(CommonResponse, "clear_route_cache", NUMBER) + b"\1"
_SET: Final = _tag(HeaderMutation, "set_headers")
_HEADER: Final = _tag(HeaderValueOption, "header")
_OVERWRITE: Final = _tag(HeaderValueOption, "append_action", NUMBER) + bytes(
    [HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD]
)
_KEY: Final = _tag(HeaderValue, "key")
_RAW_VALUE: Final = _tag(HeaderValue, "raw_value")
_WHOLE: Final = _tag(BodyMutation, "body")
_CHUNK: Final = _tag(BodyMutation, "streamed_response")
_CHUNK_BYTES: Final = _tag(StreamedBodyResponse, "body")
_CHUNK_ENDS: Final = _tag(StreamedBodyResponse, "end_of_stream", NUMBER) + b"\1"
_FIELDS: Final = _tag(struct_pb2.Struct, "fields")
_ENTRY_KEY, _ENTRY_VALUE = bytes([MAP_KEY]), bytes([MAP_VALUE])
_NUMBER: Final = _tag(struct_pb2.Value, "number_value", DOUBLE)
_TEXT: Final = _tag(struct_pb2.Value, "string_value")
_BOOL: Final = _tag(struct_pb2.Value, "bool_value", NUMBER)
_STRUCT: Final = _tag(struct_pb2.Value, "struct_value")

Note = Mapping[str, str | float | bool]
NOTHING: Final[Note] = MappingProxyType({})
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


def reply(
    part: str,
    headers: Mapping[str, str] = NO_HEADERS,
    note: Note = NOTHING,
    body: bytes | None = None,
) -> bytes:
    """Return a reply to the headers, the body or the trailers of one direction.

    `part` is the name of the message that it answers. If headers are set, Envoy chooses the route
    again; it ignores such a wish, and counts it, without them. `body` replaces the whole body.
    """
    if not headers and not note and body is None:
        return _plain(part)
    common = b""
    if headers:
        options = b"".join([_option(key, value) for key, value in headers.items()])
        common = field(_HEADERS, options)
    if body is not None:
        common += field(_BODY, field(_WHOLE, body))
    if headers:
        common += _CLEAR_ROUTE
    answer = field(_PARTS[part], field(_RESPONSE, common))
    return answer + _metadata(note) if note else answer


def chunk(part: str, data: bytes, *, ends: bool) -> bytes:
    """Return a reply with a piece of a full-duplex body."""
    piece = (field(_CHUNK_BYTES, data) if data else b"") + (_CHUNK_ENDS if ends else b"")
    return field(_PARTS[part], field(_RESPONSE, field(_BODY, field(_CHUNK, piece))))


@lru_cache
def _plain(part: str) -> bytes:
    return field(_PARTS[part], b"" if part.endswith("trailers") else field(_RESPONSE, b""))


@lru_cache(_KEPT)
def _option(key: str, value: str) -> bytes:
    raw = value.encode("latin-1", "replace")
    header = field(_KEY, key.encode()) + (field(_RAW_VALUE, raw) if raw else b"")
    return field(_SET, field(_HEADER, header) + _OVERWRITE)


def _metadata(note: Note) -> bytes:
    told = field(_ENTRY_VALUE, field(_STRUCT, _entries(note)))
    entry = field(_ENTRY_KEY, NAMESPACE.encode()) + told
    return field(_METADATA, field(_FIELDS, entry))


def _entries(note: Note) -> bytes:
    return b"".join(
        [
            field(_FIELDS, field(_ENTRY_KEY, key.encode()) + field(_ENTRY_VALUE, _value(value)))
            for key, value in note.items()
        ]
    )


def _value(value: str | float | bool) -> bytes:  # noqa: FBT001 - any value of a note
    if isinstance(value, str):
        return field(_TEXT, value.encode())
    if isinstance(value, bool):
        return _BOOL + bytes([value])
    return _NUMBER + struct.pack("<d", value)
