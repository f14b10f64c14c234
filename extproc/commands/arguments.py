"""Arguments that several commands share; imports nothing that `serve` does not need."""

import argparse
from pathlib import Path


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add --config, the path of the settings file."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings file (default: none, all defaults)"
    )


def add_stack(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a stack on this machine; up.stack_options reads them."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings file: its pools, and all else but its addresses (default: the pools short "
        "8192 and long 65536)",
    )
    parser.add_argument(
        "--listen",
        default="",
        metavar="HOST:PORT",
        help="where Envoy serves the API (default: the first of --ports, on 127.0.0.1)",
    )
    parser.add_argument(
        "--pools",
        default="",
        metavar="URL,URL",
        help="use these running servers instead of the built-in simulated pools",
    )
    parser.add_argument(
        "--ports",
        default="fixed",
        metavar="PORTS",
        help="fixed: 10000,9901,50051,8081,8101,8102...; auto: any free ports; or ports of your "
        "choice: Envoy, its admin, the service's gRPC and HTTP, each simulated pool "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--speed",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="run the simulated pools this many times faster than real ones (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="random seed of the traffic and of the simulated pools (default: %(default)s)",
    )
