"""The authors' planner and simulator, vllm-sr-sim, as a command, where it is installed."""

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extproc.planner.traffic.published import Cdf


class SrSimError(Exception):
    """The command did not run; the text says what it wrote last."""


@dataclass(frozen=True, slots=True)
class TheirPlan:
    """Instances of both pools, without compression of prompts, and the seconds that it took."""

    short: int
    long: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What both planners are asked; slo_ms is of P99 TTFT."""

    cdf: Cdf
    rate_per_s: float
    slo_ms: float


def plan_with(command: Path, asked: Asked, threshold: int) -> TheirPlan:
    """Ask for the cheapest fleet that is split there. Raises SrSimError."""
    started = time.monotonic()
    rows = _run(command, asked, ("optimize", "--b-short", str(threshold), "--gamma-max", "1.0"))
    best = rows[0]
    return TheirPlan(best["n_s"], best["n_l"], time.monotonic() - started)


def ttft_p99_in(command: Path, asked: Asked, threshold: int, fleet: tuple[int, int]) -> float:
    """Simulate a fleet and return the worse pool's P99 TTFT, in seconds. Raises SrSimError."""
    short, long = map(str, fleet)
    split = ("--b-short", str(threshold), "--n-s", short, "--n-l", long)
    found = _run(command, asked, ("simulate", *split))
    return max(float(found.get(f"{pool}_p99_ttft_ms", 0)) for pool in ("short", "long")) / 1e3


def _run(command: Path, asked: Asked, arguments: Sequence[str]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        cdf, out = Path(folder) / "cdf.json", Path(folder) / "out.json"
        cdf.write_text(json.dumps(asked.cdf), encoding="utf-8")
        common = ("--cdf", cdf, "--lam", asked.rate_per_s, "--slo", asked.slo_ms, "--out", out)
        argv = [str(part) for part in (command, *arguments, *common)]
        try:
            subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120)  # noqa: S603 - the user's own
            return json.loads(out.read_text(encoding="utf-8"))
        except subprocess.CalledProcessError as error:
            raise SrSimError(f"{command}: {error.stderr.strip().splitlines()[-1:]}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SrSimError(f"{command}: {error}") from error
