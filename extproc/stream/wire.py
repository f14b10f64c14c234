"""Protobuf's wire format, for messages that are read or written without objects of their fields.

Source: https://protobuf.dev/programming-guides/encoding/. Field numbers are those of the generated
messages.
"""

from typing import Final

from google.protobuf.message import Message

NUMBER: Final = 0
DOUBLE: Final = 1
BYTES: Final = 2  # a text or a message, too
"""Wire types: how the value of a field is encoded."""

MAP_KEY: Final = 0x0A
MAP_VALUE: Final = 0x12
"""The tags of every map's entry, whose value is a text or a message."""

_MORE: Final = 0x80  # the bit of a varint's byte that another one follows
_TWO_BYTES: Final = 1 << 14  # what two bytes of a varint cannot say
_MOST_SHIFT: Final = 35  # of a number of 32 bits


def tag(message: type[Message], name: str, wire_type: int = BYTES) -> int:
    """Return the byte before a field, whose number is below 16."""
    return message.DESCRIPTOR.fields_by_name[name].number << 3 | wire_type


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number, and where what follows it starts. Raises IndexError."""
    number = data[at]
    at += 1
    if number < _MORE:
        return number, at
    number &= 0x7F
    shift = 7
    while shift < _MOST_SHIFT:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < _MORE:
            return number, at
        shift += 7
    raise IndexError


def field(tag: bytes, content: bytes) -> bytes:
    """Return a field of bytes or of a message."""
    size = len(content)
    if size < _MORE:
        return tag + _ONE_BYTE[size] + content
    if size < _TWO_BYTES:
        return tag + bytes((size & 0x7F | _MORE, size >> 7)) + content
    return b"".join((tag, _varint(size), content))


_ONE_BYTE: Final = [bytes([size]) for size in range(_MORE)]


def _varint(number: int) -> bytes:
    found = bytearray()
    while number >= _MORE:
        found.append(number & 0x7F | _MORE)
        number >>= 7
    found.append(number)
    return bytes(found)
