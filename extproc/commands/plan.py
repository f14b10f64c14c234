"""`dualpool plan`: how many GPUs a traffic needs."""

import argparse
from pathlib import Path

from extproc.planner_commands.inputs import add_input_arguments, input_options
from extproc.planner_commands.options import PlanOptions
from extproc.planner_commands.plan import run_plan

DESCRIPTION = "Size one pool and several, by queueing formulas, and compare them."


def fill(parser: argparse.ArgumentParser) -> None:
    """Add what it may be asked."""
    """Add `dualpool plan`."""
    add_input_arguments(parser)
    add_fleet_arguments(parser)
    _add_plan_limits(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures; -: print")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report with plots")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the plots as PNG")


def run(options: argparse.Namespace) -> int:
    """Run it; return its exit code."""
    return run_plan(
        PlanOptions(
            inputs=input_options(options),
            rate=options.rate,
            profile=options.profile,
            window=options.window,
            max_num_batched_tokens=options.max_num_batched_tokens,
            slo_ttft_ms=options.slo_ttft_ms,
            slo_tpot_ms=options.slo_tpot_ms,
            utilisation=options.utilisation,
            pools=options.pools,
            thresholds=tuple(options.threshold),
            slots=options.slots,
            max_num_seqs=options.max_num_seqs,
            errors=options.errors,
            hours=options.hours,
            price=options.price,
            json=options.json,
            html=options.html,
            plot=options.plot,
        )
    )


def add_fleet_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a plan and a simulation both have to know: the traffic's rate and the instances."""
    parser.add_argument(
        "--rate", type=float, metavar="PER_S", help="requests a second (default: the trace's own)"
    )
    parser.add_argument(
        "--profile",
        default="a100-llama70b",
        metavar="NAME|FILE",
        help="a100-llama70b, h100-llama70b, a10g, mi300x-qwen235b, or a JSON file: one that "
        "dualpool profile has written, or an accelerator and a model (default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        type=int,
        default=65_536,
        metavar="TOKENS",
        help="max_model_len of the largest pool (default: %(default)s)",
    )
    parser.add_argument(
        "--max-num-batched-tokens",
        type=int,
        default=2048,
        metavar="TOKENS",
        help="vLLM's, of every instance (default: %(default)s)",
    )


def _add_plan_limits(parser: argparse.ArgumentParser) -> None:
    _add_number(parser, "--slo-ttft-ms", 2000.0, "P99")
    _add_number(parser, "--slo-tpot-ms", 80.0, "P99")
    _add_number(parser, "--utilisation", 0.85, "CAP")
    parser.add_argument(
        "--pools", type=int, default=2, metavar="N", help="pools, at most (default: %(default)s)"
    )
    parser.add_argument(
        "--threshold",
        type=int,
        action="append",
        default=[],
        metavar="TOKENS",
        help="split there; again for each further pool (default: wherever it saves most)",
    )
    parser.add_argument(
        "--slots",
        choices=("window", "occupancy"),
        default="window",
        help="max_num_seqs: as many as fit the KV cache at full length, or 99 %% of the time at "
        "the lengths they have (default: %(default)s)",
    )
    parser.add_argument(
        "--max-num-seqs", type=int, default=1024, metavar="N", help="at most (default: %(default)s)"
    )
    parser.add_argument(
        "--errors",
        metavar="MIS,OVER",
        help="shares of misrouted and over-routed requests (default: those of dualpool evaluate)",
    )
    _add_number(parser, "--hours", 8760.0, "PER_YEAR")
    parser.add_argument(
        "--price", type=float, metavar="USD", help="per GPU and hour (default: the profile's)"
    )


def _add_number(parser: argparse.ArgumentParser, flag: str, default: float, metavar: str) -> None:
    parser.add_argument(
        flag, type=float, default=default, metavar=metavar, help="default: %(default)s"
    )
