"""Rows of pools, side by side: which of them has the model of a request.

The first row that names a model has it; envoy/find_row.lua does the same while the service does not
answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from extproc.budget.category import escape_reserved
from extproc.routing.pools import Pool

_ANY = "*"


@dataclass(frozen=True, slots=True)
class Row:
    """Pools in ascending order of their windows, and the models that their servers have."""

    pools: tuple[Pool, ...]
    names: frozenset[str]
    patterns: tuple[tuple[str, str], ...]
    """What further names begin and end with."""

    @classmethod
    def of(cls, models: Sequence[str], pools: Sequence[Pool]) -> Self:
        """Return the row of models by their names, in which a `*` stands for any characters."""
        names, patterns = split_names(models)
        # As requests name them to estimators.
        return cls(tuple(pools), frozenset(map(escape_reserved, names)), patterns)

    @property
    def name(self) -> str:
        """What figures call the row: its largest pool."""
        return self.pools[-1].name

    def has(self, model: str) -> bool:
        """Return whether its servers have a model of this name."""
        return model in self.names or any(
            model.startswith(first)
            and model.endswith(last)
            and len(model) >= len(first) + len(last)
            for first, last in self.patterns
        )


def split_names(models: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the names without a `*`, and of the others what is before and behind it."""
    patterns = (name.partition(_ANY) for name in models if _ANY in name)
    names = tuple(name for name in models if _ANY not in name)
    return names, tuple((first, last) for first, _, last in patterns)
