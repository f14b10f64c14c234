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

IDLE = """
import sys
from pathlib import Path
import uvloop
from extproc.cli import main
from extproc.config.settings import ListenSettings, Settings, Transport
from extproc.service.reload import Source
from extproc.service.serve import Service
from extproc.service.stopping import Stop

async def serve():
    stop = Stop()
    stop.ask()
    await Service(settings, Source(None, Settings)).run(stop)

any_port = "127.0.0.1:0"
listen = ListenSettings(grpc=any_port, http=any_port, transport=Transport.H2, notice_s=0)
settings = Settings(listen=listen)
uvloop.run(serve())
print(*sys.modules)
print(*(each.read_text().strip() for each in Path("/proc/self/task").glob("*/comm")))
"""
UNUSED = {
    *("aiohttp", "brotli", "encodings.idna", "grpc", "jinja2", "opentelemetry", "redis", "rich"),
    *("unicodedata", "zstandard", "extproc.service.shared_state", "extproc.service.supervisor"),
    *("extproc.doctor", "extproc.envoy", "extproc.evaluation", "extproc.local"),
    *("extproc.planner", "extproc.profiling", "extproc.simulator"),
}


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


@pytest.fixture(scope="module")
def idle():
    """Return the modules and the names of the threads of a service that has seen no request."""
    done = subprocess.run([sys.executable, "-c", IDLE], capture_output=True, text=True, check=True)
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_an_idle_service_has_imported_nothing_that_only_some_need(idle):
    modules, _ = idle
    assert "extproc.service.serve" in modules
    assert not modules & UNUSED


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_an_idle_service_has_no_threads_of_the_event_loop(idle):
    _, threads = idle
    assert "libuv-worker" not in threads
