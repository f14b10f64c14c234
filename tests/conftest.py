"""Fixtures that several modules share."""

import asyncio
import os
import platform
import re
from contextlib import ExitStack, closing

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

from extproc.config.settings import Settings
from tests.support.local_stack import in_background, running
from tests.support.paths import ROOT
from tests.support.puppet_mesh import Mesh
from tests.support.vllm_servers import POOLS, Installation, end, wait_until_healthy

# Test machines are slow and shared: an example may take any time within the test's own limit.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")


# Half of the servers' time.
_APART = (
    "tests/integration/compose/",
    "tests/integration/envoy/test_benchmarks.py",
    "tests/integration/kubernetes/",
    "tests/integration/redis/",
)
_CORE = re.search(r"^CORE := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
# The tests that cover the core.
_COVERING = (*(f"tests/unit/{room}/" for room in (*_CORE, "service")), "tests/unit/test_")


class Parts(LoadScopeScheduling):
    """With `-n 3`, what waits for servers runs beside what computes: each server starts once."""

    def _split_scope(self, nodeid):
        if nodeid.startswith(_APART):
            return "servers of their own"
        waits = nodeid.startswith("tests/integration") or "real_vllm" in nodeid
        return "servers" if waits else "units"


def pytest_collection_modifyitems(items):
    """Trace for coverage only where it counts: traced code takes twice the time."""
    for item in items:
        if not item.nodeid.startswith(_COVERING):
            item.add_marker("no_cover")


@pytest.fixture(scope="session")
def installation():
    """The installation of vLLM at DUALPOOL_VLLM=DIR."""
    folder = os.environ.get("DUALPOOL_VLLM")
    if not folder:
        pytest.skip("no real vLLM: set DUALPOOL_VLLM to an installation")
    with closing(Installation(folder)) as found:
        yield found


@pytest.fixture(scope="session")
def vllm_urls(request):
    """Two real vLLM servers, the smaller window first.

    DUALPOOL_VLLM_POOLS=URL,URL names running ones, with FLAGS, the larger one with STORE too.
    """
    if urls := os.environ.get("DUALPOOL_VLLM_POOLS"):
        yield urls.split(",")
        return
    installation = request.getfixturevalue("installation")
    with ExitStack() as stack:
        stack.callback(end, *(installation.start(core, *pool) for core, pool in enumerate(POOLS)))
        urls = [f"http://127.0.0.1:{port}" for port, *_ in POOLS]
        wait_until_healthy(urls)
        yield urls


@pytest.fixture(scope="session")
def vllm_stack(vllm_urls):
    """The real Envoy and the service before two real vLLM servers."""
    with running(pools=vllm_urls) as given:
        yield given


@pytest.fixture(scope="module")
def loop():
    with in_background() as running:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, running).result(90)


@pytest.fixture(scope="module")
def transport():
    """The transport of the mesh; a module for which it matters chooses several."""
    return Settings().listen.transport


@pytest.fixture(scope="module")
def mesh(transport, loop):
    async def made():
        return Mesh(transport)

    mesh = loop(made())
    try:
        loop(mesh.start())
        yield mesh
    finally:
        loop(mesh.stop())


def pytest_xdist_make_scheduler(config, log):
    return Parts(config, log)


def pytest_report_header():
    return f"machine: {platform.machine()}, {os.cpu_count()} cores, {platform.platform()}"
