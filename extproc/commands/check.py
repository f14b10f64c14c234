"""`dualpool check`: settings, and Envoy beside them."""

import argparse
from pathlib import Path

from extproc.config.load import load, render
from extproc.envoy.document import read_envoy
from extproc.envoy.review import review

DESCRIPTION = (
    "Exit code 0 with the effective settings, or 2 with one line for each fault. "
    "With --envoy: 0 where Envoy's file agrees with them, or 1 with one line for each finding."
)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add what it may be asked."""
    parser.add_argument(
        "file", type=Path, nargs="?", help="settings file (default: none, all defaults)"
    )
    parser.add_argument(
        "--envoy", type=Path, metavar="FILE", help="an Envoy file to compare with the settings"
    )


def run(options: argparse.Namespace) -> int:
    """Run it; return its exit code."""
    settings = load(options.file)
    if options.envoy is None:
        print(render(settings), end="")
        return 0
    findings = review(settings, read_envoy(options.envoy))
    for finding in findings:
        print(f"{options.envoy}: {finding}")
    if not findings:
        print(f"{options.envoy} and the settings agree")
    return 1 if findings else 0
