"""Read an Envoy file into the messages of Envoy's API, as envoy-data-plane has them.

Unknown fields, values of the wrong type and wrong `@type`s are faults. Types that envoy-data-plane
does not have are not checked; required fields and permitted ranges are left to Envoy itself.
Invariant: reading a document of any shape ends without an error.
"""

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any

import betterproto2
import pydantic
from betterproto2 import FieldMetadata, Message
from envoy_data_plane.google import protobuf

from extproc.envoy.api_types import (
    API_VERSION,
    ApiField,
    api_fields,
    find_type,
    full_name,
    is_newer,
    nearest_type,
    successor,
)
from extproc.envoy.document import Finding, Part
from extproc.envoy.proto_json import (
    JSON_FORMS,
    WRAPPERS,
    WrongValue,
    has_json_form,
    read_enum,
    read_json_form,
    read_scalar,
    unexpected,
)

_MAX_DEPTH = 100
# With each alias written out: a few lines of YAML can stand for billions of values.
_MAX_VALUES = 200_000

_BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap"
# Documents other than a bootstrap, by a field that only they have.
_OTHER_ROOTS = {
    "configs": "envoy.admin.v3.ConfigDump",
    "resources": "envoy.service.discovery.v3.DiscoveryResponse",
}

_FILTERS = "envoy.extensions.filters."
# Where the types of an extension point are, by the field that holds them.
_PACKAGES = {
    "HttpFilter.typed_config": (f"{_FILTERS}http.",),
    "Filter.typed_config": (f"{_FILTERS}network.",),
    "ListenerFilter.typed_config": (f"{_FILTERS}listener.", f"{_FILTERS}udp."),
    "TransportSocket.typed_config": ("envoy.extensions.transport_sockets.",),
    "AccessLog.typed_config": ("envoy.extensions.access_loggers.",),
    "RetryPolicyRetryPriority.typed_config": ("envoy.extensions.retry.priority.",),
    "RetryPolicyRetryHostPredicate.typed_config": ("envoy.extensions.retry.host.",),
    "typed_extension_protocol_options": ("envoy.extensions.upstreams.", f"{_FILTERS}network."),
    "typed_per_filter_config": (f"{_FILTERS}http.", "envoy.config.route.v3.FilterConfig"),
}
# Fields that Envoy's v2 API had, and what replaces them.
_V2_FIELDS = {
    "hosts": "load_assignment",
    "tls_context": "transport_socket",
    "config": "typed_config",
    "per_filter_config": "typed_per_filter_config",
    "extension_protocol_options": "typed_extension_protocol_options",
    "regex": "safe_regex",
    "regex_match": "safe_regex_match",
    "allow_origin": "allow_origin_string_match",
}
_V2_TYPE = re.compile(r"\w+\.v2\.\w+\Z")
# Types that any extension point takes.
_WRAPPING = ("envoy.extensions.common.matching.", "google.protobuf.")
# Another type's name and JSON.
_TYPED_STRUCTS = ("/udpa.type.v1.TypedStruct", "/xds.type.v3.TypedStruct")


@dataclass(frozen=True, slots=True)
class SchemaReport:
    """An Envoy file's message without its faulty parts, its faults, and what was not checked."""

    message: Message | None
    faults: tuple[Finding, ...]
    unchecked: tuple[Finding, ...]


def check_schema(document: Part) -> SchemaReport:
    """Read a document as what its root says, by default a bootstrap."""
    reader = _MessageReader()
    if not _is_bounded(document.value):
        text = f"not checked: more than {_MAX_VALUES} values or {_MAX_DEPTH} levels"
        return SchemaReport(None, (Finding(document.path, text),), ())
    with warnings.catch_warnings():
        # Deprecated fields work; Envoy logs them.
        warnings.simplefilter("ignore", DeprecationWarning)
        message = reader.read_root(document)
    return SchemaReport(message, tuple(reader.faults), tuple(reader.unchecked))


