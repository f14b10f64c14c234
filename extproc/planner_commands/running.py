"""`dualpool plan --out`: write the files that start a fleet."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from extproc.planner.proof.tails import Shape, TailRow, shape_of
from extproc.planner.report.running import running_files
from extproc.planner.sizing.plans import Plan
from extproc.planner.sizing.question import Question


def write_plan(folder: Path, plan: Plan, question: Question) -> None:
    """Write the files of a plan by formula. Raises OSError."""
    shapes = [shape_of(pool.name, pool, question) for pool in plan.pools]
    _write(folder, shapes, [pool.instances for pool in plan.pools], "the plan by formula")


def write_fleet(folder: Path, fleet: TailRow | None) -> None:
    """Write the files of a fleet that was simulated; nothing if there is none. Raises OSError."""
    if fleet:
        _write(folder, fleet.shapes, fleet.instances, fleet.name)


def _write(folder: Path, shapes: Sequence[Shape], instances: Sequence[int], of: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = running_files(shapes, instances)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    pools = ", ".join(shape.name for shape in shapes)
    told = f"{folder}: wrote {', '.join(files)} for {of}; pools: {pools}"
    Console(stderr=True).print(told, markup=False, highlight=False, soft_wrap=True)
