"""`dualpool evaluate`: the bench of estimators."""

import argparse
from pathlib import Path

from extproc.evaluation.options import THRESHOLDS, EvaluateOptions
from extproc.evaluation.run import run_evaluate

DESCRIPTION = (
    "Replay texts through each estimator, in order and online, and print how each "
    "does. A bench: the figures of one machine and one seed."
)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add what it may be asked."""
    parser.add_argument(
        "--texts", type=Path, metavar="DIR|FILE.jsonl", help="texts, a class each, or requests"
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
        help=f"repeatable; default: {', '.join(map(str, THRESHOLDS))}",
    )
    parser.add_argument(
        "--lengths",
        type=Path,
        action="append",
        metavar="FILE",
        help="a trace that lengths are drawn from (repeatable; default: Azure 2023, longer tail)",
    )
    parser.add_argument(
        "--stated",
        type=float,
        default=0.85,
        metavar="SHARE",
        help="share of requests that state an output limit (default: %(default)s)",
    )
    parser.add_argument(
        "--requests", type=int, default=6000, help="for each tokenizer (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--by-class", action="store_true", help="a row for each class of text")
    parser.add_argument("--poison", action="store_true", help="what attacks do to the estimators")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a plot as PNG")


def run(options: argparse.Namespace) -> int:
    """Run it; return its exit code."""
    return run_evaluate(
        EvaluateOptions(
            texts=options.texts,
            tokenizers=tuple(options.tokenizer or ()),
            thresholds=tuple(options.threshold or THRESHOLDS),
            lengths=tuple(options.lengths or ()),
            stated=options.stated,
            requests=options.requests,
            seed=options.seed,
            by_class=options.by_class,
            poison=options.poison,
            json=options.json,
            plot=options.plot,
        )
    )
