"""`dualpool serve`: the service."""

import argparse
from pathlib import Path
from typing import Final

from extproc.commands.arguments import add_config

TRANSPORTS: Final = ("auto", "grpc", "h2")
DESCRIPTION = (
    "Serve until SIGTERM or Ctrl-C, then tell Envoy, refuse new streams and drain; "
    "a second one ends at once. Changes of the file, and SIGHUP, change the settings meanwhile."
)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    parser.add_argument(
        "--transport",
        choices=TRANSPORTS,
        help="what carries Envoy's streams; h2: less CPU, no TLS, for an Envoy on this machine; "
        "auto: h2 on a Unix socket and loopback without TLS, else grpc",
    )
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="PEM: the service's certificate, for TLS"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="PEM: its key")
    parser.add_argument(
        "--tls-client-ca",
        type=Path,
        metavar="FILE",
        help="PEM: the CA of Envoy's certificate; no other client may connect",
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from extproc.commands.serving import load_with_flags
    from extproc.service.reload import Source
    from extproc.service.serve import serve

    source = Source(options.config, lambda: load_with_flags(options))
    serve(source.load(), source)
    return 0
