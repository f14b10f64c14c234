"""`python -m benchmarks`: what the service costs, beside servers that decide nothing; `make bench`.

All figures of a section come from one run, in turn. docs/performance.md says how to read them.
"""

import argparse
import importlib
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from rich.console import Console

from benchmarks import (
    answers,
    decisions,
    held,
    memory,
    pages,
    profile,
    requests,
    start,
    workers,
)
from benchmarks.compiled import build_programs
from benchmarks.environment import describe_machine, describe_versions
from benchmarks.rig import BenchmarkError
from benchmarks.run import Plan, Result, Tools
from extproc.local.children import StackError
from extproc.output import report_console
from extproc.progress import Show, showing
from extproc.service.compiled import engine

_WIDTH: Final = 200  # for the widest table
_PACKAGES: Final = ("grpcio", "hpack", "msgspec", "numpy", "protobuf", "uvloop")

_Section = Callable[[Plan, Tools, Show], Awaitable[Result]]
SECTIONS: Final[Mapping[str, _Section]] = {
    "requests": requests.measure,
    "decide": decisions.measure,
    "profile": profile.measure,
    "streams": held.measure,
    "sse": answers.measure,
    "memory": memory.measure,
    "metrics": pages.measure,
    "start": start.measure,
    "workers": workers.measure,
}


@dataclass(frozen=True, slots=True)
class BenchmarkRun:
    """A run, as written to a file. load_average: of the minute before each section."""

    machine: str
    versions: str
    commit: str
    command: str
    rounds: int
    load_average: dict[str, float]
    sections: dict[str, object]


def main() -> int:
    """Run the chosen sections and print their tables; return 1 if one failed."""
    options = _options()
    plan = Plan(
        options.rounds,
        options.quick,
        tuple(options.servers),
        options.tokenizer,
        tuple(options.bodies),
    )
    shown, told = report_console(_WIDTH), Console(stderr=True)
    run = BenchmarkRun(
        machine=describe_machine(),
        versions=describe_versions(*_PACKAGES),
        commit=_commit(),
        command=" ".join(("python -m benchmarks", *sys.argv[1:])),
        rounds=plan.rounds,
        load_average={},
        sections={},
    )
    lines = (
        run.machine,
        run.versions,
        f"commit {run.commit}; decide and profile: the {engine()} engine",
        run.command,
    )
    shown.print(*lines, sep="\n", markup=False, highlight=False, soft_wrap=True)
    try:
        uvloop.run(_measure(options.only, plan, run, shown, told))
    except (StackError, BenchmarkError) as error:
        told.print(f"bench: {error}", markup=False, highlight=False)
        return 1
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(run)))
    if options.plot:
        # Imported here: matplotlib is in an extra.
        importlib.import_module("benchmarks.plot").plot(run.sections, options.plot)
    return 0


async def _measure(
    only: list[str], plan: Plan, run: BenchmarkRun, shown: Console, told: Console
) -> None:
    told.print("building benchmarks/native", highlight=False)
    tools = Tools(build_programs())
    if "load" in tools.programs.missing:
        shown.print("The load client and the pool are in Python: no C compiler was found.")
    for name in only:
        run.load_average[name] = os.getloadavg()[0]
        with showing(told) as show:
            result = await SECTIONS[name](plan, tools, show)
        run.sections[name] = result.figures
        shown.print(f"\n{name} (load average before: {run.load_average[name]:.1f})\n")
        for each in result.shown:
            shown.print(each, markup=False, highlight=False)


def _commit() -> str:
    argv = ("git", "-C", str(Path(__file__).parents[1]), "describe", "--always", "--dirty")
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--rounds", type=_positive, help="5 by default; 1 with --quick")
    parser.add_argument(
        "--quick", action="store_true", help="a minute of short rounds, to test the benchmark"
    )
    parser.add_argument(
        "--servers", nargs="+", choices=requests.SERVERS, default=[],
        help="of the sections requests and streams",
    )  # fmt: skip
    parser.add_argument(
        "--bodies", nargs="+", default=[], metavar="NAME",
        help="of the section requests: '1 KB', '1 MB, image'",
    )  # fmt: skip
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FILE", help="a tokenizer.json to compare with"
    )
    parser.add_argument("--json", type=_new_file, metavar="FILE", help="write all rounds as JSON")
    parser.add_argument("--plot", type=_new_file, metavar="FILE", help="plot the ratios as a PNG")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else Plan().rounds)
    return options


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed: must be a whole number from 1")
    return int(text)


def _new_file(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    return path


if __name__ == "__main__":
    sys.exit(main())
