"""`dualpool plan`: how many GPUs a workload needs."""

import argparse
from pathlib import Path

from extproc.commands.arguments import (
    DEFAULT_PROFILE,
    PROFILES,
    add_config,
    add_inputs,
    add_sweep,
    input_options,
    output_file,
    sweep_options,
)

DESCRIPTION = (
    "Size one pool and several, by queueing formulas, and compare them. --config plans for the "
    "pools of the settings, each up to its threshold, and for their estimator; a flag that "
    "contradicts the file is an error."
)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    add_inputs(parser)
    _add_instances(parser)
    _add_plan_limits(parser)
    add_sweep(parser)
    parser.add_argument(
        "--json",
        type=output_file,
        metavar="FILE",
        help="write all figures as JSON; -: print it, and no tables",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write what starts the pools: dualpool.yaml, vllm.sh, values.yaml for Helm and, for "
        "two pools, .env for compose",
    )
    parser.add_argument(
        "--html", type=output_file, metavar="FILE", help="write a report with plots"
    )
    parser.add_argument("--plot", type=output_file, metavar="FILE", help="write the plots as PNG")


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from extproc.planner_commands.options import PlanOptions
    from extproc.planner_commands.plan import run_plan

    return run_plan(
        PlanOptions(
            inputs=input_options(options),
            config=options.config,
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
            slo_long_ttft_ms=options.slo_long_ttft_ms,
            slo_long_tpot_ms=options.slo_long_tpot_ms,
            offers=tuple(options.pool),
            model=options.model,
            tails=options.tails,
            requests=options.requests,
            sweep=sweep_options(options),
            hours=options.hours,
            price=options.price,
            out=options.out,
            json=options.json,
            html=options.html,
            plot=options.plot,
        )
    )


def _add_instances(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rate", type=float, metavar="PER_S", help="requests per second (default: the trace's own)"
    )
    parser.add_argument(
        "--profile",
        default=DEFAULT_PROFILE,
        metavar="NAME|FILE",
        help=f"{', '.join(PROFILES)}, or a JSON file: written by dualpool profile, or with an "
        "accelerator and a model (default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        type=int,
        metavar="TOKENS",
        help="max_model_len of the largest pool (default: that of --config, or 65536)",
    )
    parser.add_argument(
        "--max-num-batched-tokens",
        type=int,
        metavar="TOKENS",
        help="of every instance (default: vLLM's on the accelerator, 8192 or 2048)",
    )


def _add_plan_limits(parser: argparse.ArgumentParser) -> None:
    _add_number(parser, "--slo-ttft-ms", 2000, "MS", "P99 TTFT in each pool, at most")
    _add_number(parser, "--slo-tpot-ms", 80, "MS", "P99 TPOT in each pool, at most")
    parser.add_argument(
        "--slo-long-ttft-ms",
        type=float,
        metavar="MS",
        help="P99 TTFT above the smallest pool, at most (default: --slo-ttft-ms)",
    )
    parser.add_argument(
        "--slo-long-tpot-ms",
        type=float,
        metavar="MS",
        help="P99 TPOT above the smallest pool, at most (default: --slo-tpot-ms)",
    )
    parser.add_argument(
        "--pool",
        action="append",
        default=[],
        metavar="NAME=GPU,...",
        help="twice, the short pool first: what it may run on, such as l4, h100x8 (eight GPUs for "
        "an instance) or a profile; prints the cheapest fleets, proved by simulation",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="with --pool: its shape (default: llama-3-8b)"
    )
    parser.add_argument(
        "--tails",
        action="store_true",
        help="simulate what short and long requests see of one pool and of a split, and the least "
        "GPUs that hold the objectives of both; short is up to --threshold (default: 8192 tokens)",
    )
    parser.add_argument(
        "--requests",
        type=int,
        default=10_000,
        metavar="N",
        help="of each simulation (default: %(default)s)",
    )
    _add_number(parser, "--utilisation", 0.85, "SHARE", "of the slots, at most")
    parser.add_argument(
        "--pools",
        type=int,
        default=2,
        metavar="N",
        help="number of pools, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold",
        type=int,
        action="append",
        default=[],
        metavar="TOKENS",
        help="split here; repeat for each further pool (default: where it saves most)",
    )
    parser.add_argument(
        "--slots",
        choices=["window", "occupancy"],
        default="occupancy",
        help="max_num_seqs: as many as fit the KV cache at full length (the papers' rule), or 99 "
        "%% of the time at their actual lengths (default: %(default)s)",
    )
    parser.add_argument(
        "--max-num-seqs",
        type=int,
        default=1024,
        metavar="N",
        help="at most (default: %(default)s)",
    )
    parser.add_argument(
        "--errors",
        metavar="MIS,OVER",
        help="shares of misrouted and over-routed requests (default: measured shares)",
    )
    _add_number(parser, "--hours", 8760, "HOURS", "of operation per year")
    parser.add_argument(
        "--price", type=float, metavar="USD", help="per GPU and hour (default: the profile's)"
    )


def _add_number(
    parser: argparse.ArgumentParser, flag: str, default: float, metavar: str, text: str
) -> None:
    text = f"{text} (default: {default:g})"
    parser.add_argument(flag, type=float, default=default, metavar=metavar, help=text)
