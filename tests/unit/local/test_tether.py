import os
import select
import signal
import subprocess
import sys

import pytest

from extproc.local import tether

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")

# Starts the tethered command, prints its process id, and waits for its own end.
PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-I", sys.argv[1], str(os.getpid()), "sleep", "60"])
print(child.pid, flush=True)
sys.stdin.read()
"""


def run(parent: int, *command: str) -> subprocess.CompletedProcess[str]:
    argv = (sys.executable, "-I", "-S", tether.__file__, str(parent), *command)
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_the_command_runs_with_its_arguments():
    done = run(os.getpid(), "echo", "one", "two words")
    assert (done.returncode, done.stdout) == (0, "one two words\n")


def test_the_exit_code_is_that_of_the_command():
    assert run(os.getpid(), "sh", "-c", "exit 7").returncode == 7


def test_nothing_runs_if_the_parent_has_gone():
    done = run(os.getppid(), "echo", "still here")
    assert (done.returncode, done.stdout) == (1, "")


def test_a_command_that_does_not_exist_is_an_error():
    assert "FileNotFoundError" in run(os.getpid(), "/nowhere/command").stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_command_ends_with_its_parent(number):
    argv = (sys.executable, "-c", PARENT, tether.__file__)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        descriptor = os.pidfd_open(child)
        parent.send_signal(number)
        parent.wait(20)
        ended = wait_for_end(descriptor)
    assert ended


def wait_for_end(descriptor: int) -> bool:
    try:
        return bool(select.select([descriptor], [], [], 20)[0])
    finally:
        os.close(descriptor)
