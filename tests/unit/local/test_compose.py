"""A running stack as the demo finds it from outside."""

import asyncio

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from extproc.config.errors import UserError
from extproc.local import compose
from extproc.local.children import StackError
from extproc.local.compose import find_stack
from extproc.local.fleet import StackPool
from extproc.local.ports import free_ports
from extproc.simulator.pool.answer import SIMULATED_HEADER

_MODELS = {"data": [{"id": "tiny", "max_model_len": 65_536}]}
_STATE = {"pools": {"short": 8192, "long": 65_536}}


def _find_served(monkeypatch, state):
    """Find a stack whose Envoy and service are one server of this test."""

    async def models(_request: web.Request) -> web.Response:
        return web.json_response(_MODELS, headers={SIMULATED_HEADER: "1"})

    async def show_state(_request: web.Request) -> web.Response:
        return web.json_response(state)

    async def find():
        app = web.Application()
        app.router.add_get("/v1/models", models)
        app.router.add_get("/state", show_state)
        async with TestServer(app) as server, aiohttp.ClientSession() as session:
            monkeypatch.setattr(compose, "_SERVICE_PORTS", (free_ports().http, server.port))
            return await find_stack(session, f"http://127.0.0.1:{server.port}/v1")

    return asyncio.run(find())


def _find(url):
    async def find():
        async with aiohttp.ClientSession() as session:
            return await find_stack(session, url)

    return asyncio.run(find())


def test_a_stack_that_is_not_there_is_named():
    url = f"http://127.0.0.1:{free_ports().listener}"
    with pytest.raises(StackError, match=f"{url}/v1/models: connection refused"):
        _find(url)


def test_an_address_that_is_none_names_its_option():
    with pytest.raises(UserError, match="--compose: 'https://h:1' is not http://HOST:PORT"):
        _find("https://h:1")


def test_the_windows_are_those_of_the_service_and_every_url_is_envoys(monkeypatch):
    found = _find_served(monkeypatch, _STATE)
    assert found.pools == tuple(
        StackPool(name, found.url, "tiny", window, simulated=True)
        for name, window in _STATE["pools"].items()
    )
    assert found.service_urls == (found.url,)


@pytest.mark.parametrize("state", [{}, [], {"pools": {"short": "wide"}}])
def test_a_service_that_lists_no_pools_is_named(monkeypatch, state):
    with pytest.raises(StackError, match=r"/state lists no pools"):
        _find_served(monkeypatch, state)
