"""`make paper`: print the papers' figures beside ours, with the reason for a difference."""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from extproc.config.errors import UserError
from extproc.output import report_console
from extproc.papers.costs import costs_section
from extproc.papers.fleets import planners_section, reliability_section
from extproc.papers.plans import curve_section, differences_section, plan_row, traces_section
from extproc.papers.sections import (
    PaperSection,
    closed_form_section,
    golden_section,
    mi300x_section,
    table_2_section,
    table_5_section,
)
from extproc.planner.traffic.lengths import Trace, Workload
from extproc.planner_commands.inputs import InputOptions, read_inputs

_WIDTH: Final = 130
_WHY: Final = 50  # characters of a line of a reason
_SR_SIM: Final = "vllm-sr-sim"


def run_paper(
    traces: Sequence[Path], sr_sim: Path | None, *, fast: bool, costs: bool = False
) -> int:
    """Print all sections, without simulations if `fast`; return the exit code.

    costs: print only what concerns both planners, and what they cost.
    """
    # Outside a terminal rich assumes 80 columns, which would wrap the tables.
    console = report_console(_WIDTH)
    try:
        raw = [raw_traces_section(traces)] if traces else []
        sections = _planners(sr_sim) if costs else _sections(raw, sr_sim, fast=fast)
        for section in sections:
            print_section(console, section)
    except UserError as error:
        Console(stderr=True).print(f"paper: {error}", markup=False, highlight=False)
        return error.exit_code
    return 0


def _sections(
    raw: Sequence[PaperSection], sr_sim: Path | None, *, fast: bool
) -> Iterator[PaperSection]:
    yield closed_form_section()
    yield table_2_section()
    yield table_5_section()
    yield mi300x_section()
    yield golden_section()
    yield traces_section()
    yield curve_section()
    yield differences_section()
    yield from raw
    if not fast:
        yield reliability_section()
        yield planners_section(sr_sim)


def _planners(sr_sim: Path | None) -> Iterator[PaperSection]:
    yield planners_section(sr_sim)
    yield costs_section(sr_sim)


def raw_traces_section(traces: Sequence[Path]) -> PaperSection:
    """Return alpha and the fleets at 1000 req/s for trace files, each and together."""
    files = [(path,) for path in traces] + ([tuple(traces)] if len(traces) > 1 else [])
    rows = tuple(plan_row(_workload(each)) for each in files)
    return PaperSection("The raw traces at 1000 req/s, our planner", rows)


def _workload(files: tuple[Path, ...]) -> Workload:
    requests = read_inputs(InputOptions(files=files)).requests
    workload = requests.workload() if isinstance(requests, Trace) else requests
    return replace(workload, name=" + ".join(file.stem for file in files))


def print_section(console: Console, section: PaperSection) -> None:
    """Print a table and its note."""
    table = Table(title=section.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in ("", "paper", "ours"):
        table.add_column(column, overflow="fold")
    table.add_column("why", overflow="fold", max_width=_WHY)
    for row in section.rows:
        table.add_row(row.what, row.paper, row.ours, row.why)
    console.print(table)
    if section.note:
        console.print(section.note, highlight=False)
        console.print()


def main() -> int:
    """Parse the command line and run; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="skip the simulations")
    parser.add_argument(
        "--costs", action="store_true", help=f"only {_SR_SIM} beside ours, with CPU and memory"
    )
    parser.add_argument("--trace", type=Path, action="append", metavar="FILE", help="repeatable")
    parser.add_argument(
        "--sr-sim", type=Path, metavar="PATH", help=f"path of {_SR_SIM} (default: found in PATH)"
    )
    given = parser.parse_args()
    found = shutil.which(_SR_SIM)
    sr_sim = given.sr_sim or (Path(found) if found else None)
    return run_paper(given.trace or (), sr_sim, fast=given.fast, costs=given.costs)


if __name__ == "__main__":
    sys.exit(main())
