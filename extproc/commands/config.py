"""`dualpool config`: what others are configured with."""

import argparse
from pathlib import Path

from extproc.config.load import load
from extproc.envoy.render import render_envoy

DESCRIPTION = "Print a configuration, made for the settings, that runs as it stands."


def fill(parser: argparse.ArgumentParser) -> None:
    """Add what it may be asked."""
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    envoy = kinds.add_parser("envoy", help="a whole configuration of Envoy, as YAML")
    envoy.add_argument(
        "file", type=Path, nargs="?", help="settings file (default: none, all defaults)"
    )


def run(options: argparse.Namespace) -> int:
    """Run it; return its exit code."""
    print(render_envoy(load(options.file)), end="")
    return 0
