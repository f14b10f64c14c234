"""`dualpool evaluate`: compare estimators."""

import argparse
from pathlib import Path

from extproc.commands.arguments import STATED, add_config, output_file

DESCRIPTION = (
    "Replay texts through each estimator, in order and online, and print how often each misroutes "
    "and over-routes. --config sets the target, the constants of the estimators and, unless "
    "--threshold is given, the thresholds: the limits of its pools. CPU times are of this machine."
)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_config(parser)
    parser.add_argument(
        "--texts",
        type=Path,
        metavar="DIR|FILE.jsonl",
        help="texts, one class per file or subfolder, or requests",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        action="append",
        metavar="FILE",
        help="a tokenizer.json (repeatable; default: o200k_base and cl100k_base)",
    )
    parser.add_argument(
        "--threshold",
        type=int,
        action="append",
        metavar="TOKENS",
        help="repeatable (default: the limits of the pools of --config, or 2048, 8192, 32768)",
    )
    parser.add_argument(
        "--lengths",
        type=Path,
        action="append",
        metavar="FILE",
        help="lengths to draw from, in any format of `dualpool plan` (repeatable; default: Azure "
        "2023 with a longer tail)",
    )
    parser.add_argument(
        "--stated",
        type=float,
        default=STATED,
        metavar="SHARE",
        help="share of requests that state an output limit (default: %(default)s)",
    )
    parser.add_argument(
        "--requests",
        type=int,
        help="per tokenizer (default: 6000, or as many as each scenario needs)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--by-class", action="store_true", help="print a row per class of text")
    parser.add_argument(
        "--poison", action="store_true", help="run attacks on the estimators instead"
    )
    parser.add_argument(
        "--scenarios",
        nargs="?",
        const="",
        metavar="TEXT",
        help="run named scenarios of traffic instead, or those with TEXT in their name",
    )
    parser.add_argument(
        "--outputs",
        action="store_true",
        help="compare what predicts completion tokens instead, for each file of --lengths",
    )
    parser.add_argument(
        "--json",
        type=output_file,
        metavar="FILE",
        help="write the figures as JSON too; -: print it, and no tables",
    )
    parser.add_argument("--plot", type=output_file, metavar="FILE", help="write a plot as PNG")


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    from extproc.evaluation.options import EvaluateOptions
    from extproc.evaluation.run import run_evaluate

    return run_evaluate(
        EvaluateOptions(
            config=options.config,
            texts=options.texts,
            tokenizers=tuple(options.tokenizer or ()),
            thresholds=tuple(options.threshold or ()),
            lengths=tuple(options.lengths or ()),
            stated=options.stated,
            requests=options.requests,
            seed=options.seed,
            by_class=options.by_class,
            poison=options.poison,
            scenarios=options.scenarios,
            outputs=options.outputs,
            json=options.json,
            plot=options.plot,
        )
    )
