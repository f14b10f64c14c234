"""`dualpool config`: print configurations for other programs."""

import argparse
from pathlib import Path

from extproc.config.load import load
from extproc.envoy.fragment import render_fragment
from extproc.envoy.render import render_envoy

DESCRIPTION = "Print a configuration that matches the settings."


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    kinds = parser.add_subparsers(metavar="KIND", required=True)
    envoy = kinds.add_parser("envoy", help="Envoy's bootstrap, as YAML")
    envoy.add_argument(
        "file", type=Path, nargs="?", help="settings file (default: none, all defaults)"
    )
    envoy.add_argument(
        "--fragment",
        action="store_true",
        help="print only the parts to paste into an Envoy that serves other applications too",
    )
    envoy.add_argument(
        "--prefix",
        default="/llm/",
        metavar="PATH",
        help="path of the API, with --fragment; starts and ends with / (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    settings = load(options.file)
    if options.fragment:
        print(render_fragment(settings, options.prefix), end="")
    else:
        print(render_envoy(settings), end="")
    return 0
