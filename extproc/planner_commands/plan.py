"""`dualpool plan`: read the inputs, plan, report.

What a plan by formula of files needs is imported first, all else where it is used: settings, the
client of HTTP and the simulator take longer to import than such a plan takes to compute.
"""

import importlib
import importlib.util
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from rich.console import Console

from extproc.names import install_hint
from extproc.output import STDOUT, report_console, write_document
from extproc.planner.report.document import as_json
from extproc.planner.report.live import category_table, describe_hour
from extproc.planner.report.text import print_study
from extproc.planner.sizing.estimators import CALIBRATED
from extproc.planner.sizing.question import PlanError
from extproc.planner.sizing.study import Study, examine
from extproc.planner.traffic.live import Category, LiveHour
from extproc.planner_commands.inputs import read_inputs
from extproc.planner_commands.options import PlanOptions, question_of

if TYPE_CHECKING:
    from extproc.planner.proof.tails import Tails

_WIDTH: Final = 110
_LEAST_RUN_S: Final = 30


def run_plan(options: PlanOptions) -> int:
    """Plan, print the report and write the files; return 0, or 1 if the plan misses objectives.

    Raises UserError for wrong options or inputs, and OSError if a file cannot be written.
    """
    _check_packages(options)
    estimator = CALIBRATED
    if options.config:
        from extproc.planner_commands.configured import configured

        options, estimator = configured(options, options.config)
    with Console(stderr=True).status("Planning"):
        reading = read_inputs(options.inputs)
        hour = _hour(options)
        if hour and options.rate is None and not options.inputs.files:
            options = replace(options, rate=max(hour.busiest_per_s, hour.mean_per_s))
        question = question_of(options, reading, estimator)
    if options.offers:
        from extproc.planner_commands.proved import plan_hardware

        return plan_hardware(options, question, reading.notes)
    with Console(stderr=True).status("Planning"):
        done = examine(question, options.pools, options.thresholds)
    tails = None
    if options.tails:
        from extproc.planner_commands.proved import study_tails

        tails = study_tails(options, question)
    notes = (*reading.notes, *_notes(done, options), *(describe_hour(hour, done) if hour else ()))
    _report(_Findings(done, notes, tails, reading.categories), options)
    return 0 if (tails.least if tails else done.plan.meets) else 1


def _hour(options: PlanOptions) -> LiveHour | None:
    if not options.inputs.services:
        return None
    from extproc.planner_commands.live import read_hour

    return read_hour(options.inputs.services)


def _notes(done: Study, options: PlanOptions) -> tuple[str, ...]:
    """Return what every output must say about the profile and the simulation."""
    question, seconds = done.question, options.requests / done.question.rate_per_s
    short_run = (
        f"A simulated run lasts {seconds:.0f} s, too short to fill queues: give more --requests.",
    )
    plans = (done.plan, done.by_default, done.by_lengths, done.by_window, *done.splits)
    most = max(pool.max_num_seqs for plan in plans for pool in plan.pools)
    told = question.profile.notes(most, question.max_num_batched_tokens)
    return (*told, *short_run) if options.tails and seconds < _LEAST_RUN_S else told


@dataclass(frozen=True, slots=True)
class _Findings:
    done: Study
    notes: tuple[str, ...]
    tails: "Tails | None"
    categories: tuple[Category, ...]


def _report(found: _Findings, options: PlanOptions) -> None:
    done, notes, tails = found.done, found.notes, found.tails
    # Before the tables: whoever reads them may stop early (`| head`).
    if options.out:
        from extproc.planner_commands.running import write_fleet, write_plan

        if tails:
            write_fleet(options.out, tails.best)
        else:
            write_plan(options.out, done.plan, done.question)
    if options.json != STDOUT:
        console = report_console(_WIDTH)
        print_study(console, done, notes, tails)
        if found.categories:
            console.print()
            console.print(category_table(found.categories, done))
    if options.json:
        write_document(options.json, as_json(done, notes, tails))
    if options.html or options.plot:
        # Imported here: matplotlib is optional, and slower to load than a plan is to compute.
        draw = importlib.import_module("extproc.planner.report.html")
        draw.write_reports(done, notes, html=options.html, png=options.plot, tails=tails)


def _check_packages(options: PlanOptions) -> None:
    if (options.html or options.plot) and importlib.util.find_spec("matplotlib") is None:
        raise PlanError(f"--html and --plot need matplotlib: {install_hint('evaluate')}")
