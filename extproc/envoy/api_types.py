"""Find the types and fields of Envoy's API in envoy-data-plane by the names that files use."""

import dataclasses
import difflib
import importlib
import importlib.metadata
import re
import typing
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import envoy_data_plane
from betterproto2 import FieldMetadata, Message
from betterproto2.casing import snake_case
from envoy_data_plane.message_pool import default_message_pool

API_VERSION = importlib.metadata.version("envoy-data-plane")

_NEWER_FIELDS = Path(__file__).with_name("newer_fields.txt")
_ROOT = Path(envoy_data_plane.__file__).parent
_HOST = "type.googleapis.com/"
_TYPE = re.compile(r"((?:[a-z][a-z0-9_]*\.)+)[A-Z][A-Za-z0-9_.]*\Z")
# The similarity of names of usual length that differ by one letter. Two versions of a type differ
# by two: cache_v2.v3.CacheV2Config.
_MISSPELLED = 0.97


@dataclasses.dataclass(frozen=True, slots=True)
class ApiField:
    """A message's field; `kind` is the class of its value, or of each value of a list or map."""

    owner: str
    name: str
    meta: FieldMetadata
    kind: typing.Any


def find_type(name: str) -> type[Message] | None:
    """Return the class of a full name such as envoy.config.core.v3.Node, or None."""
    found = _TYPE.match(name)
    if found is None or not _load(found[1][:-1]):
        return None
    return default_message_pool.url_to_type.get(_HOST + name)


def full_name(kind: type[Message]) -> str:
    """Return the full name of a class."""
    return default_message_pool.type_to_url[kind].removeprefix(_HOST)


@cache
def nearest_type(name: str) -> str | None:
    """Return the full name that this one misspells; None if none is that close."""
    package = name[:200].rpartition(".")[0]
    for near in difflib.get_close_matches(package, _packages(), n=3, cutoff=0.9):
        _load(near)
    names = map(full_name, default_message_pool.type_to_url)
    best = difflib.get_close_matches(name[:200], names, n=1, cutoff=_MISSPELLED)
    return best[0] if best else None


def successor(end: str) -> str | None:
    """Return the full name that ends so, such as router.v3.Router; None if there is none."""
    package = end.rpartition(".")[0]
    for found in sorted(each for each in _packages() if each.endswith(f".{package}")):
        name = f"{found}.{end.rpartition('.')[2]}"
        if find_type(name):
            return name
    return None


@cache
def api_fields(kind: type[Message]) -> Mapping[str, ApiField]:
    """Return a message's fields by each name that JSON may give them: snake_case and camelCase."""
    hints = typing.get_type_hints(kind)
    known: dict[str, ApiField] = {}
    for given in dataclasses.fields(typing.cast("typing.Any", kind)):
        element = _element(hints[given.name])
        field = ApiField(kind.__name__, given.name, FieldMetadata.get(given), element)
        # betterproto adds a "_" to Python's keywords.
        name = given.name.rstrip("_")
        head, *tail = name.split("_")
        camel = head + "".join(word[:1].upper() + word[1:] for word in tail)
        known |= {name: field, camel: field}
    return known


def is_newer(kind: type[Message], key: str) -> bool:
    """Whether a field is one of Envoy 1.40 that this envoy-data-plane does not have yet."""
    return f"{full_name(kind)}.{snake_case(key)}" in _newer_fields()


@cache
def _newer_fields() -> frozenset[str]:
    return frozenset(_NEWER_FIELDS.read_text(encoding="utf-8").splitlines())


def _element(hint: typing.Any) -> typing.Any:
    """Return T of T, T | None, list[T] and dict[K, T]."""
    arguments = [each for each in typing.get_args(hint) if each is not type(None)]
    return arguments[-1] if arguments else hint


def _load(package: str) -> bool:
    # A package registers its types when it is imported.
    if package not in _packages():
        return False
    importlib.import_module(f"{envoy_data_plane.__name__}.{package}")
    return True


@cache
def _packages() -> frozenset[str]:
    files = _ROOT.glob("*/**/__init__.py")
    return frozenset(".".join(file.relative_to(_ROOT).parts[:-1]) for file in files)
