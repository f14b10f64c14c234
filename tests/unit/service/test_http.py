"""The HTTP side, asked over its port."""

import asyncio

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from extproc.service.http import Admin


def ask(path, *, ready=True, method="GET"):
    """Return status, content type and body."""

    async def main():
        admin = Admin(
            CollectorRegistry(), lambda: {"estimator": "paper"}, lambda: b"{}", lambda: ready
        )
        port = await admin.start("127.0.0.1", 0)
        try:
            async with aiohttp.ClientSession() as session:
                url = f"http://127.0.0.1:{port}{path}"
                async with session.request(method, url) as answer:
                    return answer.status, answer.content_type, await answer.text()
        finally:
            await admin.stop()

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [("/healthz", 200, "ok\n"), ("/readyz", 200, "ready\n"), ("/nothing", 404, "404: Not Found")],
)
def test_a_path_answers(path, status, body):
    assert ask(path) == (status, "text/plain", body)


def test_what_is_not_ready_says_503():
    assert ask("/readyz", ready=False) == (503, "text/plain", "not ready\n")


def test_the_state_is_json():
    assert ask("/state") == (200, "application/json", '{\n  "estimator": "paper"\n}')


def test_the_lengths_are_json():
    assert ask("/lengths") == (200, "application/json", "{}")


def test_nothing_can_be_posted():
    assert ask("/state", method="POST")[0] == 405


def test_stopping_what_never_started_is_allowed():
    asyncio.run(Admin(CollectorRegistry(), dict, bytes, lambda: True).stop())
