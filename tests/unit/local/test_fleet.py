import asyncio
import sys
from collections.abc import Mapping

import aiohttp
import pytest
from aiohttp import web

from extproc.config.errors import UserError
from extproc.local.children import StackError
from extproc.local.fleet import PoolSize, StackPool, describe_pools, server_url, simulated_pools
from extproc.simulator.pool import server


def _models(windows: Mapping[str, int | None]) -> web.Application:
    async def show(_request: web.Request) -> web.Response:
        rows = [{"id": model, "max_model_len": window} for model, window in windows.items()]
        return web.json_response({"object": "list", "data": rows})

    app = web.Application()
    app.router.add_get("/v1/models", show)
    return app


async def _described(*servers: Mapping[str, int | None]):
    runners = [web.AppRunner(_models(windows)) for windows in servers]
    urls = []
    for runner in runners:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        async with aiohttp.ClientSession() as session:
            return await describe_pools(session, urls)
    finally:
        for runner in runners:
            await runner.cleanup()


def _shapes(*servers: Mapping[str, int | None]) -> list[tuple[str, str, int]]:
    pools = asyncio.run(_described(*servers))
    return [(pool.name, pool.model, pool.max_model_len) for pool in pools]


def test_pools_are_sorted_and_named_by_their_windows():
    assert _shapes({"m": 16_384}, {"m": 2048}) == [("short", "m", 2048), ("long", "m", 16_384)]


def test_more_than_two_pools_are_numbered_in_the_middle():
    names = [name for name, *_ in _shapes({"m": 1}, {"m": 2}, {"m": 3}, {"m": 4})]
    assert names == ["short", "middle-1", "middle-2", "long"]


def test_one_pool_is_the_long_one():
    assert _shapes({"m": 10}) == [("long", "m", 10)]


def test_the_model_is_one_that_all_serve():
    assert _shapes({"a": 1, "b": 2}, {"b": 3}) == [("short", "b", 2), ("long", "b", 3)]


def test_servers_without_a_common_model_are_refused():
    with pytest.raises(StackError, match=r"no model is served by all of them \(.*: a; .*: b\)"):
        _shapes({"a": 1}, {"b": 2})


def test_equal_windows_are_refused():
    with pytest.raises(StackError, match=r"the same max_model_len: \[8, 8\]"):
        _shapes({"a": 8}, {"a": 8})


def test_a_server_that_names_no_window_is_refused():
    with pytest.raises(StackError, match="/v1/models lists no model with max_model_len"):
        _shapes({"a": None})


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8101", "http://127.0.0.1:8101"),
        ("http://h:1/v1/", "http://h:1"),
        ("gpu-7:8000", "http://gpu-7:8000"),
        ("http://gpu-7", "http://gpu-7:80"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_a_pools_url_is_read(text, url):
    assert server_url("--pools", text) == url


@pytest.mark.parametrize("text", ["https://h:1", "http://", "http://h:1/api", "http://h:x", ""])
def test_a_bad_url_is_refused(text):
    with pytest.raises(UserError, match="is not http://HOST:PORT"):
        server_url("--pools", text)


def test_the_built_in_pools_are_the_papers():
    short, long = simulated_pools((1, 2), speed=2.0, seed=7)
    assert " ".join(short.argv[3:]) == (
        "--name short --port 1 --max-model-len 8192 --max-num-seqs 128 --num-blocks 65536 "
        "--model simulated --speed 2.0 --seed 7"
    )
    assert "--max-model-len 65536 --max-num-seqs 16" in " ".join(long.argv)


def test_a_pool_of_any_window_fills_its_cache_at_full_length():
    sizes = [PoolSize("a", 4096), PoolSize("b", 16_384), PoolSize("c", 4_194_304)]
    commands = simulated_pools((1, 2, 3), speed=1.0, seed=0, sizes=sizes)
    found = [each.argv[each.argv.index("--max-num-seqs") + 1] for each in commands]
    assert found == ["256", "64", "1"]


def test_names_may_be_given():
    async def run():
        app = web.AppRunner(_models({"m": 8}))
        await app.setup()
        await web.TCPSite(app, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{app.addresses[0][1]}"
        try:
            async with aiohttp.ClientSession() as session:
                return await describe_pools(session, [url], ["mine"])
        finally:
            await app.cleanup()

    [pool] = asyncio.run(run())
    assert pool.name == "mine"


def test_the_built_in_pools_are_what_the_simulator_can_serve(monkeypatch):
    served = []
    monkeypatch.setattr(server, "create_app", served.append)
    monkeypatch.setattr(server.web, "run_app", lambda *_, **__: None)
    for command in simulated_pools((1, 2), speed=2.0, seed=7):
        assert command.argv[:3] == (sys.executable, "-m", server.__name__)
        server.main(command.argv[3:])
    assert [pool.engine.max_model_len for pool in served] == [8192, 65_536]
    assert [pool.profile.speed for pool in served] == [2.0, 2.0]
    assert [pool.seed for pool in served] == [7, 7]


@pytest.mark.parametrize(
    ("url", "address"),
    [("http://gpu:8000", "gpu:8000"), ("http://gpu", "gpu:80"), ("http://[::1]:5", "[::1]:5")],
)
def test_envoy_is_given_the_address_of_the_url(url, address):
    assert StackPool("short", url, "m", 8, simulated=False).upstream.address == address
