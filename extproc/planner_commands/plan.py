"""`dualpool plan`: read the inputs, plan, report."""

import importlib
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from extproc.config.load import load_row
from extproc.names import install_hint
from extproc.output import STDOUT, report_console, write_json
from extproc.planner.proof.hardware import search
from extproc.planner.proof.tails import Tails, study
from extproc.planner.report.document import as_json
from extproc.planner.report.hardware import hardware_json, print_hardware
from extproc.planner.report.live import category_table, describe_hour
from extproc.planner.report.running import running_files
from extproc.planner.report.text import print_study
from extproc.planner.sizing.question import PlanError, Question
from extproc.planner.sizing.study import Study, examine
from extproc.planner.traffic.live import Category
from extproc.planner_commands.inputs import read_inputs
from extproc.planner_commands.live import read_hour
from extproc.planner_commands.options import (
    PlanOptions,
    class_threshold,
    machines_of,
    question_of,
    with_pools,
)
from extproc.planner_commands.sweep import sized, spreading

_WIDTH: Final = 110
_LEAST_RUN_S: Final = 30
_SIMULATIONS: Final = 20  # of --tails and --pool, at least


def run_plan(options: PlanOptions) -> int:
    """Plan, print the report and write the files; return 0, or 1 if the plan misses objectives.

    Raises UserError for wrong options or inputs, and OSError if a file cannot be written.
    """
    _check_packages(options)
    settings = load_row(options.config)
    if options.config:
        options = with_pools(options, settings)
    with Console(stderr=True).status("Planning"):
        reading = read_inputs(options.inputs)
        hour = read_hour(options.inputs.services) if options.inputs.services else None
        if hour and options.rate is None and not options.inputs.files:
            options = replace(options, rate=max(hour.busiest_per_s, hour.mean_per_s))
        question = question_of(options, reading, settings.budget.estimator)
    if options.offers:
        if options.out:
            raise PlanError("--out: not with --pool, whose pools have settings of their own")
        return _plan_hardware(options, question, reading.notes)
    with Console(stderr=True).status("Planning"):
        done = examine(question, options.pools, options.thresholds)
    tails = _tails(options, question) if options.tails else None
    notes = (*reading.notes, *_notes(done, options), *(describe_hour(hour, done) if hour else ()))
    _report(_Findings(done, notes, tails, reading.categories), options)
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
    with spreading(sized(options.sweep, _SIMULATIONS * options.requests)) as spread:
        found = search(question, offers, threshold, options.requests, spread, options.thresholds)
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
    with spreading(sized(options.sweep, _SIMULATIONS * options.requests)) as spread:
        return study(question, threshold, options.requests, spread)


@dataclass(frozen=True, slots=True)
class _Findings:
    done: Study
    notes: tuple[str, ...]
    tails: Tails | None
    categories: tuple[Category, ...]


def _report(found: _Findings, options: PlanOptions) -> None:
    done, notes, tails = found.done, found.notes, found.tails
    if options.json != STDOUT:
        console = report_console(_WIDTH)
        print_study(console, done, notes, tails)
        if found.categories:
            console.print()
            console.print(category_table(found.categories, done))
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
