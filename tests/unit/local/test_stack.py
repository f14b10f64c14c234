"""The stack with the real Envoy, the service and pools that are servers of this test."""

import asyncio
import importlib.util
import json
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from extproc.config.load import load
from extproc.local import stack
from extproc.local.children import StackError
from extproc.local.envoy import Upstream, find_envoy
from extproc.local.fleet import PoolSize, StackPool
from extproc.local.ports import Ports, free_ports
from extproc.local.stack import (
    Stack,
    StackOptions,
    check_platform,
    check_tokenizer,
    service_settings,
)

try:
    find_envoy()
except StackError as error:
    pytest.skip(str(error), allow_module_level=True)

_BODY = {"model": "m", "prompt": "hello", "max_tokens": 5}


async def _health(_request: web.Request) -> web.Response:
    return web.Response()


def _models(window: int):
    async def show(_request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m", "max_model_len": window}]})

    return show


async def _complete(request: web.Request) -> web.Response:
    return web.json_response({"choices": [], "pool": request.headers.get("x-llm-pool", "")})


@asynccontextmanager
async def _pool(window: int):
    app = web.Application()
    app.router.add_get("/health", _health)
    app.router.add_get("/v1/models", _models(window))
    app.router.add_post("/v1/completions", _complete)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _up(visit, **settings):
    """Bring a stack before two pools up, visit it, and take it down."""

    async def run():
        async with _pool(2048) as short, _pool(8192) as long, aiohttp.ClientSession() as session:
            options = StackOptions(pools=(long, short), ports=None, ready_s=20, settings=settings)
            async with Stack(options, session, lambda _: None) as stack:
                pools = await stack.open_pools()
                gateway = await stack.open_gateway(pools, [pool.upstream for pool in pools])
                result = await visit(session, stack, gateway)
            return result, stack.pids

    return asyncio.run(run())


async def _ask(session, _stack, gateway):
    async with session.post(f"{gateway.url}/v1/completions", json=_BODY) as response:
        return response.headers["x-llm-pool"], await response.json()


def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_request_goes_through_and_nothing_stays():
    (header, document), pids = _up(_ask)
    assert (header, document["pool"]) == ("short", "short")
    assert len(pids) == 2
    assert all(map(_gone, pids))


def test_a_child_that_dies_ends_the_work():
    async def kill(_session, stack, gateway):
        work = asyncio.ensure_future(stack.unless_ended(asyncio.Event().wait()))
        await asyncio.sleep(0)
        await gateway.envoy.stop()
        with pytest.raises(StackError, match="envoy ended with"):
            await work

    _, pids = _up(kill)
    assert all(map(_gone, pids))


def test_a_service_that_refuses_its_settings_says_why():
    with pytest.raises(StackError, match=r"service ended with exit status 2\.(?s:.*)thresold"):
        _up(_ask, thresold=1)


def _open_pools(**options):
    async def run():
        async with (
            aiohttp.ClientSession() as session,
            Stack(StackOptions(**options), session, lambda _: None) as stack,
        ):
            return await stack.open_pools()

    return asyncio.run(run())


def test_a_pool_that_does_not_answer_is_named():
    with pytest.raises(StackError, match=r"127\.0\.0\.1:1/health is not ready after 0\.2 s \(.+\)"):
        _open_pools(pools=("http://127.0.0.1:1",), ports=None, ready_s=0.2)


def test_a_taken_port_is_refused_before_anything_runs():
    free = free_ports()
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = Ports(free.listener, server.getsockname()[1], free.grpc, free.http)
        with pytest.raises(StackError, match="Envoy's admin"):
            _open_pools(pools=("http://127.0.0.1:1",), ports=ports)


def test_the_service_is_told_ports_and_pools():
    pools = [StackPool("short", "http://s:1", "m", 2048, simulated=False)]
    upstreams = [Upstream("short", "::1", 80)]
    settings = service_settings(Ports(), pools, upstreams, {"budget": {"gamma": 2.0}, "pools": []})
    assert settings == {
        "budget": {"gamma": 2.0},
        "listen": {
            "grpc": "127.0.0.1:50051",
            "http": "127.0.0.1:8081",
            "notice_s": 0,
            "drain_s": 2,
        },
        "pools": [{"name": "short", "max_model_len": 2048, "address": "[::1]:80"}],
        "envoy": {"listen": "127.0.0.1:10000", "admin": "127.0.0.1:9901"},
    }


def test_a_settings_file_gives_all_but_addresses():
    further = {
        "pools": [
            {"name": "short", "max_model_len": 4096, "threshold": 1000, "address": "far:1"},
            {"name": "long", "max_model_len": 8192, "threshold": 8192, "address": "far:2"},
        ],
        "listen": {"grpc": "0.0.0.0:1", "http_token_file": "/secret", "max_streams": 7},
        "envoy": {"service": "far", "metrics": "0.0.0.0:2", "message_timeout_ms": 50},
    }
    pools = [
        StackPool("short", "http://s:1", "m", 2048, simulated=False),
        StackPool("long", "http://l:1", "m", 8192, simulated=False),
    ]
    ports = Ports(listener_host="::1")
    given = service_settings(ports, pools, [pool.upstream for pool in pools], further)
    assert given["pools"] == [
        {"name": "short", "max_model_len": 2048, "address": "s:1", "threshold": 1000},
        {"name": "long", "max_model_len": 8192, "address": "l:1"},
    ]
    assert given["envoy"] == {
        "listen": "[::1]:10000",
        "admin": "127.0.0.1:9901",
        "message_timeout_ms": 50,
    }
    assert given["listen"]["max_streams"] == 7
    assert "http_token_file" not in given["listen"]


def test_the_state_of_a_service_learns_nothing_from_the_local_stack():
    further = {"state": "redis://s:1", "state_password_file": "/p", "state_ca_file": "/c"}
    given = service_settings(Ports(), [], [], {**further, "budget": {"gamma": 2.0}})
    assert sorted(given) == ["budget", "envoy", "listen", "pools"]


def test_a_threshold_that_the_servers_window_does_not_allow_is_dropped():
    further = {"pools": [{"name": "short", "threshold": 4096}, {"name": "long", "threshold": 8192}]}
    pools = [StackPool("short", "http://s:1", "m", 2048, simulated=False)]
    [row] = service_settings(Ports(), pools, [pools[0].upstream], further)["pools"]
    assert "threshold" not in row


def _stacked(file, pools):
    """Load the settings that the stack makes of a file and of running pools."""
    upstreams = [pool.upstream for pool in pools]
    given = service_settings(Ports(), pools, upstreams, load(file).model_dump())
    file.write_text(json.dumps(given))
    return load(file)


def test_one_row_gives_its_pools_to_every_model(tmp_path):
    file = tmp_path / "dualpool.yaml"
    file.write_text("rows: [{models: [other], pools: [{name: one, max_model_len: 2048}]}]\n")
    [row] = _stacked(file, [StackPool("one", "http://s:1", "m", 2048, simulated=False)]).fleet
    assert row.models == ("*",)
    assert [pool.address for pool in row.pools] == ["s:1"]


def test_the_thresholds_of_a_settings_file_are_kept(tmp_path):
    file = tmp_path / "dualpool.yaml"
    small = "{name: short, max_model_len: 2048, threshold: 1000}"
    file.write_text(f"pools: [{small}, {{name: long, max_model_len: 8192}}]\n")
    pools = [
        StackPool("short", "http://s:1", "m", 2048, simulated=False),
        StackPool("long", "http://l:1", "m", 8192, simulated=False),
    ]
    assert [pool.threshold for pool in _stacked(file, pools).pools] == [1000, 8192]


def test_servers_are_named_as_the_settings_name_the_pools():
    async def run(sizes):
        async with _pool(2048) as one, _pool(8192) as two, aiohttp.ClientSession() as session:
            options = StackOptions(pools=(two, one), sizes=sizes, named=True, ports=None)
            async with Stack(options, session, lambda _: None) as stack:
                return [pool.name for pool in await stack.open_pools()]

    sizes = tuple(PoolSize(name, 1) for name in ("small", "big", "huge"))
    assert asyncio.run(run(sizes[:2])) == ["small", "big"]
    with pytest.raises(StackError, match="--pools: 2 servers, but --config has 3 pools"):
        asyncio.run(run(sizes))


def test_envoy_listens_where_it_is_told_to():
    async def run():
        port = free_ports().listener
        async with _pool(2048) as one, _pool(8192) as two, aiohttp.ClientSession() as session:
            options = StackOptions(
                pools=(one, two), ports=None, listen=f"127.0.0.2:{port}", ready_s=20
            )
            async with Stack(options, session, lambda _: None) as stack:
                pools = await stack.open_pools()
                gateway = await stack.open_gateway(pools, [pool.upstream for pool in pools])
                return gateway.url == f"http://127.0.0.2:{port}", await _ask(
                    session, stack, gateway
                )

    is_told, (header, _) = asyncio.run(run())
    assert (is_told, header) == (True, "short")


def test_another_system_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(StackError, match="Envoy's Linux binary; this is darwin"):
        check_platform()


def test_without_a_tokenizer_the_simulated_pools_are_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(StackError, match="need the package bpe-openai"):
        check_tokenizer()


def test_waiting_says_what_is_waited_for():
    said = []

    async def run():
        options = StackOptions(pools=("http://127.0.0.1:1",), ports=None, ready_s=0.1)
        async with (
            aiohttp.ClientSession() as session,
            Stack(options, session, said.append) as stack,
        ):
            await stack.open_pools()

    with pytest.raises(StackError):
        asyncio.run(run())
    assert said == ["Waiting for the pools: http://127.0.0.1:1"]


def test_a_pool_that_does_not_answer_is_named_long_before_the_time_is_up(monkeypatch):
    monkeypatch.setattr(stack, "_SAY_S", 0.1)
    said = []

    async def run():
        options = StackOptions(pools=("http://127.0.0.1:1",), ports=None, ready_s=0.5)
        async with aiohttp.ClientSession() as session, Stack(options, session, said.append) as own:
            await own.open_pools()

    with pytest.raises(StackError):
        asyncio.run(run())
    _, late = said
    assert late.startswith("Waiting up to 0.5 s for http://127.0.0.1:1/health: ")
    assert "refused" in late


def test_work_that_fails_before_a_child_ends_raises_its_own_error():
    async def fail():
        raise LookupError("the work")

    async def run():
        async with (
            aiohttp.ClientSession() as session,
            Stack(
                StackOptions(pools=("http://h:1",), ports=None), session, lambda _: None
            ) as stack,
        ):
            await stack.unless_ended(fail())

    with pytest.raises(LookupError, match="the work"):
        asyncio.run(run())