class _Packed(protobuf.Any):
    """An Any whose message is encoded with the Any: encoding takes longer than reading."""

    def __init__(self, url: str, message: Message) -> None:
        super().__init__(type_url=url)
        self._message = message

    def __bytes__(self) -> bytes:
        return bytes(protobuf.Any(type_url=self.type_url, value=bytes(self._message)))


class _MessageReader:
    """Turns parts of a document into messages, and collects what is wrong with them."""

    def __init__(self) -> None:
        self.faults: list[Finding] = []
        self.unchecked: list[Finding] = []

    def read_root(self, document: Part) -> Message | None:
        try:
            if document.at("@type").present:
                return self._read_any(document, ())
            names = [name for key, name in _OTHER_ROOTS.items() if document.at(key).present]
            kind = find_type(next(iter(names), _BOOTSTRAP))
            return self._read_message(kind, document) if kind and document.present else None
        except WrongValue as wrong:
            self.faults.append(wrong.finding)
            return None

    def _read_message(self, kind: type[Message], part: Part) -> Message | None:
        if has_json_form(kind, part):
            return read_json_form(kind, part)
        if kind in WRAPPERS and not isinstance(part.value, dict):
            proto_type = api_fields(kind)["value"].meta.proto_type
            return self._build(kind, {"value": read_scalar(proto_type, part)}, part)
        if not isinstance(part.value, dict):
            raise unexpected(f"a mapping with fields of {full_name(kind)}", part)
        values = {}
        for key in part.value:
            child, field = part.at(key), api_fields(kind).get(key)
            if field is None:
                self._report_unknown_field(kind, str(key), child)
            # In JSON, null is the default.
            elif child.present and (value := self._read_field(field, child)) is not None:
                values[field.name] = value
        return self._build(kind, values, part)

    def _build(self, kind: type[Message], values: dict[str, object], part: Part) -> Message | None:
        for group, names in _groups(kind, values).items():
            if len(names) > 1:
                raise WrongValue(part, f"set only one of {', '.join(names)} ({group})")
        try:
            return kind(**values)
        except pydantic.ValidationError as error:
            for name in {str(each["loc"][0]) for each in error.errors()}:
                child = part.at(name) if isinstance(part.value, dict) else part
                proto_type = api_fields(kind)[name.rstrip("_")].meta.proto_type
                self.faults.append(unexpected(proto_type, child).finding)
            return None

    def _read_field(self, field: ApiField, part: Part) -> object:
        if field.meta.map_meta is not None:
            return self._read_map(field, field.meta.map_meta[1], part)
        if not field.meta.repeated:
            return self._read_value(field, field.meta, part)
        # Envoy takes a single value for a list of it.
        items = part.items() if isinstance(part.value, list) else [part]
        values = [self._read_value(field, field.meta, item) for item in items]
        return [value for value in values if value is not None]

    def _read_map(self, field: ApiField, meta: FieldMetadata, part: Part) -> object:
        if not isinstance(part.value, dict):
            self.faults.append(unexpected("a mapping", part).finding)
            return None
        values = {str(key): self._read_value(field, meta, part.at(key)) for key in part.value}
        return {key: value for key, value in values.items() if value is not None}

    def _read_value(self, field: ApiField, meta: FieldMetadata, part: Part) -> object:
        try:
            if meta.proto_type == betterproto2.TYPE_ENUM:
                return read_enum(field.kind, part)
            if meta.proto_type != betterproto2.TYPE_MESSAGE:
                return read_scalar(meta.proto_type, part)
            if field.kind is protobuf.Any:
                return self._read_any(part, _packages(field))
            kind = meta.unwrap() if meta.unwrap else field.kind
            message: Any = self._read_message(kind, part)
            return message.to_wrapped() if message is not None and meta.unwrap else message
        except WrongValue as wrong:
            self.faults.append(wrong.finding)
        except OverflowError:  # a duration or a time that Python's own types cannot hold
            self.faults.append(unexpected(JSON_FORMS[kind][1], part).finding)
        return None

    def _report_unknown_field(self, kind: type[Message], key: str, part: Part) -> None:
        if is_newer(kind, key):
            lacking = f"envoy-data-plane {API_VERSION} has no field {key!r}"
            self._skip(part, f"{lacking}, which Envoy 1.40 has")
            return
        text = f"unknown field of {full_name(kind)}; {_fix(kind, key)}"
        self.faults.append(Finding(part.path, text))

    def _skip(self, part: Part, reason: str) -> None:
        self.unchecked.append(Finding(part.path, f"not checked: {reason}"))

    def _read_any(self, part: Part, packages: tuple[str, ...]) -> Message | None:
        if not isinstance(part.value, dict):
            raise unexpected("a message with its @type", part)
        # Only an extension point needs a type.
        if not part.value and not packages:
            return protobuf.Any()
        fields = {key: value for key, value in part.value.items() if key != "@type"}
        return self._read_typed(part.at("@type"), Part(part.path, fields), packages)

    def _read_typed(self, url: Part, body: Part, packages: tuple[str, ...]) -> Message | None:
        if url.text.endswith(_TYPED_STRUCTS):
            value = body.at("value")
            value = value if value.present else Part(value.path, {})
            return self._read_typed(body.at("type_url"), value, packages)
        kind = self._resolve(url, packages)
        if kind is None:
            return None
        is_scalar = kind in JSON_FORMS or kind in WRAPPERS
        message = self._read_message(kind, body.at("value") if is_scalar else body)
        return None if message is None else _Packed(url.text, message)

    def _resolve(self, url: Part, packages: tuple[str, ...]) -> type[Message] | None:
        host, _, name = url.text.rpartition("/")
        if not host:
            known = name if find_type(name) else f"{packages[0] if packages else 'envoy.'}<NAME>"
            raise unexpected(f"the type of the message, type.googleapis.com/{known}", url)
        if name.startswith("envoy.") and ".v2." in name:
            end = _V2_TYPE.search(name)
            near = successor(end[0].replace(".v2.", ".v3.")) if end else None
            of_v3 = near or f"one of {packages[0] if packages else 'envoy.'}*"
            raise WrongValue(url, f"Envoy 1.40 has no types of Envoy's v2 API; use {of_v3}")
        kind = find_type(name)
        if kind is None and (near := nearest_type(name)):
            raise WrongValue(url, f"unknown type; did you mean {near}?")
        if kind is None:
            self._skip(url, f"envoy-data-plane {API_VERSION} has no type {name[:200]!a}")
        elif packages and not name.startswith((*packages, *_WRAPPING)):
            raise unexpected(f"a type of {packages[0]}*", url)
        return kind


def _fix(kind: type[Message], key: str) -> str:
    if (now := _V2_FIELDS.get(key)) in api_fields(kind):
        return f"it is of Envoy's v2 API, use `{now}`"
    near = get_close_matches(key[:80], api_fields(kind), n=1)
    return f"did you mean `{near[0]}`?" if near else "Envoy 1.40 has none like it: remove it"


def _groups(kind: type[Message], names: Iterable[str]) -> Mapping[str, list[str]]:
    groups = defaultdict[str, list[str]](list)
    for name in names:
        if group := api_fields(kind)[name.rstrip("_")].meta.group:
            groups[group].append(name)
    return groups


def _packages(field: ApiField) -> tuple[str, ...]:
    return _PACKAGES.get(f"{field.owner}.{field.name}") or _PACKAGES.get(field.name) or ()


def _is_bounded(root: object) -> bool:
    level, count = [root], 1
    for _ in range(_MAX_DEPTH):
        children = (child for value in level for child in _children(value))
        level = list(islice(children, _MAX_VALUES))
        count += len(level)
        if count > _MAX_VALUES:
            return False
        if not level:
            return True
    return False


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
