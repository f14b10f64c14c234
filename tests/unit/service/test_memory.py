"""What a process does to its memory: the thresholds of malloc, and garbage."""

import ctypes
import platform
import subprocess
import sys

import pytest

from extproc.service.memory import keep_large_buffers

FAULTS = """
import resource
from extproc.service.memory import keep_large_buffers
{setting}
for _ in range(50):
    [b"x" * (4 << 20) for _ in range(8)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def faults(setting):
    argv = (sys.executable, "-c", FAULTS.format(setting=setting))
    return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_the_pages_of_large_buffers_are_kept():
    assert faults("keep_large_buffers()") < faults("") / 4


def test_without_thresholds_nothing_is_set(monkeypatch):
    def missing(_):
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not keep_large_buffers()


def test_modules_are_not_searched_for_garbage():
    code = (
        "import gc, extproc.service.serve\n"
        "from extproc.service.memory import spare_modules\n"
        "spare_modules()\n"
        "print(len(gc.get_objects()) < 1000 < gc.get_freeze_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
