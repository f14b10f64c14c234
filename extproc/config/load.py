"""Read the settings file: YAML to one frozen Settings, or every fault of the file at once."""

import difflib
import json
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.reader import ReaderError

from extproc.config.conflicts import conflicts
from extproc.config.errors import UserError
from extproc.config.keys import (
    Fault,
    InvalidSectionError,
    Place,
    Section,
    Why,
    Wrong,
    dotted,
)
from extproc.config.settings import SECTIONS, PoolSettings, Settings

__all__ = ["ConfigError", "Settings", "load", "load_row", "refused", "render", "states"]

_MAX_FILE_BYTES = 1 << 20
_MAX_DEPTH = 16
_MAX_VALUES = 10_000  # as written, and again with every alias expanded
_MAX_SHOWN = 80  # characters of a value
_MAX_READ = 1024  # characters of a value that are quoted before they are cut

# Plain scalars as in JSON, else text: YAML 1.1 reads 010 as 8, 1:30 as 90 and `no` as false.
_SCALARS = (
    ("tag:yaml.org,2002:null", re.compile(r"(~|null|Null|NULL)?\Z"), lambda _: None),
    ("tag:yaml.org,2002:bool", re.compile(r"(true|false)\Z", re.I), lambda text: text[0] in "tT"),
    ("tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]{0,4299})\Z"), int),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z"),
        float,
    ),
)


class ConfigError(UserError):
    """The settings file cannot be used; the text has one line for each fault."""


def load(path: Path | None) -> Settings:
    """Read the settings file; None returns the defaults. Raises ConfigError with every fault."""
    if path is None:
        return Settings()
    document = _parse(path, _text(path))
    # Whoever writes it in place may not have finished, or has found a full disk: rather than all
    # defaults, that is a fault, at the start as at a reload.
    if document.values[()] is None:
        raise ConfigError(f"{path}: holds no settings; for the defaults write {{}}")
    settings, wrong = _validated(document)
    faults = document.twice + [(document.line(place), text) for place, text in wrong]
    if settings is None or faults:
        raise _config_error(path, faults)
    return settings


def load_row(path: Path | None) -> Settings:
    """Read the settings for a command that looks at one row of pools, as `load` does."""
    settings = load(path)
    if (count := len(settings.rows)) > 1:
        text = f"this command looks at one row, not {count}: write its pools to a file of their own"
        raise refused(path, [(("rows",), text)])
    return settings


def states(path: Path | None, place: Place) -> bool:
    """Return whether a file that `load` has read states this value; None: of the defaults."""
    return path is not None and place in _parse(path, _text(path)).values


def refused(path: Path | None, faults: Iterable[Fault]) -> ConfigError:
    """Return the error of settings that are valid, but not for their use; None: of the defaults."""
    texts = [(place, f"{_at(place)}{text}") for place, text in faults]
    if path is None:
        return ConfigError("\n".join(text for _, text in texts))
    document = _parse(path, _text(path))
    return _config_error(path, [(document.line(place), text) for place, text in texts])


def _config_error(path: Path, faults: list[tuple[int, str]]) -> ConfigError:
    return ConfigError("\n".join(f"{path}:{line}: {text}" for line, text in sorted(faults)))


def render(settings: Settings) -> str:
    """Return the settings as YAML, each key with its unit; `load` reads the same value from it."""
    # Pools that stand in rows are not written twice.
    return "\n".join(_rendered(settings, "", "pools" if settings.rows else "")) + "\n"


def _rendered(section: Section, indent: str, without: str = "") -> Iterator[str]:
    for key, value in section:
        note = type(section).model_fields[key].description
        if key == without:
            continue
        match value:
            case Section():
                yield f"{indent}{key}:  # {note}"
                yield from _rendered(value, f"{indent}  ")
            case (Section(), *_):
                yield f"{indent}{key}:  # {note}"
                for each in value:
                    last = "threshold" if each is value[-1] else ""
                    text = "\n".join(_rendered(each, f"{indent}    ", last))
                    yield text.replace(f"{indent}    ", f"{indent}  - ", 1)
            case _:
                # Strings are quoted, so that no YAML parser reads a name like 1e5 as a number.
                yield f"{indent}{key}: {json.dumps(value)}".ljust(34) + f"  # {note}"


