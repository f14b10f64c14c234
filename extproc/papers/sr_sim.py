"""Run the authors' planner and simulator, vllm-sr-sim, as a command."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extproc.config.errors import UserError
from extproc.planner.traffic.published import Cdf


class SrSimError(UserError):
    """The command failed; the text quotes its last output."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class TheirPlan:
    """Instances of both pools, without compression of prompts."""

    short: int
    long: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SrSimQuestion:
    """The question to both planners; slo_ms: objective for P99 TTFT."""

    cdf: Cdf
    rate_per_s: float
    slo_ms: float


def plan_with(command: Path, asked: SrSimQuestion, threshold: int) -> TheirPlan:
    """Plan the cheapest fleet split at `threshold`. Raises SrSimError."""
    rows = _run(command, asked, ("optimize", "--b-short", str(threshold), "--gamma-max", "1.0"))
    # The only row: gamma 1.0 is no compression of prompts.
    best = rows[0]
    return TheirPlan(best["n_s"], best["n_l"])


def ttft_p99_in(
    command: Path, asked: SrSimQuestion, threshold: int, fleet: tuple[int, int]
) -> float:
    """Simulate a fleet; return the P99 TTFT of the worse pool in seconds. Raises SrSimError."""
    short, long = map(str, fleet)
    split = ("--b-short", str(threshold), "--n-s", short, "--n-l", long)
    found = _run(command, asked, ("simulate", *split))
    return max(float(found.get(f"{pool}_p99_ttft_ms", 0)) for pool in ("short", "long")) / 1e3


def _run(command: Path, asked: SrSimQuestion, arguments: Sequence[str]) -> Any:
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
