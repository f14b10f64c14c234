"""`dualpool up`: run the whole stack on this machine."""

import argparse

from extproc.commands.arguments import add_stack
from extproc.local.ports import Ports
from extproc.local.stack import StackOptions
from extproc.local.up import run_up

DESCRIPTION = "Run Envoy, the service and two pools until Ctrl-C."


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_stack(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    return run_up(stack_options(options))


def stack_options(options: argparse.Namespace) -> StackOptions:
    """Return the stack's options from the parsed arguments of add_stack."""
    return StackOptions(
        pools=tuple(url for url in options.pools.split(",") if url),
        ports=None if options.ports == "auto" else Ports(),
        speed=options.speed,
        seed=options.seed,
    )
