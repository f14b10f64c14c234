import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.local.fleet import StackPool
from extproc.local.recorder import Recording, recording_proxies
from tests.support.waiting import until

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Visit = Callable[[aiohttp.ClientSession, str], Awaitable[object]]


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@asynccontextmanager
async def _pool(handler: Handler) -> AsyncIterator[StackPool]:
    app = web.Application(client_max_size=64 * 1024 * 1024, handler_args={"auto_decompress": False})
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield StackPool(
            "short", f"http://127.0.0.1:{runner.addresses[0][1]}", "m", 8, simulated=False
        )
    finally:
        await runner.cleanup()


def _visit(handler: Handler, visit: Visit) -> tuple[object, list[Recording]]:
    """Run a pool, a recorder and one visit of a client; return its result and what was seen."""

    async def run() -> tuple[object, list[Recording]]:
        async with (
            _pool(handler) as pool,
            recording_proxies([pool]) as (recorder, (upstream,)),
            aiohttp.ClientSession(auto_decompress=False) as session,
        ):
            url = f"http://{upstream.host}:{upstream.port}"
            result = await asyncio.wait_for(visit(session, url), 60)
            await until(lambda: recorder.recordings)
            return result, recorder.recordings

    return asyncio.run(run())


async def _echo(request: web.Request) -> web.Response:
    headers = {"x-path": request.raw_path, "x-saw": request.headers.get("x-mark", "")}
    return web.Response(body=await request.read(), status=418, headers=headers)


async def _post(session: aiohttp.ClientSession, url: str, body: bytes = b"hi", **headers: str):
    headers = {"x-request-id": "r1", **headers}
    async with session.post(url, data=body, headers=headers) as response:
        return response, await response.read()


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=300_000))
def test_bodies_pass_unchanged_and_their_hashes_are_kept(body):
    (_, echoed), seen = _visit(_echo, lambda session, url: _post(session, url, body))
    assert echoed == body
    assert seen == [
        Recording("r1", "short", 418, _hash(body), _hash(body), len(body), True, _hash(body))
    ]


def test_path_status_and_headers_pass():
    (response, _), _ = _visit(
        _echo, lambda session, url: _post(session, f"{url}/v1/a%2Fb?a=%20b", **{"x-mark": "7"})
    )
    assert response.status == 418
    assert response.headers["x-path"] == "/v1/a%2Fb?a=%20b"
    assert response.headers["x-saw"] == "7"


def test_a_compressed_body_stays_compressed():
    headers = {"content-encoding": "gzip"}
    (_, echoed), _ = _visit(_echo, lambda session, url: _post(session, url, b"no gzip", **headers))
    assert echoed == b"no gzip"


def test_a_get_passes():
    async def get(session, url):
        async with session.get(url) as response:
            return response.status, await response.read()

    assert _visit(_echo, get)[0] == (418, b"")


def test_a_stream_is_not_held_back():
    go_on = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        await go_on.wait()
        await response.write(b"last")
        return response

    async def visit(session, url):
        async with session.post(url) as response:
            first = await response.content.readany()
            go_on.set()
            return first, await response.read()

    (parts, seen) = _visit(stream, visit)
    assert parts == (b"first", b"last")
    assert (seen[0].response_hash, seen[0].complete) == (_hash(b"firstlast"), True)


async def _break_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"half")
    request.transport.abort()
    return response


def test_an_answer_that_breaks_off_breaks_off():
    async def visit(session, url):
        with pytest.raises(aiohttp.ClientPayloadError):
            await _post(session, url)

    _, seen = _visit(_break_off, visit)
    assert not seen[0].complete


def test_an_absent_pool_is_a_broken_connection():
    async def run():
        absent = StackPool("short", "http://127.0.0.1:1", "m", 8, simulated=False)
        async with (
            recording_proxies([absent]) as (recorder, (upstream,)),
            aiohttp.ClientSession() as session,
        ):
            with pytest.raises(aiohttp.ClientConnectionError):
                await _post(session, f"http://{upstream.host}:{upstream.port}")
            return [(seen.status, seen.complete) for seen in recorder.recordings]

    # aiohttp's client may try again on a connection that broke without an answer.
    assert set(asyncio.run(run())) == {(0, False)}


def test_a_client_that_leaves_ends_the_pools_work():
    left = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"first")
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
        return response

    async def visit(session, url):
        async with session.post(url) as response:
            await response.content.readany()
        await left.wait()

    _, seen = _visit(endless, visit)
    assert not seen[0].complete


def test_recordings_are_found_by_request_id():
    async def run():
        async with (
            _pool(_echo) as pool,
            recording_proxies([pool]) as (recorder, (upstream,)),
            aiohttp.ClientSession() as session,
        ):
            await _post(session, f"http://{upstream.host}:{upstream.port}")
            return {key: len(seen) for key, seen in recorder.by_request().items()}

    assert asyncio.run(run()) == {"r1": 1}
