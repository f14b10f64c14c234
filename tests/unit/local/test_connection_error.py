"""The words for a server that does not answer."""

import asyncio
import socket

import aiohttp
import pytest

from extproc.local.connection_error import describe


def fail(url: str, timeout_s: float = 5.0) -> Exception:
    """Return the error of a request that fails."""

    async def ask() -> Exception:
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                async with session.get(url) as response:
                    await response.read()
            except (aiohttp.ClientError, TimeoutError) as error:
                return error
        raise AssertionError("it answered")

    return asyncio.run(ask())


@pytest.fixture
def silent():
    """A server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def test_a_port_where_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
    assert describe(fail(url)) == "connection refused"


def test_a_host_that_does_not_exist():
    assert describe(fail("http://no-such-host.invalid/")) == (
        "the host no-such-host.invalid is unknown"
    )


def test_a_server_that_does_not_answer(silent):
    assert describe(fail(silent, timeout_s=0.1)) == "no answer in time"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            aiohttp.ServerDisconnectedError(),
            "the server closed the connection before it answered",
        ),
        (aiohttp.ClientPayloadError("x"), "the connection ended in the middle of the answer"),
        (aiohttp.ClientError(), "the connection failed"),
        (aiohttp.InvalidURL("http://"), "http://"),
    ],
)
def test_other_errors(error, words):
    assert describe(error) == words
