"""`dualpool demo`: the stack, traffic and a report."""

import argparse
from pathlib import Path

from extproc.commands.stack_flags import add_stack, stack_options
from extproc.local.demo import DemoOptions, run_demo

DESCRIPTION = "Exit code 0 where no answer was lost or altered, else 1."


def fill(parser: argparse.ArgumentParser) -> None:
    """Add what it may be asked."""
    add_stack(parser)
    parser.add_argument(
        "--compose",
        default="",
        metavar="URL",
        help="a running stack (docker compose up): the URL of its Envoy, http://127.0.0.1:10000",
    )
    parser.add_argument("--requests", type=int, default=600, help="default: %(default)s")
    parser.add_argument(
        "--rate",
        type=float,
        metavar="PER_S",
        help="arrivals a second (default: 8 for the built-in pools; real ones: --concurrency)",
    )
    parser.add_argument(
        "--concurrency", type=int, default=16, help="requests at once, without --rate"
    )
    parser.add_argument(
        "--exceeding",
        type=float,
        default=0.12,
        metavar="SHARE",
        help="share of requests larger than the smallest pool (default: %(default)s)",
    )
    parser.add_argument(
        "--texts", type=Path, metavar="DIR", help="folder of UTF-8 texts, one kind each"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")


def run(options: argparse.Namespace) -> int:
    """Run it; return its exit code."""
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
            json=options.json,
        )
    )
