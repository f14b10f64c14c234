"""`dualpool check`: validate the settings, and an Envoy file against them."""

import argparse
from pathlib import Path

DESCRIPTION = (
    "Exit code 0 with the effective settings, or 2 with one line for each fault. "
    "With --envoy: 0 if Envoy's file is valid and agrees with them, or 1 with one line for each "
    "finding."
)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "file", type=Path, nargs="?", help="settings file (default: none, all defaults)"
    )
    parser.add_argument(
        "--envoy", type=Path, metavar="FILE", help="an Envoy file to compare with the settings"
    )
    parser.add_argument(
        "--no-files",
        action="store_true",
        help="do not look at the certificates, secrets, tokenizers and the state's folder that the "
        "settings name, where the service runs on another machine",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from extproc.commands.checking import check

    return check(options.file, options.envoy, looks_at_files=not options.no_files)
