"""`dualpool up`: run the whole stack on this machine."""

import argparse
from typing import TYPE_CHECKING

from extproc.commands.arguments import add_stack

if TYPE_CHECKING:
    from extproc.local.ports import Ports
    from extproc.local.stack import StackOptions

DESCRIPTION = "Run Envoy, the service and its pools until Ctrl-C."


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_stack(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    # Imported when the command runs: its help must not wait for its libraries.
    from extproc.local.up import run_up

    return run_up(stack_options(options))


def stack_options(options: argparse.Namespace) -> "StackOptions":
    """Return the stack's options from the parsed arguments of add_stack."""
    from extproc.config.load import load_row
    from extproc.local.fleet import PAPER_SIZES, PoolSize
    from extproc.local.stack import StackOptions

    settings = load_row(options.config) if options.config else None
    pools = settings.pools if settings else ()
    sizes = tuple(PoolSize(pool.name, pool.max_model_len) for pool in pools) or PAPER_SIZES
    return StackOptions(
        pools=tuple(url for url in options.pools.split(",") if url),
        sizes=sizes,
        named=settings is not None,
        ports=_ports(options.ports, len(sizes)),
        listen=options.listen,
        logs=options.logs,
        speed=options.speed,
        seed=options.seed,
        settings=settings.model_dump() if settings else {},
    )


def _ports(text: str, pools: int) -> "Ports | None":
    from extproc.local.ports import fixed_ports, read_ports

    match text:
        case "auto":
            return None
        case "fixed":
            return fixed_ports(pools)
        case _:
            return read_ports(text, pools)
