"""What the sections of a run share: its plan, the programs it may use, and its results."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table

from benchmarks.client import PYTHON_CLIENT
from benchmarks.compiled import Programs

_PYTHON_POOL: Final = (sys.executable, "-m", "benchmarks.upstream")

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. servers: their names in the section requests; none: the default ones.

    bodies: their names there; none: all. tokenizer: a tokenizer.json to compare decisions with.
    """

    rounds: int = 5
    quick: bool = False
    servers: tuple[str, ...] = ()
    tokenizer: Path | None = None
    bodies: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """The length of one load."""
        return 0.2 if self.quick else 1.0


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs that this machine can build, and what stands in for the others."""

    programs: Programs

    @property
    def client(self) -> Sequence[str]:
        """The command of the load client."""
        return self._program("load") or PYTHON_CLIENT

    @property
    def pool(self) -> Sequence[str]:
        """The command of the pool that answers with JSON, without its port."""
        return self._program("pool") or _PYTHON_POOL

    def _program(self, name: str) -> tuple[str, ...]:
        path = self.programs.paths.get(name)
        return (str(path),) if path else ()


@dataclass(frozen=True, slots=True)
class Result:
    """What a section prints, and its figures of all rounds for the file."""

    shown: Sequence[RenderableType]
    figures: object


def rotated(items: Sequence[Item], number: int) -> Sequence[Item]:
    """Return the items with another one first in each round, so that the order favours none."""
    first = number % len(items)
    return (*items[first:], *items[:first])


def spread(values: Sequence[float], form: str = ".0f") -> str:
    """Return the median and, in brackets, the lowest and the highest value if they differ."""
    if min(values) == max(values):
        return f"{values[0]:{form}}"
    return f"{median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def ratios(values: Sequence[float], bases: Sequence[float]) -> list[float]:
    """Return each value divided by the base of the same round."""
    return [value / base for value, base in zip(values, bases, strict=True)]


def new_table(title: str, first: str, columns: Sequence[str]) -> Table:
    """Return an empty table; all columns but the first are numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table
