"""Read an Envoy file as a document of any shape, in which a lookup finds a part or none."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from extproc.config.errors import UserError

_MAX_FILE_BYTES = 1 << 22
# A Duration in https://protobuf.dev/programming-guides/json/.
_DURATION = re.compile(r"([0-9]{1,9}(\.[0-9]{0,9})?)s\Z")
_WHOLE = re.compile(r"-?[0-9]{1,19}\Z")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_@-]+\Z")


class EnvoyFileError(UserError):
    """The file cannot be read as YAML."""


class _EnvoyLoader(yaml.SafeLoader):
    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        value = super().construct_scalar(node)
        value.encode()  # an escape such as "\ud800" is half a character
        return value


@dataclass(frozen=True, slots=True)
class Part:
    """A value and its path in the file; the value is None if it is absent."""

    path: str
    value: object

    def at(self, *keys: object) -> "Part":
        """Return the part under these keys, which may be absent."""
        part = self
        for key in keys:
            value = part.value.get(key) if isinstance(part.value, dict) else None
            part = Part(_below(part.path, key), value)
        return part

    def items(self) -> "list[Part]":
        """Return the items; empty unless the value is a list."""
        values = self.value if isinstance(self.value, list) else []
        return [Part(f"{self.path}[{index}]", value) for index, value in enumerate(values)]

    def typed(self, name: str) -> "Iterator[Part]":
        """Yield each message whose @type ends with this name, at any depth."""
        return (part for part in self.messages() if part.type_ends(name))

    def type_ends(self, name: str) -> bool:
        """Whether its @type ends with this name."""
        return self.at("@type").text.endswith(f".{name}")

    def messages(self) -> "Iterator[Part]":
        """Yield each part with an @type, at any depth."""
        parts, seen = [self], set[int]()
        while parts:
            part = parts.pop()
            # A YAML alias can contain itself.
            if id(part.value) in seen:
                continue
            seen.add(id(part.value))
            if part.at("@type").text:
                yield part
            parts += reversed(part.children())

    def children(self) -> "list[Part]":
        """Return the mappings and lists directly below."""
        if isinstance(self.value, dict):
            return [
                Part(_below(self.path, key), value)
                for key, value in self.value.items()
                if isinstance(value, dict | list)
            ]
        return [part for part in self.items() if isinstance(part.value, dict | list)]

    @property
    def present(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    @property
    def text(self) -> str:
        """The value if it is text, else empty."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def number(self) -> int | None:
        """The value if it is an integer, else None; protobuf's JSON writes 64 bits as text."""
        if _WHOLE.match(self.text):
            return int(self.text)
        whole = isinstance(self.value, int) and not isinstance(self.value, bool)
        return self.value if whole and isinstance(self.value, int) else None

    @property
    def seconds(self) -> float | None:
        """The seconds of a duration, else None."""
        found = _DURATION.match(self.text)
        return float(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong at a path of the Envoy file, and how to fix it."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" if self.path else self.text


@dataclass(frozen=True, slots=True)
class EnvoyFile:
    """An Envoy file's document, and the line number of each path."""

    document: Part
    lines: Mapping[str, int]
    repeated: tuple[Finding, ...] = ()
    """Keys that a mapping has twice."""

    def line(self, path: str) -> int | None:
        """Return the line of a path, or of its nearest parent in the file."""
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
        loader = _EnvoyLoader(data)
        node = loader.get_single_node()
        value = None if node is None else loader.construct_document(node)
        return EnvoyFile(Part("", value), *_line_numbers(node))
    except OSError as error:
        raise EnvoyFileError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise EnvoyFileError(f"{path}{line}: {_explained(error)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EnvoyFileError(f"{path}: is not YAML: {reason[:200]}") from error


def _explained(error: yaml.MarkedYAMLError) -> str:
    if error.problem == "but found another document":
        return "another document begins here, which Envoy would not read: put all into one document"
    problem = " ".join((error.problem or "").split())[:200]
    return f"is not YAML: {problem}; indent with spaces, and quote text with any of : {{ }} * & %"


def _line_numbers(root: yaml.Node | None) -> tuple[dict[str, int], tuple[Finding, ...]]:
    """Return the line of each path, and what is there twice.

    Parts behind an alias have a line only where they are defined.
    """
    lines, seen, nodes = dict[str, int](), set[int](), [("", root)]
    repeated = dict[Finding, None]()
    while nodes:
        path, node = nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            own = set[str]()
            for key, value in node.value:
                below = _below(path, key.value)
                if below in own:
                    text = f"set before, in line {lines[below]}, which has no effect: keep one"
                    repeated[Finding(below, text)] = None
                own.add(below)
                lines[below] = key.start_mark.line + 1
                nodes.append((below, value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[f"{path}[{index}]"] = value.start_mark.line + 1
                nodes.append((f"{path}[{index}]", value))
    return lines, tuple(repeated)


def _below(path: str, key: object) -> str:
    name = str(key)
    if not _PLAIN_KEY.match(name):
        return f"{path}[{name[:80]!r}]"
    return f"{path}.{name}" if path else name
