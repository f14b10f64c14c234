"""The authors' tool as a command, where it is missing or fails."""

from pathlib import Path

import pytest

from extproc.papers.sr_sim import SrSimError, SrSimQuestion, plan_with, ttft_p99_in
from extproc.planner.traffic.published import LMSYS

ASKED = SrSimQuestion(cdf=LMSYS, rate_per_s=200, slo_ms=500)


def tool(folder: Path, script: str) -> Path:
    path = folder / "tool"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_command_that_is_not_there_is_named():
    with pytest.raises(SrSimError, match="nowhere/vllm-sr-sim"):
        plan_with(Path("nowhere/vllm-sr-sim"), ASKED, 4096)


def test_a_command_that_fails_is_quoted(tmp_path):
    with pytest.raises(SrSimError, match="no such thing"):
        plan_with(tool(tmp_path, "echo no such thing >&2; exit 3"), ASKED, 4096)


def test_the_plan_is_read_from_what_it_writes(tmp_path):
    script = """while [ "$1" != --out ]; do shift; done; echo '[{"n_s": 4, "n_l": 10}]' > "$2" """
    found = plan_with(tool(tmp_path, script), ASKED, 4096)
    assert (found.short, found.long) == (4, 10)


def test_the_worse_pool_is_read_from_a_simulation(tmp_path):
    result = '{"short_p99_ttft_ms": 40.0, "long_p99_ttft_ms": 930.0}'
    script = f"""while [ "$1" != --out ]; do shift; done; echo '{result}' > "$2" """
    assert ttft_p99_in(tool(tmp_path, script), ASKED, 4096, (4, 10)) == 0.93
