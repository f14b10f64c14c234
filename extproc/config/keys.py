"""How a key of the settings is declared: its unit, what is allowed, and its default.

A section is a frozen value whose keys are validated one by one, so that every fault is found.
"""

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import (
    Annotated,
    Any,
    ClassVar,
    NamedTuple,
    Self,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

Place = tuple[str | int, ...]
"""Where a value stands in the settings: ("pools", 0, "name")."""

Fault = tuple[Place, str]
"""A place, what is wrong with its value, and the fix."""

_PATH = r"|/[^\x00-\x1f\x7f]*"
_DERIVED: Any = object()


def dotted(place: Place) -> str:
    """Return a place as messages write it.

    >>> dotted(("pools", 0, "name"))
    'pools[0].name'
    """
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)[1:]


class Why(enum.Enum):
    """What is wrong with a value."""

    UNKNOWN = "there is no such key"
    MISSING = "it is missing"
    NO_MAPPING = "it is no mapping of keys"
    NOT_ALLOWED = "it is not allowed"


class Wrong(NamedTuple):
    """A value that is wrong by itself."""

    place: Place
    why: Why
    value: object


class InvalidSectionError(ValueError):
    """Values that are no section; `wrong` has them all."""

    def __init__(self, wrong: list[Wrong]) -> None:
        super().__init__("; ".join(f"{dotted(each.place)}: {each.why.value}" for each in wrong))
        self.wrong = wrong


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key beside its default."""

    description: str
    allowed: str = ""
    limits: msgspec.Meta | None = None
    count: tuple[int, float] = (0, float("inf"))
    """The fewest and the most values of a list."""
    derive: Callable[[Any], object] | None = field(default=None, repr=False)
    """Returns the default from the section."""
    is_secret: bool = False
    """Whether a value that is not allowed may be a secret."""


def key(
    note: str,
    allowed: str,
    *,
    default: Any = MISSING,
    derive: Callable[[Any], object] | None = None,
    count: tuple[int, float] = (0, float("inf")),
    is_secret: bool = False,
    **limits: Any,
) -> Any:
    """Declare a key.

    `note` describes it, its unit first; `allowed` ends the sentence "VALUE is not allowed: ...".
    """
    told = Key(note, allowed, msgspec.Meta(**limits) if limits else None, count, derive, is_secret)
    return field(default=_DERIVED if derive else default, metadata={"key": told})


def section(default: "Section", note: str) -> Any:
    """Declare a section of its own."""
    return field(default=default, metadata={"key": Key(note)})


def whole(unit: str, low: int, high: int, note: str, **field: Any) -> Any:
    """Declare a whole number from `low` to `high`."""
    allowed = f"a whole number of {unit} from {low} to {high}"
    return key(f"{unit}: {note}", allowed, ge=low, le=high, **field)


def text(pattern: str, note: str, allowed: str, **field: Any) -> Any:
    """Declare a text that the whole of `pattern` matches."""
    return key(note, allowed, pattern=rf"\A({pattern})\Z", **field)


def one_of(default: enum.StrEnum, note: str) -> Any:
    """Declare a choice among the values of an enumeration."""
    return key(note, f"one of {', '.join(type(default))}", default=default)


def limit(unit: str, high: int, note: str, default: int) -> Any:
    """Declare a whole number of which 0 means no limit."""
    return whole(unit, 0, high, f"{note}; 0: no limit", default=default)


def file(note: str, *, is_secret: bool = False) -> Any:
    """Declare a path that may be empty."""
    allowed = "empty, or the absolute path of a file"
    return text(_PATH, note, allowed, default="", is_secret=is_secret)


def secret(note: str) -> Any:
    """Declare the path of a file with a secret, which an operator may state in its place."""
    return file(note, is_secret=True)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Section:
    """A mapping of known keys; an empty one has its defaults."""

    model_fields: ClassVar[Mapping[str, Key]] = {}
    """Each key with what is known of it."""
    stated: frozenset[str]
    """The keys that were given, whether or not by their defaults."""

    def __new__(cls, **given: object) -> Self:
        """Note what is given; values are not validated, as `model_validate` does it."""
        made = super().__new__(cls)
        object.__setattr__(made, "stated", frozenset(given))
        return made

    def __init_subclass__(cls) -> None:
        """Make the section a frozen value."""
        dataclass(frozen=True, kw_only=True)(cls)
        cls.model_fields = {each.name: each.metadata["key"] for each in _declared(cls)}

    def __post_init__(self) -> None:
        """Derive the defaults that depend on other keys."""
        for name, told in self.model_fields.items():
            if told.derive and getattr(self, name) is _DERIVED:
                object.__setattr__(self, name, told.derive(self))

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield each key with its value."""
        return ((name, getattr(self, name)) for name in self.model_fields)

    @classmethod
    def allowed(cls, key: str) -> str:
        """Return what the value of a key may be."""
        return cls.model_fields[key].allowed

    @classmethod
    def model_validate(cls, value: object) -> Self:
        """Return the section of these values. Raises InvalidSectionError with all that is wrong."""
        wrong: list[Wrong] = []
        found = _read(cls, value, (), wrong)
        if wrong:
            raise InvalidSectionError(wrong)
        return found  # type: ignore[no-any-return]

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """Return the section with other values of some keys, which are not validated."""
        copied = type(self)(**dict(self) | dict(update))
        object.__setattr__(copied, "stated", self.stated | update.keys())
        return copied

    def model_dump(self) -> dict[str, Any]:
        """Return the values by key, of which `model_validate` makes the same section."""
        return {name: _dumped(value) for name, value in self}

    @classmethod
    def model_validate_json(cls, text: str) -> Self:
        """Return the section of JSON, as `model_validate` does. Raises msgspec.DecodeError too."""
        return cls.model_validate(msgspec.json.decode(text))

    def model_dump_json(self) -> str:
        """Return what `model_validate_json` reads."""
        return msgspec.json.encode(self.model_dump()).decode()


