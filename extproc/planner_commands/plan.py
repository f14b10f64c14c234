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
from extproc.output import STDOUT, report_console, write_json
from extproc.planner.proof.hardware import search
from extproc.planner.proof.tails import SHARES, Tails, study
from extproc.planner.report.document import as_json
from extproc.planner.report.hardware import hardware_json, print_hardware
from extproc.planner.report.running import running_files
from extproc.planner.report.text import print_study
from extproc.planner.sizing.question import PlanError, Question
from extproc.planner.sizing.study import Study, examine
from extproc.planner_commands.inputs import read_inputs
from extproc.planner_commands.options import (
    PlanOptions,
    class_threshold,
    machines_of,
    question_of,
    with_pools,
)
from extproc.progress import showing

_WIDTH: Final = 110
_LEAST_RUN_S: Final = 30


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
    if options.offers:
        if options.out:
            raise PlanError("--out: not with --pool, whose pools have settings of their own")
        return _plan_hardware(options, question, reading.notes)
    with Console(stderr=True).status("Planning"):
        done = examine(question, options.pools, options.thresholds)
    tails = _tails(options, question) if options.tails else None
    _report(done, (*reading.notes, *_notes(done, options)), options, tails)
    return 0 if (tails.least if tails else done.plan.meets) else 1


def _notes(done: Study, options: PlanOptions) -> tuple[str, ...]:
    """Return what every output must say about the profile and the simulation."""
    question, seconds = done.question, options.requests / done.question.rate_per_s
    short_run = (
        f"A simulated run lasts {seconds:.0f} s, too short to fill queues: give more --requests.",
    )
    most = max(pool.max_num_seqs for pool in done.plan.pools)
    told = question.profile.notes(most, question.max_num_batched_tokens)
    return (*told, *short_run) if options.tails and seconds < _LEAST_RUN_S else told


def _plan_hardware(options: PlanOptions, question: Question, notes: tuple[str, ...]) -> int:
    offers, threshold = machines_of(options), class_threshold(options, question)
    with showing(Console(stderr=True)) as show:
        show.say("Simulating the cheapest fleets")
        found = search(question, offers, threshold, options.requests)
    if options.json != STDOUT:
        print_hardware(report_console(_WIDTH), found, notes)
    if options.json:
        _write(options.json, hardware_json(found))
    if options.plot:
        importlib.import_module("extproc.planner.report.html").draw_hardware(found, options.plot)
    return 0 if found.rows else 1


def _write(file: Path, document: dict[str, object]) -> None:
    write_json(file, msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def _tails(options: PlanOptions, question: Question) -> Tails:
    threshold = class_threshold(options, question)
    with showing(Console(stderr=True)) as show:
        show.begin("Simulating", 1 + len(SHARES))
        return study(question, threshold, options.requests, show.advance)


def _report(done: Study, notes: Sequence[str], options: PlanOptions, tails: Tails | None) -> None:
    if options.json != STDOUT:
        print_study(report_console(_WIDTH), done, notes, tails)
    if options.json:
        _write(options.json, as_json(done, notes, tails))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        files = running_files(done.plan, done.question)
        for name, text in files.items():
            (options.out / name).write_text(text, encoding="utf-8")
        pools = ", ".join(pool.name for pool in done.plan.pools)
        told = f"{options.out}: wrote {', '.join(files)} for the plan by formula; pools: {pools}"
        Console(stderr=True).print(told, markup=False, highlight=False, soft_wrap=True)
    if options.html or options.plot:
        # Imported here: matplotlib is optional, and slower to load than a plan is to compute.
        draw = importlib.import_module("extproc.planner.report.html")
        draw.write_reports(done, notes, html=options.html, png=options.plot, tails=tails)


def _check_packages(options: PlanOptions) -> None:
    if (options.html or options.plot) and importlib.util.find_spec("matplotlib") is None:
        raise PlanError(f"--html and --plot need matplotlib: {install_hint('evaluate')}")