def _text(path: Path) -> str:
    try:
        # A pipe would block, and give its content once: faults and changes are read again.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigError(f"{path}: is no regular file; write the settings into one")
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {_MAX_FILE_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: byte 0x{data[error.start]:02x} is not UTF-8") from error


class _FileError(Exception):
    """The file cannot be read as plain values."""

    def __init__(self, line: int, column: int, problem: str) -> None:
        super().__init__(f"{line + 1}:{column + 1}: {_cut(problem, 2 * _MAX_SHOWN)}")


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, bounded in depth and number, with the plain scalars of _SCALARS."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.yaml_implicit_resolvers = {None: [(tag, pattern) for tag, pattern, _ in _SCALARS]}
        self._depth = self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._depth += 1
        self._count += 1
        if self._depth > _MAX_DEPTH or self._count > _MAX_VALUES:
            problem = f"more than {_MAX_DEPTH} levels or {_MAX_VALUES} values"
            raise _FileError(self.line, self.column, problem)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if re.search("[\ud800-\udfff]", node.value):
            raise _unreadable(node, "half of a surrogate pair is no character")
        return node


def _unreadable(node: yaml.Node, problem: str) -> _FileError:
    return _FileError(node.start_mark.line, node.start_mark.column, problem)


def _composed(loader: _Loader) -> yaml.Node | None:
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or loader.get_mark()
        raise _FileError(mark.line, mark.column, _problem(error)) from error
    except (ValueError, OverflowError) as error:
        # PyYAML does not catch what chr() and int() raise for escapes and for %YAML.
        raise _FileError(loader.line, loader.column, "a number out of range") from error


def _problem(error: yaml.MarkedYAMLError) -> str:
    if r"'\t'" in (error.problem or ""):
        return "a tab cannot stand here: indent with spaces"
    return ": ".join(text for text in (error.context, error.problem) if text)


@dataclass(slots=True)
class _SettingsFile:
    """The values of a file by place, their lines, and keys that are given twice."""

    values: dict[Place, Any] = field(default_factory=lambda: {(): None})
    lines: dict[Place, int] = field(default_factory=lambda: {(): 1})
    twice: list[tuple[int, str]] = field(default_factory=list)

    def line(self, place: Place) -> int:
        while place not in self.lines:
            place = place[:-1]
        return self.lines[place]

    def read(self, node: yaml.Node, place: Place = ()) -> Any:
        self.lines.setdefault(place, node.start_mark.line + 1)
        if len(place) > _MAX_DEPTH or len(self.lines) > _MAX_VALUES:
            raise _unreadable(node, f"more than {_MAX_DEPTH} levels or {_MAX_VALUES} values")
        value: Any
        match node:
            case yaml.MappingNode(tag="tag:yaml.org,2002:map"):
                value = {
                    key: self.read(each, (*place, key)) for key, each in self._pairs(node, place)
                }
            case yaml.SequenceNode(tag="tag:yaml.org,2002:seq"):
                value = [self.read(each, (*place, n)) for n, each in enumerate(node.value)]
            case yaml.ScalarNode():
                value = _scalar(node)
            case _:
                raise _unreadable(node, _tagged(node))
        self.values[place] = value
        return value

    def _pairs(self, node: yaml.MappingNode, path: Place) -> Iterator[tuple[str, yaml.Node]]:
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _unreadable(key, "a key must be a word")
            place, line = (*path, key.value), key.start_mark.line + 1
            if place in self.lines:
                first = self.lines[place]
                text = f"{_at(path)}{_shown(key.value)} is given twice, first on line {first}"
                self.twice.append((line, text))
            else:
                self.lines[place] = line
                yield key.value, value


def _scalar(node: yaml.ScalarNode) -> Any:
    if node.tag == "tag:yaml.org,2002:str":
        return node.value
    for tag, pattern, convert in _SCALARS:
        if tag == node.tag and pattern.match(node.value):
            return convert(node.value)
    raise _unreadable(node, _tagged(node))


def _tagged(node: yaml.Node) -> str:
    return f"tag {_shown(node.tag.replace('tag:yaml.org,2002:', '!!'))} is not read here"


def _parse(path: Path, text: str) -> _SettingsFile:
    document = _SettingsFile()
    try:
        node = _composed(_Loader(text))
        if node is not None:
            document.read(node)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"character U+{ord(text[error.position]):04X} cannot stand in YAML"
        raise ConfigError(f"{path}:{line}: {problem}") from error
    except _FileError as error:
        raise ConfigError(f"{path}:{error}") from error
    return document


def _validated(document: _SettingsFile) -> tuple[Settings | None, list[tuple[Place, str]]]:
    settings, wrong = None, []
    try:
        settings = Settings.model_validate(document.values[()])
    except InvalidSectionError as error:
        wrong = [_explained(each) for each in error.wrong]
    values = {**document.values, **{place: None for place, _ in wrong}}
    wrong += [
        (place, _not_allowed(place, value, allowed)) for place, value, allowed in conflicts(values)
    ]
    return settings, wrong


def _explained(wrong: Wrong) -> tuple[Place, str]:
    place, why, value = wrong
    section = _owner(place)
    match why:
        case Why.UNKNOWN:
            return place, _at(place[:-1]) + _unknown(str(place[-1]), section)
        case Why.MISSING:
            return place, f"{_at(place)}missing: {section.allowed(_key(place))}"
        case Why.NO_MAPPING:
            keys = ", ".join(_owner((*place, "")).model_fields)
            return place, _not_allowed(place, value, f"a mapping of {keys}")
        case _:
            # An operator may have stated the password, and not the path of its file.
            told = section.model_fields[_key(place)]
            shown = "the value" if told.is_secret else _shown(value)
            is_path = place == ("state",) and shown.startswith("'/")
            hint = f"; did you mean file:{shown[1:-1]}?" if is_path else ""
            return place, f"{_at(place)}{shown} is not allowed: {told.allowed}{hint}"


def _key(place: Place) -> str:
    """Return the key of a value, or of the list that it stands in."""
    return next(key for key in reversed(place) if isinstance(key, str))


def _owner(place: Place) -> type[Section]:
    if place[:1] == ("rows",) and place[2:3] == ("pools",) and len(place) > 4:
        return PoolSettings
    return SECTIONS[str(place[0])] if len(place) > 1 else Settings


def _unknown(key: str, section: type[Section]) -> str:
    if key == "<<":
        return "merge keys (<<) are not read: write the keys out"
    near = [f"{name}.{key}" for name, other in SECTIONS.items() if key in other.model_fields]
    near += difflib.get_close_matches(key[:_MAX_SHOWN].lower(), section.model_fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(section.model_fields)}"
    return f"unknown key {_shown(key)}; {hint}"


def _not_allowed(place: Place, value: object, allowed: str) -> str:
    return f"{_at(place)}{_shown(value)} is not allowed: {allowed}"


def _at(place: Place) -> str:
    return f"{_cut(repr(dotted(place))[1:-1])}: " if place else ""


def _shown(value: object) -> str:
    match value:
        case None:
            return "an empty value"
        case dict():
            return "a mapping"
        case list():
            return f"a list of {len(value)}"
        case bool():
            return str(value).lower()
        case str():
            # Quoted, whole or not.
            text = repr(_masked(value)[:_MAX_READ])
            return text if len(text) <= _MAX_SHOWN else f"{_cut(text, _MAX_SHOWN - 1)}{text[-1]}"
        case _:
            return _cut(repr(value))


def _masked(text: str) -> str:
    """Hide what of a URL may be a secret: who asks, and the query."""
    scheme, mark, rest = text.partition("://") if "://" in text else ("", "", text)
    user, at, place = rest.rpartition("@")
    user = "***" if mark or ":" in user else user
    path, query, asked = place.partition("?")
    asked = "***" if query and (mark or "=" in asked) else asked
    return f"{scheme}{mark}{user if at else ''}{at}{path}{query}{asked}"


def _cut(text: str, limit: int = _MAX_SHOWN) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
