"""The layout of the reports' tables and figures."""

import math
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from extproc.output import UNBOUNDED


def seconds(value: float) -> str:
    """Format a time, below a second in ms."""
    if math.isinf(value):
        return "never"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.0f} ms"


def make_table(title: str, *columns: str) -> Table:
    """Return a table without lines whose first column is text and the others figures."""
    table = _FigureTable(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(
            column,
            justify="right" if number else "left",
            overflow="fold",
            min_width=_longest(column.split()),
        )
    return table


class _FigureTable(Table):
    """A table that folds no figure in a terminal that is narrower: headings and lists of figures.

    Where these are not enough, its lines are longer than those of the terminal.
    """

    def add_row(self, *cells: Any, **options: Any) -> None:
        for column, cell in zip(self.columns[1:], cells[1:], strict=True):
            column.min_width = max(
                column.min_width or 0, _longest(cell.split(", ")) + (", " in cell)
            )
        super().add_row(*cells, **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update(width=UNBOUNDED)
        is_open = self.width is None  # an unbounded console has set it
        if is_open and console.measure(self, options=unbounded).maximum > options.max_width:
            for column in self.columns[1:]:
                column.width = column.min_width
            least = console.measure(self, options=unbounded).minimum
            options = options.update(width=max(least, options.max_width))
        yield from super().__rich_console__(console, options)


def _longest(parts: Iterable[str]) -> int:
    return max(map(len, parts), default=0)
