"""How a key of the settings is declared: its unit, what is allowed, and its default."""

import enum
from collections.abc import Mapping
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

Place = tuple[str | int, ...]
"""Where a value stands in the settings: ("pools", 0, "name")."""

Fault = tuple[Place, str]
"""A place, what is wrong with its value, and the fix."""

_PATH = r"|/[^\x00-\x1f\x7f]*"


def dotted(place: Place) -> str:
    """Return a place as messages write it.

    >>> dotted(("pools", 0, "name"))
    'pools[0].name'
    """
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)[1:]


def key(note: str, allowed: str, **field: Any) -> Any:
    """Declare a key.

    `note` describes it, its unit first; `allowed` ends the sentence "VALUE is not allowed: ...".
    """
    return Field(description=note, json_schema_extra={"allowed": allowed}, **field)


def whole(unit: str, low: int, high: int, note: str, **field: Any) -> Any:
    """Declare a whole number from `low` to `high`."""
    allowed = f"a whole number of {unit} from {low} to {high}"
    return key(f"{unit}: {note}", allowed, ge=low, le=high, **field)


def text(pattern: str, note: str, allowed: str, **field: Any) -> Any:
    """Declare a text that the whole of `pattern` matches."""
    return key(note, allowed, pattern=rf"\A({pattern})\Z", **field)


def one_of(default: enum.StrEnum, note: str) -> Any:
    """Declare a choice among the values of an enumeration."""
    return key(note, f"one of {', '.join(type(default))}", default=default, strict=False)


def limit(unit: str, high: int, note: str, default: int) -> Any:
    """Declare a whole number of which 0 means no limit."""
    return whole(unit, 0, high, f"{note}; 0: no limit", default=default)


def file(note: str) -> Any:
    """Declare a path that may be empty."""
    return text(_PATH, note, "empty, or the absolute path of a file", default="")


class Section(BaseModel):
    """A mapping of known keys; an empty one has its defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, regex_engine="python-re")

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, value: object) -> object:
        return {} if value is None else value

    @classmethod
    def allowed(cls, key: str) -> str:
        """Return what the value of a key may be."""
        return cast("Mapping[str, str]", cls.model_fields[key].json_schema_extra)["allowed"]