def _declared(cls: type[Section]) -> Any:
    return fields(cls)  # type: ignore[arg-type]


def _dumped(value: Any) -> Any:
    match value:
        case Section():
            return value.model_dump()
        case tuple():
            return tuple(map(_dumped, value))
        case _:
            return value


def _read(kind: type[Section], value: object, place: Place, wrong: list[Wrong]) -> Any:
    """Return the section of a mapping; None, and what is wrong with it, if there is none."""
    if isinstance(value, kind):
        return value
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        wrong.append(Wrong(place, Why.NO_MAPPING, value))
        return None
    before, found = len(wrong), dict[str, Any]()
    hints = get_type_hints(kind, include_extras=True)
    for each in _declared(kind):
        at = (*place, each.name)
        if each.name in value:
            told = each.metadata["key"]
            found[each.name] = _read_key(hints[each.name], told, value[each.name], at, wrong)
        elif each.default is MISSING:
            wrong.append(Wrong(at, Why.MISSING, None))
    unknown = (name for name in value if name not in kind.model_fields)
    wrong += (Wrong((*place, name), Why.UNKNOWN, value[name]) for name in unknown)
    return kind(**found) if len(wrong) == before else None


def _read_key(hint: Any, told: Key, value: object, place: Place, wrong: list[Wrong]) -> Any:
    if get_origin(hint) is tuple:
        least, most = told.count
        if not isinstance(value, list | tuple) or not least <= len(value) <= most:
            wrong.append(Wrong(place, Why.NOT_ALLOWED, value))
            return None
        one, one_told = get_args(hint)[0], Key("")
        return tuple(
            _read_key(one, one_told, each, (*place, n), wrong) for n, each in enumerate(value)
        )
    if isinstance(hint, type) and issubclass(hint, Section):
        return _read(hint, value, place, wrong)
    try:
        return msgspec.convert(value, Annotated[hint, told.limits] if told.limits else hint)
    except msgspec.ValidationError:
        wrong.append(Wrong(place, Why.NOT_ALLOWED, value))
        return None
