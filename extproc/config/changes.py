"""What differs between two settings: each key with its old and its new value."""

import json
from collections.abc import Iterator, Mapping

from extproc.config.keys import Place, Section, dotted
from extproc.config.settings import Settings

ABSENT = "absent"
_MOST_CHARS = 120
_MOST_SHOWN = 50


def changes(old: Settings, new: Settings) -> dict[Place, str]:
    """Return each place whose value differs, with `old -> new`. No value is a secret."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return {
        place: f"{before.get(place, ABSENT)} -> {after.get(place, ABSENT)}"
        for place in {**before, **after}
        if before.get(place) != after.get(place)
    }


def told(changed: Mapping[Place, str]) -> str:
    """Return changes in one line.

    >>> told({("pools", 0, "threshold"): "8192 -> 4096"})
    'pools[0].threshold: 8192 -> 4096'
    """
    texts = [f"{dotted(place)}: {text}" for place, text in changed.items()]
    more = len(texts) - _MOST_SHOWN
    return "; ".join(texts[:_MOST_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _flat(value: object, place: Place = ()) -> Iterator[tuple[Place, str]]:
    match value:
        case Section():
            for key, each in value:
                yield from _flat(each, (*place, key))
        case tuple():
            for number, each in enumerate(value):
                yield from _flat(each, (*place, number))
        case _:
            # As JSON, so that no text can end the line.
            text = json.dumps(value)
            yield place, text if len(text) <= _MOST_CHARS else f"{text[: _MOST_CHARS - 1]}…"
