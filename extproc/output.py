"""Writes the figures of a command: tables on a console, or JSON to a file or standard output."""

import sys
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

STDOUT: Final = Path("-")
"""Stands for standard output where a command takes a file."""


def report_console(width: int) -> Console:
    """Return a console for tables of this width. NO_COLOR and pipes get no colours."""
    # Outside a terminal rich assumes 80 columns, which would wrap the tables.
    return Console() if Console().is_terminal else Console(width=width)


def write_json(file: Path, text: str) -> None:
    """Write JSON into a file, or to standard output. Raises OSError."""
    if file == STDOUT:
        sys.stdout.write(text.rstrip("\n") + "\n")
    else:
        file.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def write_document(file: Path, document: dict[str, object]) -> None:
    """Write a document as indented JSON, as `write_json` does. Raises OSError."""
    write_json(file, msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
