"""The parts of `dualpool plan` that simulate: --tails and --pool."""

import importlib
from typing import Final

from extproc.output import STDOUT, report_console, write_document
from extproc.planner.proof.hardware import search
from extproc.planner.proof.tails import Tails, study
from extproc.planner.report.hardware import hardware_json, print_hardware
from extproc.planner.sizing.question import Question
from extproc.planner_commands.options import PlanOptions, class_threshold, machines_of
from extproc.planner_commands.running import write_fleet
from extproc.planner_commands.sweep import sized, spreading

_WIDTH: Final = 110
_SIMULATIONS: Final = 20  # of a plan, at least


def plan_hardware(options: PlanOptions, question: Question, notes: tuple[str, ...]) -> int:
    """Search, print and write the cheapest fleets of different GPUs; return 1 if there is none."""
    offers, threshold = machines_of(options), class_threshold(options, question)
    with spreading(sized(options.sweep, _SIMULATIONS * options.requests)) as spread:
        found = search(question, offers, threshold, options.requests, spread, options.thresholds)
    if options.out:
        write_fleet(options.out, found.rows[0] if found.rows else None)
    if options.json != STDOUT:
        print_hardware(report_console(_WIDTH), found, notes)
    if options.json:
        write_document(options.json, hardware_json(found))
    if options.plot:
        importlib.import_module("extproc.planner.report.html").draw_hardware(found, options.plot)
    return 0 if found.rows else 1


def study_tails(options: PlanOptions, question: Question) -> Tails:
    """Simulate what each class of requests sees of one pool and of a split."""
    threshold = class_threshold(options, question)
    with spreading(sized(options.sweep, _SIMULATIONS * options.requests)) as spread:
        return study(question, threshold, options.requests, spread)
