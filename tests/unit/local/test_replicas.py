"""Whether replicas hold the same, by what they show."""

import asyncio
from contextlib import AsyncExitStack

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from extproc.local import replicas
from extproc.local.replicas import Replicas, read_replicas


@pytest.fixture(autouse=True)
def _without_patience(monkeypatch):
    monkeypatch.setattr(replicas, "_SETTLE_S", 0.5)
    monkeypatch.setattr(replicas, "_POLL_S", 0.01)


def state(samples=7, **shared):
    told = {"position": "1-0", "replicas": 2, "pending": 0, **shared}
    return {"state": told, "categories": {"prose": {"samples": samples}}, "models": {}}


def read(*states):
    """Ask servers of these states; of a list, each answer has the next one."""

    async def main():
        async with AsyncExitStack() as exits:
            session = await exits.enter_async_context(aiohttp.ClientSession())
            servers = [await exits.enter_async_context(TestServer(app(each))) for each in states]
            return await read_replicas(session, [f"http://127.0.0.1:{s.port}" for s in servers])

    return asyncio.run(main())


def app(shown):
    left = list(shown) if isinstance(shown, list) else [shown]

    async def show(_request):
        return web.json_response(left.pop(0) if len(left) > 1 else left[0])

    served = web.Application()
    served.router.add_get("/state", show)
    return served


def test_replicas_with_one_log_and_the_same_figures_are_equal():
    assert read(state(), state()) == Replicas(count=2, answered=2, equal=True)


@pytest.mark.parametrize(
    "other", [state(samples=8), state(position="2-0"), state(pending=1), {"state": {}}]
)
def test_replicas_that_differ_are_not(other):
    assert not read(state(), other).equal


def test_what_is_on_its_way_is_waited_for():
    assert read(state(), [state(pending=1), state(samples=6), state()]).equal


def test_a_service_that_keeps_its_own_state_is_no_replica():
    assert read({"state": {"digest": ""}}) is None
    assert read({}) is None


def test_one_that_does_not_answer_is_left_out():
    assert read(state(), "none") == Replicas(count=2, answered=1, equal=True)
