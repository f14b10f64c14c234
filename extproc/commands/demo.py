"""`dualpool demo`: send realistic traffic through the stack and print a report."""

import argparse
from pathlib import Path

from extproc.commands.arguments import add_stack, output_file

DESCRIPTION = (
    "Start the stack, send realistic traffic through it and print a report. "
    "Exit code 1 if an answer was lost or altered."
)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_stack(parser)
    parser.add_argument(
        "--compose",
        default="",
        metavar="URL",
        help="use a running stack (docker compose up); URL of its Envoy, http://127.0.0.1:10000",
    )
    parser.add_argument(
        "--requests",
        type=int,
        default=600,
        metavar="N",
        help="requests to send (default: %(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=float,
        metavar="PER_S",
        help="arrivals per second (default: 8 with simulated pools, else as --concurrency allows)",
    )
    parser.add_argument(
        "--concurrency",
        type=int,
        default=16,
        metavar="N",
        help="concurrent requests if there is no rate (default: %(default)s)",
    )
    parser.add_argument(
        "--exceeding",
        type=float,
        default=0.12,
        metavar="SHARE",
        help="share of requests that exceed the smallest pool's window (default: %(default)s)",
    )
    parser.add_argument(
        "--texts",
        type=Path,
        metavar="DIR",
        help="folder of UTF-8 texts, one file or subfolder per kind",
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the stack running after the report, until Ctrl-C"
    )
    parser.add_argument(
        "--json",
        type=output_file,
        metavar="FILE",
        help="write the report as JSON too; -: print it, and all else to standard error",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    # Imported when the command runs: its help must not wait for its libraries.
    from extproc.commands.up import stack_options
    from extproc.local.demo import DemoOptions, run_demo

    return run_demo(
        DemoOptions(
            stack=stack_options(options),
            compose=options.compose,
            requests=options.requests,
            seed=options.seed,
            rate=options.rate,
            concurrency=options.concurrency,
            exceeding=options.exceeding,
            texts=options.texts,
            keep=options.keep,
            json=options.json,
        )
    )
