"""`dualpool explain`: one decision, in figures."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import msgspec

from extproc.commands.arguments import add_config
from extproc.config.errors import UserError
from extproc.config.load import Settings, load
from extproc.request.reader import endpoint
from extproc.service.explain import describe, explain

DESCRIPTION = "Decide for one request body as a service that has learnt nothing yet."


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("file", help="file with the request body, or - for standard input")
    parser.add_argument(
        "--path",
        default="/v1/chat/completions",
        help="path that the body is sent to (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    settings: Settings = load(options.config)
    kind = endpoint(options.path)
    if kind is None:
        raise UserError(f"dualpool: {options.path} carries no prompt: such requests pass on unread")
    body = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    explanation = explain(body, kind, settings)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(asdict(explanation)), indent=2).decode())
    else:
        print(describe(explanation))
    return 0
