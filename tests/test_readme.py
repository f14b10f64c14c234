"""What the README says, done."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from extproc.config import load
from extproc.metrics import Metrics

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
CONSOLE = [text for kind, text in BLOCKS if kind == "console"]
# Those that .ci/run runs as they stand, and the one that needs servers of the reader's.
ELSEWHERE = {
    "make demo",
    "make test",
    "dualpool demo --pools http://127.0.0.1:8101,http://127.0.0.1:8102",
}


@pytest.mark.parametrize("block", CONSOLE)
def test_a_console_block_prints_what_it_shows(block, tmp_path):
    command, _, shown = block.removeprefix("$ ").partition("\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout + done.stderr == shown


def test_every_command_is_run_somewhere():
    commands = "".join(text for kind, text in BLOCKS if kind == "sh").splitlines()
    assert {line.partition("#")[0].strip() for line in commands} == ELSEWHERE


def test_the_settings_can_be_loaded(tmp_path):
    [text] = [text for kind, text in BLOCKS if kind == "yaml"]
    file = tmp_path / "dualpool.yaml"
    file.write_text(text)
    assert [pool.name for pool in load(file).pools] == ["short", "medium", "long"]


def test_every_metric_is_documented():
    registry = CollectorRegistry()
    Metrics(registry)
    for family in registry.collect():
        assert f"`{family.name}" in TEXT


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", TEXT))))
def test_a_link_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_the_command_is_installed():
    assert shutil.which("dualpool", path=str(Path(sys.executable).parent))
