"""The layout of the reports' tables and figures."""

import math

from rich.table import Table


def seconds(value: float) -> str:
    """Format a time, below a second in ms."""
    if math.isinf(value):
        return "never"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.0f} ms"


def make_table(title: str, *columns: str) -> Table:
    """Return a table without lines whose first column is text and the others numbers."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        # In a narrow terminal a cell has more lines, and loses no figure.
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table
