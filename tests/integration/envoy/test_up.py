"""`dualpool up` as a user runs it: what it prints, and that nothing is left when it ends."""

import asyncio
import importlib.util
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from extproc.local.children import StackError
from extproc.local.envoy import find_envoy
from tests.support.waiting import until

try:
    find_envoy()
except StackError as error:
    pytest.skip(str(error), allow_module_level=True)
if importlib.util.find_spec("bpe_openai") is None:
    pytest.skip("the built-in pools need: pip install '.[local]'", allow_module_level=True)

_UP = (sys.executable, "-m", "extproc", "up", "--ports", "auto")


@contextmanager
def _up(*options: str):
    environment = os.environ | {"COLUMNS": "200"}
    with subprocess.Popen(
        [*_UP, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _said(process: subprocess.Popen[str]) -> str:
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            break
    return "".join(lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_whatever_ends_it_ends_all(number):
    with _up() as process:
        said = _said(process)
        children = _children(process.pid)
        process.send_signal(number)
        status = process.wait(60)
    assert re.search(r"http://127\.0\.0\.1:\d+/v1 +model simulated", said), said
    assert re.search(r"page +http://127\.0\.0\.1:\d+/ ", said), said
    assert len(children) == 4
    assert status == (-number if number == signal.SIGKILL else 0)
    asyncio.run(until(lambda: not any(map(_alive, children))))


def test_the_logs_stay_in_the_folder_that_is_named(tmp_path):
    with _up("--logs", str(tmp_path / "logs")) as process:
        said = _said(process)
        process.send_signal(signal.SIGINT)
        process.wait(60)
    kept = {file.name for file in (tmp_path / "logs").iterdir()}
    assert {"envoy-access.log", "envoy.log", "service.log", "pool-short.log"} <= kept
    assert f"access log {tmp_path}/logs/envoy-access.log " in " ".join(said.split()) + " "


def test_a_pool_that_dies_ends_all():
    with _up() as process:
        _said(process)
        children = _children(process.pid)
        os.kill(children[0], signal.SIGKILL)
        status = process.wait(60)
        error = process.stderr.read()
    assert status == 1
    assert error.startswith("pool short ended with signal SIGKILL.\n")
    assert not any(map(_alive, children))
