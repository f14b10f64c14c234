"""Writes the figures of a command: tables on a console, or JSON to a file or standard output."""

import re
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

STDOUT: Final = Path("-")
"""Stands for standard output where a command takes a file."""
_PADDING: Final = re.compile(r" +$", re.MULTILINE)
UNBOUNDED: Final = 1 << 16
"""Columns, more than any table has."""


def report_console(width: int | None = None, *, stderr: bool = False) -> Console:
    """Return a console for tables and sentences; outside a terminal this width wraps sentences.

    NO_COLOR and pipes get no colours. Pipes get tables as wide as their cells, and no spaces at the
    ends of lines.
    """
    console = _UncutConsole(stderr=stderr)
    # Outside a terminal rich assumes 80 columns.
    return console if console.is_terminal else _PipedConsole(width=width, stderr=stderr)


def wide_console() -> Console:
    """Return a console whose tables are as wide as their cells in a terminal too.

    A narrower terminal wraps their lines, and cuts off no figure.
    """
    console = _WideConsole()
    return console if console.is_terminal else _PipedConsole()


class _UncutConsole(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*objects, **{"crop": False, **options})


class _WideConsole(_UncutConsole):
    def print(self, *objects: Any, **options: Any) -> None:
        for each in objects:
            if isinstance(each, Table):
                unbounded = self.options.update(width=UNBOUNDED)
                each.width = self.measure(each, options=unbounded).maximum
        super().print(*objects, **options)


class _PipedConsole(_WideConsole):
    def print(self, *objects: Any, **options: Any) -> None:
        with self.capture() as captured:
            super().print(*objects, **options)
        # Rich fills the lines of a table to its width.
        self.file.write(_PADDING.sub("", captured.get()))


def write_json(file: Path, text: str) -> None:
    """Write JSON into a file, or to standard output. Raises OSError."""
    if file == STDOUT:
        sys.stdout.write(text.rstrip("\n") + "\n")
    else:
        file.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def write_document(file: Path, document: dict[str, object]) -> None:
    """Write a document as indented JSON, as `write_json` does. Raises OSError."""
    write_json(file, msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
