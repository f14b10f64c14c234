"""`dualpool profile`: how fast a vLLM is."""

import argparse
from pathlib import Path

from extproc.profiling.profile import ProfileOptions, run_profile

DESCRIPTION = (
    "Measure first tokens and iterations of an idle vLLM with requests of exact "
    "length, in about a minute. Exit code 1 where it cannot be measured."
)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add what it may be asked."""
    parser.add_argument("url", metavar="URL", help="such as http://127.0.0.1:8000")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the profile as JSON")
    parser.add_argument(
        "--most", type=int, default=64, help="sequences at once (default: %(default)s)"
    )
    parser.add_argument(
        "--max-num-batched-tokens",
        type=int,
        default=2048,
        metavar="TOKENS",
        help="as the server has it, which it does not tell (default: %(default)s)",
    )
    parser.add_argument("--gpus", type=int, default=1, help="of the instance")
    parser.add_argument(
        "--price", type=float, default=0.0, metavar="USD", help="of a GPU for an hour"
    )


def run(options: argparse.Namespace) -> int:
    """Run it; return its exit code."""
    return run_profile(
        ProfileOptions(
            url=options.url,
            out=options.out,
            most=options.most,
            max_num_batched_tokens=options.max_num_batched_tokens,
            gpus=options.gpus,
            price_per_gpu_h=options.price,
        )
    )
