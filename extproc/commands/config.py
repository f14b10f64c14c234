"""`dualpool config`: print configurations for other programs."""

import argparse
from pathlib import Path

from extproc.config.load import load
from extproc.envoy.render import render_envoy

DESCRIPTION = "Print a complete configuration that matches the settings."


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    envoy = kinds.add_parser("envoy", help="Envoy's bootstrap, as YAML")
    envoy.add_argument(
        "file", type=Path, nargs="?", help="settings file (default: none, all defaults)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    print(render_envoy(load(options.file)), end="")
    return 0
