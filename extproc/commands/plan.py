"""`dualpool plan`: how many GPUs a workload needs."""

import argparse
from pathlib import Path
from typing import Final

from extproc.planner.sizing.question import SlotRule
from extproc.planner_commands.inputs import InputOptions, add_input_arguments, input_options
from extproc.planner_commands.options import PlanOptions
from extproc.planner_commands.plan import run_plan
from extproc.simulator.engine.profiles import NAMED

DESCRIPTION = "Size one pool and several, by queueing formulas, and compare them."
_DEFAULTS: Final = PlanOptions(inputs=InputOptions())


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_input_arguments(parser)
    _add_instances(parser)
    _add_plan_limits(parser)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all figures as JSON; -: print"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report with plots")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the plots as PNG")


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
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


def _add_instances(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rate", type=float, metavar="PER_S", help="requests per second (default: the trace's own)"
    )
    parser.add_argument(
        "--profile",
        default=_DEFAULTS.profile,
        metavar="NAME|FILE",
        help=f"{', '.join(NAMED)}, or a JSON file: written by dualpool profile, or with an "
        "accelerator and a model (default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        type=int,
        default=_DEFAULTS.window,
        metavar="TOKENS",
        help="max_model_len of the largest pool (default: %(default)s)",
    )
    parser.add_argument(
        "--max-num-batched-tokens",
        type=int,
        default=_DEFAULTS.max_num_batched_tokens,
        metavar="TOKENS",
        help="of every instance (default: %(default)s)",
    )


def _add_plan_limits(parser: argparse.ArgumentParser) -> None:
    _add_number(
        parser, "--slo-ttft-ms", _DEFAULTS.slo_ttft_ms, "MS", "P99 TTFT in each pool, at most"
    )
    _add_number(
        parser, "--slo-tpot-ms", _DEFAULTS.slo_tpot_ms, "MS", "P99 TPOT in each pool, at most"
    )
    _add_number(parser, "--utilisation", _DEFAULTS.utilisation, "SHARE", "of the slots, at most")
    parser.add_argument(
        "--pools",
        type=int,
        default=_DEFAULTS.pools,
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
        choices=[rule.value for rule in SlotRule],
        default=_DEFAULTS.slots,
        help="max_num_seqs: as many as fit the KV cache at full length, or 99 %% of the time at "
        "their actual lengths (default: %(default)s)",
    )
    parser.add_argument(
        "--max-num-seqs",
        type=int,
        default=_DEFAULTS.max_num_seqs,
        metavar="N",
        help="at most (default: %(default)s)",
    )
    parser.add_argument(
        "--errors",
        metavar="MIS,OVER",
        help="shares of misrouted and over-routed requests (default: measured shares)",
    )
    _add_number(parser, "--hours", _DEFAULTS.hours, "HOURS", "of operation per year")
    parser.add_argument(
        "--price", type=float, metavar="USD", help="per GPU and hour (default: the profile's)"
    )


def _add_number(
    parser: argparse.ArgumentParser, flag: str, default: float, metavar: str, text: str
) -> None:
    text = f"{text} (default: {default:g})"
    parser.add_argument(flag, type=float, default=default, metavar=metavar, help=text)
