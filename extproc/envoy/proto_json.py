"""Scalars, enums and well-known types of protobuf in the JSON that Envoy takes.

Envoy is laxer than https://protobuf.dev/programming-guides/json/: quoted numbers and booleans, and
enum values in any case, are read.
"""

import base64
import binascii
import contextlib
import difflib
import json
from collections.abc import Mapping
from datetime import date

import betterproto2
from betterproto2 import Message
from envoy_data_plane.google import protobuf

from extproc.envoy.document import Finding, Part

WRAPPERS = (
    protobuf.BoolValue,
    protobuf.BytesValue,
    protobuf.DoubleValue,
    protobuf.FloatValue,
    protobuf.Int32Value,
    protobuf.Int64Value,
    protobuf.StringValue,
    protobuf.UInt32Value,
    protobuf.UInt64Value,
)
# Messages whose JSON is not a mapping of their fields, and what it is instead.
JSON_FORMS: Mapping[type[Message], tuple[type, str]] = {
    protobuf.Duration: (str, "a duration such as 0.25s"),
    protobuf.Timestamp: (str, "a time such as 2025-01-31T08:00:00Z"),
    protobuf.ListValue: (list, "a list"),
    protobuf.Struct: (dict, "a mapping"),
    protobuf.Value: (object, "a JSON value"),
}


# What people call the scalars that are no whole numbers.
_KINDS = {
    "bool": "true or false",
    "bytes": "bytes in base64",
    "double": "a number",
    "float": "a number",
    "string": "text (with quotes, if it looks like a number)",
}


class WrongValue(Exception):  # noqa: N818 -- not an error of ours
    """A part that is not a value of its field; holds the finding."""

    def __init__(self, part: Part, text: str) -> None:
        self.finding = Finding(part.path, text)
        super().__init__(str(self.finding))


def unexpected(expected: str, part: Part) -> WrongValue:
    """Return the error for a part that is something other than expected."""
    return WrongValue(part, f"expected {expected}, found {_shown(part.value)}")


def read_scalar(proto_type: str, part: Part) -> object:
    """Return a scalar as Python has it; raises WrongValue."""
    try:
        return _scalar(proto_type, part.value)
    except (ValueError, OverflowError, binascii.Error):
        raise unexpected(_KINDS.get(proto_type, f"a whole number ({proto_type})"), part) from None


def read_enum(kind: type[betterproto2.Enum], part: Part) -> betterproto2.Enum:
    """Return an enum's value by its name or number; raises WrongValue."""
    if type(part.value) is int and part.value in list(kind):
        return kind(part.value)
    values = kind.betterproto_renamed_proto_names_to_value() | dict(kind.__members__)
    for name, value in values.items():
        if name.upper() == part.text.upper():
            return kind(value)
    near = difflib.get_close_matches(part.text.upper()[:80], values, n=1)
    fix = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(values)}"
    raise WrongValue(part, f"unknown value {_shown(part.value)}; {fix}")


def has_json_form(kind: type[Message], part: Part) -> bool:
    """Whether a part is to be read by read_json_form; Envoy takes a text's fields, too."""
    return kind in JSON_FORMS and not (JSON_FORMS[kind][0] is str and isinstance(part.value, dict))


def read_json_form(kind: type[Message], part: Part) -> Message:
    """Return a message of JSON_FORMS; raises WrongValue."""
    expected, text = JSON_FORMS[kind]
    if isinstance(part.value, expected):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return kind.from_dict(_plain(part.value))
    raise unexpected(text, part)


def _plain(value: object) -> object:
    # YAML has dates, and keys that are no text.
    match value:
        case dict():
            return {str(key): _plain(below) for key, below in value.items()}
        case list():
            return [_plain(below) for below in value]
        case date():
            return str(value)
    return value


def _scalar(proto_type: str, value: object) -> object:
    match proto_type, value:
        case ("bool", bool()) | ("string", str()):
            return value
        case "bool", "true" | "false":
            return value == "true"
        case "string", date():  # a date to YAML, text to Envoy
            return str(value)
        case "bytes", str():
            return base64.b64decode(value, validate=True)
        case (("float" | "double"), (int() | float() | str())) if not isinstance(value, bool):
            return float(value)
        case _, (int() | float() | str()) if proto_type.endswith(("32", "64")):
            return _whole(value)
    raise ValueError


def _whole(value: float | str) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def _shown(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
    return json.dumps(value, default=str)[:200]
