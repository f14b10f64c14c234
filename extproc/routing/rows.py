"""Rows of pools, side by side: which of them has the model of a request.

The first row that names a model has it, as Envoy's own routes read the same patterns while the
service does not answer.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from extproc.budget.category import apart
from extproc.routing.pools import Pool

_ANY = "*"


@dataclass(frozen=True, slots=True)
class Row:
    """Pools in ascending order of their windows, and the models that their servers have."""

    pools: tuple[Pool, ...]
    names: frozenset[str]
    pattern: re.Pattern[str] | None
    """Matches all further names as a whole."""

    @classmethod
    def of(cls, models: Sequence[str], pools: Sequence[Pool]) -> Self:
        """Return the row of models by their names, in which `*` stands for any characters."""
        # As requests name them to estimators.
        names = frozenset(apart(name) for name in models if _ANY not in name)
        patterns = [name for name in models if _ANY in name]
        regex = re.compile(names_regex(patterns), re.DOTALL) if patterns else None
        return cls(tuple(pools), names, regex)

    @property
    def name(self) -> str:
        """What figures call the row: its largest pool."""
        return self.pools[-1].name

    def has(self, model: str) -> bool:
        """Return whether its servers have a model of this name."""
        return model in self.names or (
            self.pattern is not None and self.pattern.fullmatch(model) is not None
        )


def names_regex(models: Sequence[str]) -> str:
    """Return a regular expression, of Python and of RE2, for any of these names."""
    return "|".join(".*".join(map(re.escape, name.split(_ANY))) for name in models)
