"""Fixtures that several modules share."""

import asyncio
import os
import platform
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from extproc.config.settings import Settings
from tests.support.local_stack import in_background, running
from tests.support.puppet_mesh import Mesh
from tests.support.vllm_servers import POOLS, SERVE, vllm, wait_until_healthy

INTEGRATION = Path(__file__).parent / "integration"

# Test machines are slow and shared: an example may take any time within the test's own limit.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")


@pytest.fixture(scope="session")
def vllm_urls():
    """Two real vLLM servers, the smaller window first.

    DUALPOOL_VLLM_POOLS=URL,URL names running ones, with FLAGS, the larger one with STORE too;
    DUALPOOL_VLLM=DIR an installation.
    """
    if urls := os.environ.get("DUALPOOL_VLLM_POOLS"):
        yield urls.split(",")
        return
    folder = os.environ.get("DUALPOOL_VLLM")
    if not folder or not SERVE.exists():
        pytest.skip("no real vLLM: set DUALPOOL_VLLM_POOLS=URL,URL to two servers")
    with ExitStack() as stack:
        for core, pool in enumerate(POOLS):
            stack.enter_context(vllm(folder, core, *pool))
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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Let what waits for servers run beside what computes; all servers are one process's."""
    for item in items:
        waits = item.path.is_relative_to(INTEGRATION) or "vllm_urls" in item.fixturenames
        item.add_marker(pytest.mark.xdist_group("servers" if waits else "units"))


def pytest_report_header():
    return f"machine: {platform.machine()}, {os.cpu_count()} cores, {platform.platform()}"
