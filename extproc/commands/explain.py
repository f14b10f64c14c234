"""`dualpool explain`: one decision, in figures."""

import argparse

from extproc.commands.arguments import add_config

DESCRIPTION = (
    "Decide for one request body as a service that has learnt nothing yet. Exit code 1: the body "
    "cannot be read: the largest pool gets it or, where rows name models, one that Envoy chooses."
)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", help="file with the request body, or - for standard input")
    parser.add_argument(
        "--path",
        help="path that the body is sent to (default: guessed from the fields of the body)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from extproc.commands.explaining import print_decision

    return 0 if print_decision(options) else 1
