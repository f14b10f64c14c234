"""`dualpool simulate`: simulate a fleet request by request."""

import argparse
import math
from pathlib import Path
from typing import Final

from extproc.commands.arguments import (
    DEFAULT_PROFILE,
    STATED,
    add_config,
    add_inputs,
    add_sweep,
    input_options,
    output_file,
    sweep_options,
)

RULES: Final = ("dualpool", "paper", "input-length", "random", "oracle", "one-pool", "homogeneous")
DESCRIPTION = (
    "Simulate every request in every engine of a fleet, and print what clients would see. The "
    "pools are those of the settings, or of --plan or --window; with --config, a flag that "
    "contradicts the file is an error. Without --plan, --instances or --gpus the planner sizes "
    "the pools."
)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    add_inputs(parser)
    _add_arrivals(parser)
    _add_fleet(parser)
    _add_conduct(parser)
    add_sweep(parser)
    parser.add_argument(
        "--json",
        type=output_file,
        metavar="FILE",
        help="write all figures as JSON; -: print it, and no tables",
    )
    parser.add_argument(
        "--plot", type=output_file, metavar="FILE", help="write plots of the latencies as PNG"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from extproc.planner.simulation.rules import RuleName
    from extproc.planner.simulation.run import Conduct
    from extproc.planner_commands.fleets import FleetOptions
    from extproc.planner_commands.simulate import COMPARED, SimulateOptions, run_simulate

    rules = COMPARED if arguments.compare else (RuleName(arguments.rule),)
    return run_simulate(
        SimulateOptions(
            inputs=input_options(arguments),
            config=arguments.config,
            fleet=FleetOptions(
                profile=arguments.profile,
                windows=arguments.window,
                thresholds=arguments.threshold,
                max_num_seqs=arguments.max_num_seqs,
                instances=arguments.instances,
                gpus=arguments.gpus,
                plan=arguments.plan,
                max_num_batched_tokens=arguments.max_num_batched_tokens,
                long_prefill_token_threshold=arguments.long_prefill_token_threshold,
                prefix_caching=arguments.prefix_caching,
            ),
            rate=arguments.rate,
            requests=arguments.requests,
            speed=arguments.speed,
            rules=rules,
            seeds=arguments.seeds,
            seed=arguments.seed,
            stated=arguments.stated,
            spill=arguments.spill,
            sensitivity=not arguments.no_sensitivity,
            conduct=Conduct(
                choices=arguments.choices,
                retry=not arguments.no_retry,
                drain_s=arguments.drain,
            ),
            sweep=sweep_options(arguments),
            warmup_s=arguments.warmup,
            json=arguments.json,
            plot=arguments.plot,
        )
    )


def _add_arrivals(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("arrivals").add_argument
    add(
        "--rate",
        type=float,
        default=0.0,
        metavar="PER_S",
        help="Poisson arrivals per second (default: the trace's own times)",
    )
    add(
        "--requests",
        type=int,
        default=20_000,
        metavar="N",
        help="with --rate: number of requests (default: %(default)s)",
    )
    add(
        "--speed",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="without --rate: replay the trace this many times as fast (default: %(default)s)",
    )
    add(
        "--stated",
        type=float,
        default=STATED,
        metavar="SHARE",
        help="share of requests that state an output limit (default: %(default)s)",
    )


def _add_fleet(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("fleet").add_argument
    add(
        "--plan",
        type=Path,
        metavar="FILE",
        help="use the pools of a file written by dualpool plan --json",
    )
    add(
        "--profile",
        default=DEFAULT_PROFILE,
        metavar="NAME|FILE",
        help="profile of the instances: a name or a file (default: %(default)s)",
    )
    for flag, text in (
        ("--window", "max_model_len of each pool, ascending (default: those of the settings)"),
        (
            "--threshold",
            "largest budget of each pool but the last (default: of the settings, or its --window)",
        ),
        ("--max-num-seqs", "of each pool (default: what dualpool plan chooses)"),
        ("--instances", "of each pool"),
    ):
        # () and 0 leave the choice to the settings or the planner (FleetOptions).
        add(flag, type=_whole_numbers, default=(), metavar="N,N", help=text)
    add("--gpus", type=int, default=0, metavar="N", help="GPUs, divided among the pools by load")
    add(
        "--max-num-batched-tokens",
        type=int,
        metavar="TOKENS",
        help="of every instance (default: vLLM's on the accelerator, 8192 or 2048)",
    )
    add(
        "--long-prefill-token-threshold",
        type=int,
        default=0,
        metavar="TOKENS",
        help="of every instance: most tokens of one prefill in an iteration (default: no limit)",
    )
    add("--prefix-caching", action="store_true", help="cache prefixes, for traces that have them")


def _add_conduct(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("run").add_argument
    add(
        "--rule",
        choices=RULES,
        default=RULES[0],
        help="the routing rule (default: %(default)s)",
    )
    add("--compare", action="store_true", help="run all rules on the same arrivals and GPUs")
    add(
        "--seeds", type=int, default=1, metavar="N", help="runs of each rule (default: %(default)s)"
    )
    add("--seed", type=int, default=0, help="the first seed (default: %(default)s)")
    add(
        "--choices",
        type=int,
        default=2,
        metavar="N",
        help="instances that the balancer compares, Envoy's choice_count (default: %(default)s)",
    )
    add(
        "--no-retry", action="store_true", help="do not retry a refused request in the largest pool"
    )
    add(
        "--spill",
        action="store_true",
        help="let the rule dualpool move requests from a saturated pool, as load.spill does",
    )
    add(
        "--no-sensitivity",
        action="store_true",
        help="do not repeat what is above 80 %% load with 10 %% less and 10 %% more capacity",
    )
    add(
        "--warmup",
        type=float,
        metavar="S",
        help="leave out arrivals before this time (default: twice the mean time of an answer, from "
        "a tenth to half of the span)",
    )
    add(
        "--drain",
        type=float,
        default=math.inf,
        metavar="S",
        help="end this long after the last arrival, with open requests unfinished (default: wait "
        "for all)",
    )


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not allowed: whole numbers, separated by commas"
        ) from None
