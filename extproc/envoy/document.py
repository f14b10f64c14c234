"""An Envoy file as a document of unknown shape: what is looked for is found or absent, no error."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from extproc.config.errors import UserError

_MAX_FILE_BYTES = 1 << 22
# https://protobuf.dev/programming-guides/json/: a Duration is seconds with an "s" behind them.
_DURATION = re.compile(r"([0-9]{1,9}(\.[0-9]{0,9})?)s\Z")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_@-]+\Z")


class EnvoyFileError(UserError):
    """The file cannot be read as YAML; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Part:
    """A value and where it stands; the value is None where nothing does."""

    path: str
    value: object

    def at(self, *keys: object) -> "Part":
        """Return the part under these keys; its value is None if they are absent."""
        part = self
        for key in keys:
            value = part.value.get(key) if isinstance(part.value, dict) else None
            part = Part(_below(part.path, key), value)
        return part

    def items(self) -> "list[Part]":
        """Return the items of a list; none of what is no list."""
        values = self.value if isinstance(self.value, list) else []
        return [Part(f"{self.path}[{index}]", value) for index, value in enumerate(values)]

    def typed(self, name: str) -> "Iterator[Part]":
        """Yield each message of this name, however deep it stands."""
        parts, seen = [self], set[int]()
        while parts:
            part = parts.pop()
            # An alias of YAML can stand inside itself.
            if id(part.value) in seen:
                continue
            seen.add(id(part.value))
            if part.at("@type").text.endswith(f".{name}"):
                yield part
            parts += reversed(part.children())

    def children(self) -> "list[Part]":
        """Return the mappings and lists in it."""
        if isinstance(self.value, dict):
            return [
                Part(_below(self.path, key), value)
                for key, value in self.value.items()
                if isinstance(value, dict | list)
            ]
        return [part for part in self.items() if isinstance(part.value, dict | list)]

    @property
    def present(self) -> bool:
        """Whether something stands there."""
        return self.value is not None

    @property
    def text(self) -> str:
        """The value where it is text, else nothing."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def number(self) -> int | None:
        """The value where it is a whole number."""
        whole = isinstance(self.value, int) and not isinstance(self.value, bool)
        return self.value if whole and isinstance(self.value, int) else None

    @property
    def seconds(self) -> float | None:
        """The value where it is a duration."""
        found = _DURATION.match(self.text)
        return float(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong and how to put it right; `path` is where, in the Envoy file."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


@dataclass(frozen=True, slots=True)
class EnvoyFile:
    """An Envoy file's document, and the line of each path in it."""

    document: Part
    lines: Mapping[str, int]

    def line(self, path: str) -> int | None:
        """Return the line of a path, or of the nearest part above it that the file has."""
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path)


def read_envoy(path: Path) -> EnvoyFile:
    """Read an Envoy file, YAML or JSON; raises EnvoyFileError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise EnvoyFileError(f"{path}: larger than {_MAX_FILE_BYTES} bytes")
        loader = yaml.SafeLoader(data)
        node = loader.get_single_node()
        value = None if node is None else loader.construct_document(node)
        return EnvoyFile(Part("", value), _line_numbers(node))
    except OSError as error:
        raise EnvoyFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EnvoyFileError(f"{path}: is not YAML: {reason[:200]}") from error


def _line_numbers(root: yaml.Node | None) -> dict[str, int]:
    """Return the line of each path; what an alias repeats has none of its own."""
    lines, seen, nodes = dict[str, int](), set[int](), [("", root)]
    while nodes:
        path, node = nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                below = _below(path, key.value)
                lines[below] = key.start_mark.line + 1
                nodes.append((below, value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[f"{path}[{index}]"] = value.start_mark.line + 1
                nodes.append((f"{path}[{index}]", value))
    return lines


def _below(path: str, key: object) -> str:
    name = str(key)
    if not _PLAIN_KEY.match(name):
        return f"{path}[{name[:80]!r}]"
    return f"{path}.{name}" if path else name
