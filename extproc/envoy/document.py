"""An Envoy file as a document of unknown shape: what is looked for is found or absent, no error."""

import re
from collections.abc import Iterator
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

    def at(self, *keys: str) -> "Part":
        """Return what stands under these keys."""
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


def read_envoy(path: Path) -> Part:
    """Read an Envoy file, YAML or JSON; raises EnvoyFileError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise EnvoyFileError(f"{path}: larger than {_MAX_FILE_BYTES} bytes")
        return Part("", yaml.safe_load(data))
    except OSError as error:
        raise EnvoyFileError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EnvoyFileError(f"{path}: is not YAML: {reason[:200]}") from error


def _below(path: str, key: object) -> str:
    name = str(key)
    if not _PLAIN_KEY.match(name):
        return f"{path}[{name[:80]!r}]"
    return f"{path}.{name}" if path else name
