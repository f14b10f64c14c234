"""`dualpool profile`: measure how fast a vLLM server is."""

import argparse

from extproc.commands.arguments import output_file

DESCRIPTION = (
    "Measure time to first token and iteration time of an idle vLLM server with requests of known "
    "length, and fit a profile; takes one to five minutes. Exit code 1 if no profile can be fitted."
)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("url", metavar="URL", help="base URL, such as http://127.0.0.1:8000")
    parser.add_argument(
        "--out",
        type=output_file,
        metavar="FILE",
        help="write the profile as JSON; -: print it, and no tables",
    )
    parser.add_argument(
        "--json", dest="out", type=output_file, metavar="FILE", help="the same as --out"
    )
    parser.add_argument(
        "--most",
        type=int,
        default=1024,
        metavar="N",
        help="largest number of concurrent sequences to measure (default: %(default)s)",
    )
    parser.add_argument(
        "--max-num-batched-tokens",
        type=int,
        default=2048,
        metavar="TOKENS",
        help="the server's own setting, which its API does not report (default: %(default)s)",
    )
    parser.add_argument(
        "--no-async-scheduling",
        action="store_true",
        help="the server runs without it, as on CPUs; its API does not report it",
    )
    parser.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="GPUs of the server (default: %(default)s)"
    )
    parser.add_argument(
        "--price", type=float, default=0.0, metavar="USD", help="price of one GPU per hour"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    # Imported when the command runs: its help must not wait for its libraries.
    from extproc.profiling.profile import ProfileOptions, run_profile

    return run_profile(
        ProfileOptions(
            url=options.url,
            out=options.out,
            most=options.most,
            max_num_batched_tokens=options.max_num_batched_tokens,
            gpus=options.gpus,
            price_per_gpu_h=options.price,
            async_scheduling=not options.no_async_scheduling,
        )
    )
