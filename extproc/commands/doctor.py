"""`dualpool doctor`: look at a live installation."""

import argparse
from pathlib import Path

DESCRIPTION = (
    "Look at a running Envoy, service and pools, and print one line for each thing that is wrong, "
    "with its evidence and what to do. Nothing is changed. Exit code 0: nothing is wrong; 1: "
    "something is, or does not answer; 2: wrong arguments or settings."
)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings that the service is meant to run with (default: none are compared)",
    )
    parser.add_argument(
        "--envoy",
        default="",
        metavar="ADDRESS",
        help="HOST:PORT of Envoy's admin (default: envoy.admin of the service's settings)",
    )
    parser.add_argument(
        "--service",
        default="",
        metavar="ADDRESS",
        help="HOST:PORT of the service's HTTP side (default: listen.http of --config, or "
        "127.0.0.1:8081)",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="the service's bearer token (default: listen.http_token_file of the settings)",
    )
    parser.add_argument(
        "--watch",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="judge the traffic of so many seconds from now (default: all since the start)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    # Imported when the command runs: its help must not wait for its libraries.
    from extproc.config.errors import UserError
    from extproc.doctor.run import DoctorOptions, run_doctor

    if not 0 <= options.watch <= 3600:
        raise UserError(f"dualpool: --watch: {options.watch:g} is not 0 to 3600 seconds")
    return run_doctor(
        DoctorOptions(
            config=options.config,
            envoy=options.envoy,
            service=options.service,
            token_file=options.token_file,
            watch_s=options.watch,
            json=options.json,
        )
    )
