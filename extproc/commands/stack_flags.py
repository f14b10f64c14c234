"""Flags that several commands have."""

import argparse

from extproc.local.ports import Ports
from extproc.local.stack import StackOptions


def add_stack(parser: argparse.ArgumentParser) -> None:
    """Add what the stack on this machine may be told."""
    parser.add_argument(
        "--pools",
        default="",
        metavar="URL,URL",
        help="real servers, in place of the built-in simulated pools",
    )
    parser.add_argument(
        "--ports",
        choices=("fixed", "auto"),
        default="fixed",
        help="fixed: 10000, 9901, 50051, 8081, 8101, 8102; auto: any free ones",
    )
    parser.add_argument(
        "--speed", type=float, default=1.0, help="of the built-in pools (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of traffic and pools (default: %(default)s)"
    )


def stack_options(options: argparse.Namespace) -> StackOptions:
    """Take from the flags what the stack is told."""
    return StackOptions(
        pools=tuple(url for url in options.pools.split(",") if url),
        ports=None if options.ports == "auto" else Ports(),
        speed=options.speed,
        seed=options.seed,
    )
