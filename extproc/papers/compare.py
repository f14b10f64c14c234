"""`make paper`: the papers' figures and ours, side by side, with the reason where they differ."""

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

from extproc.papers.fleets import planners_section, reliability_section
from extproc.papers.sections import Section, fast_sections, plan_row
from extproc.papers.sr_sim import SrSimError
from extproc.planner.traffic.lengths import InputError, Trace, Workload
from extproc.planner_commands.inputs import InputOptions, read_inputs

_WIDTH: Final = 130
_SR_SIM: Final = "vllm-sr-sim"


def run_paper(traces: Sequence[Path], sr_sim: Path | None, *, fast: bool) -> int:
    """Print all sections; the fast ones take some seconds, all of them some minutes."""
    console = Console() if Console().is_terminal else Console(width=_WIDTH)
    try:
        raw = [raw_traces_section(traces)] if traces else []
        for section in _sections(raw, sr_sim, fast=fast):
            print_section(console, section)
    except (InputError, SrSimError) as error:
        Console(stderr=True).print(f"paper: {error}", markup=False, highlight=False)
        return 2 if isinstance(error, InputError) else 1
    return 0


def _sections(raw: Sequence[Section], sr_sim: Path | None, *, fast: bool) -> Iterator[Section]:
    yield from fast_sections()
    yield from raw
    if not fast:
        yield reliability_section()
        yield planners_section(sr_sim)


def raw_traces_section(traces: Sequence[Path]) -> Section:
    """Return what trace files give, each and together: alpha, and the fleets at 1000 req/s."""
    files = [(path,) for path in traces] + ([tuple(traces)] if len(traces) > 1 else [])
    rows = tuple(plan_row(_workload(each)) for each in files)
    return Section("What the raw traces give, 1000 req/s, our planner", rows)


def _workload(files: tuple[Path, ...]) -> Workload:
    requests = read_inputs(InputOptions(files=files)).requests
    workload = requests.workload() if isinstance(requests, Trace) else requests
    return replace(workload, name=" + ".join(file.stem for file in files))


def print_section(console: Console, section: Section) -> None:
    """Print a table, and its note."""
    table = Table(title=section.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in ("", "paper", "ours", "why"):
        table.add_column(column, overflow="fold")
    for row in section.rows:
        table.add_row(row.what, row.paper, row.ours, row.why)
    console.print(table)
    if section.note:
        console.print(section.note, highlight=False)
        console.print()


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="what needs no simulation")
    parser.add_argument("--trace", type=Path, action="append", metavar="FILE", help="repeatable")
    parser.add_argument(
        "--sr-sim", type=Path, metavar="PATH", help=f"of {_SR_SIM} (default: where PATH has it)"
    )
    given = parser.parse_args()
    found = shutil.which(_SR_SIM)
    sr_sim = given.sr_sim or (Path(found) if found else None)
    return run_paper(given.trace or (), sr_sim, fast=given.fast)


if __name__ == "__main__":
    sys.exit(main())
