"""`dualpool plan`: read the inputs, plan, report."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from extproc.config.load import load
from extproc.names import install_hint
from extproc.planner.report.document import as_json
from extproc.planner.report.text import print_study
from extproc.planner.sizing.question import PlanError
from extproc.planner.sizing.study import Study, examine
from extproc.planner_commands.inputs import read_inputs
from extproc.planner_commands.options import PlanOptions, question_of, with_pools

_WIDTH: Final = 110


def run_plan(options: PlanOptions) -> int:
    """Plan, print the report and write the files; return 0, or 1 if the plan misses objectives.

    Raises UserError for wrong options or inputs, and OSError if a file cannot be written.
    """
    _check_packages(options)
    settings = load(options.config)
    if options.config:
        options = with_pools(options, settings)
    with Console(stderr=True).status("Planning"):
        reading = read_inputs(options.inputs)
        question = question_of(options, reading, settings.budget.estimator)
        done = examine(question, options.pools, options.thresholds)
    _report(done, (*reading.notes, *_notes(done)), options)
    return 0 if done.plan.meets else 1


def _notes(done: Study) -> tuple[str, ...]:
    """Return what every output must say about the profile."""
    question = done.question
    most = max(pool.max_num_seqs for pool in done.plan.pools)
    return question.profile.notes(most, question.max_num_batched_tokens)


def _report(done: Study, notes: Sequence[str], options: PlanOptions) -> None:
    document = msgspec.json.format(msgspec.json.encode(as_json(done, notes)), indent=2)
    if options.json == Path("-"):
        print(document.decode())  # noqa: T201 - the requested output
    else:
        # Outside a terminal rich assumes 80 columns, which would wrap the tables.
        print_study(Console() if Console().is_terminal else Console(width=_WIDTH), done, notes)
        if options.json:
            options.json.write_bytes(document + b"\n")
    if options.html or options.plot:
        # Imported here: matplotlib is optional, and slower to load than a plan is to compute.
        draw = importlib.import_module("extproc.planner.report.html")
        draw.write_reports(done, notes, html=options.html, png=options.plot)


def _check_packages(options: PlanOptions) -> None:
    if (options.html or options.plot) and importlib.util.find_spec("matplotlib") is None:
        raise PlanError(f"--html and --plot need matplotlib: {install_hint('evaluate')}")
