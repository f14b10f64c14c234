"""What planning and simulating cost: vllm-sr-sim's commands and ours, at the same questions.

Invariant: a figure is the CPU time of a whole command, with its imports, on one core.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from extproc.papers.sections import PaperRow, PaperSection
from extproc.papers.sr_sim import SrSimError
from extproc.planner.traffic.published import AZURE_2023, LMSYS, Cdf

MILLION: Final = 1_000_000
_REQUESTS: Final = 50_000
_RUNS: Final = 3  # of a plan; a simulation takes so long that one run tells
_RATE: Final = ("--rate", "200")
_OUR_SPLIT: Final = ("--window", "4096,65536", "--instances")
# As an installed package: ours too has its bytecode from the second run on.
_ENVIRONMENT: Final = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
# A child of this process would count this process's memory, until it begins with its own program.
_LAUNCHER: Final = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(code, used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
_ONCE: Final = ("--jobs", "1", "--no-sensitivity")


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds, user and system, and MiB of memory at most."""

    cpu_s: float
    memory_mib: float

    def __str__(self) -> str:
        """Return both as a cell of a table."""
        return f"{self.cpu_s:.2f} s, {self.memory_mib:.0f} MiB"


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    cdf: Cdf
    fleet: tuple[int, int]
    """Instances of their plan, split at 4096."""


def costs_section(
    command: Path | None, requests: int = _REQUESTS, most: int = MILLION
) -> PaperSection:
    """Measure both planners and simulators; `most` requests in ours alone. Raises SrSimError."""
    cases = (_Case("Azure", AZURE_2023, (9, 27)), _Case("LMSYS", LMSYS, (4, 10)))
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for case in cases for row in _rows(case, command, Path(folder), requests)]
        rows.append(_largest(cases[0], Path(folder), most))
    return PaperSection(
        "CPU and memory of whole commands at 200 req/s, P99 TTFT 500 ms: vllm-sr-sim beside ours",
        tuple(rows),
        f"A plan: the least of {_RUNS} runs; theirs without compression of prompts. Theirs routes"
        " by the true totals, as our rule oracle does; our rule dualpool estimates every request"
        " from its text and learns from every answer, with the service's own code. Above 80 % load"
        " ours is repeated with 10 % less and 10 % more capacity.",
    )


def _rows(case: _Case, command: Path | None, folder: Path, requests: int) -> Iterator[PaperRow]:
    ours, theirs = folder / f"{case.name}.csv", folder / f"{case.name}.json"
    ours.write_text("tokens,cdf\n" + "".join(f"{t},{s}\n" for t, s in case.cdf), encoding="utf-8")
    theirs.write_text(json.dumps(case.cdf), encoding="utf-8")
    asked = ("--cdf", str(theirs), "--lam", "200", "--slo", "500", "--b-short", "4096")
    fleet = ("--n-s", str(case.fleet[0]), "--n-l", str(case.fleet[1]), "--n-req", str(requests))
    plan = ("plan", str(ours), *_RATE, "--slo-ttft-ms", "500")
    their_plan = _theirs(command, ("optimize", *asked, "--gamma-max", "1.0"), _RUNS)
    yield PaperRow(f"{case.name}: plan", their_plan, str(_least(_ours(plan), _RUNS)))
    their_run = _theirs(command, ("simulate", *asked, *fleet), 1)
    run = _simulation(ours, case.fleet, requests)
    for rule, words in (
        ("oracle", ("--rule", "oracle", *_ONCE)),
        ("dualpool", _ONCE),
        ("dualpool, with the repeats", ("--jobs", "1")),
    ):
        cost = _least(_ours((*run, *words)), 1)
        yield PaperRow(f"  simulate {requests:,} requests, rule {rule}", their_run, str(cost))


def _largest(case: _Case, folder: Path, requests: int) -> PaperRow:
    run = _simulation(folder / f"{case.name}.csv", case.fleet, requests)
    cost = _least(_ours((*run, *_ONCE)), 1)
    return PaperRow(f"{case.name}: simulate {requests:,} requests, rule dualpool", "-", str(cost))


def _simulation(cdf: Path, fleet: tuple[int, int], requests: int) -> tuple[str, ...]:
    instances = ",".join(map(str, fleet))
    return ("simulate", str(cdf), *_RATE, *_OUR_SPLIT, instances, "--requests", str(requests))


def _ours(arguments: Sequence[str]) -> tuple[str, ...]:
    return (sys.executable, "-m", "extproc", *arguments)


def _theirs(command: Path | None, arguments: Sequence[str], runs: int) -> str:
    return str(_least((str(command), *arguments), runs)) if command else "not installed"


def _least(argv: Sequence[str], runs: int) -> Cost:
    """Run a command so many times; return the least that it cost. Raises SrSimError."""
    return min((_cost(argv) for _ in range(runs)), key=lambda cost: cost.cpu_s)


def _cost(argv: Sequence[str]) -> Cost:
    if not shutil.which(argv[0]):
        raise SrSimError(f"{argv[0]}: no such command")
    launcher = (sys.executable, "-S", "-c", _LAUNCHER, *argv)
    done = subprocess.run(launcher, check=True, capture_output=True, text=True, env=_ENVIRONMENT)  # noqa: S603 - our own command, and the user's
    code, cpu_s, memory_kib = done.stdout.split()
    # A plan that misses its objectives exits with 1, and has been computed all the same.
    if code not in {"0", "1"}:
        raise SrSimError(f"{' '.join(argv)}: exit code {code}")
    return Cost(float(cpu_s), float(memory_kib) / 1024)
