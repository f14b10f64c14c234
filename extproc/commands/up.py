"""`dualpool up`: the stack on this machine."""

import argparse

from extproc.commands.stack_flags import add_stack, stack_options
from extproc.local.up import run_up

DESCRIPTION = "Run the real Envoy, the service and two pools; Ctrl-C ends all of it."


def fill(parser: argparse.ArgumentParser) -> None:
    """Add what it may be asked."""
    add_stack(parser)


def run(options: argparse.Namespace) -> int:
    """Run it; return its exit code."""
    return run_up(stack_options(options))
