"""The bounds of the HTTP side's connections, over real sockets."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import pytest
import uvloop
from aiohttp import web

from extproc.service.connections import Connections

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request):
    return request.param


async def answer(_request):
    return web.Response(text="ok")


@asynccontextmanager
async def listening(serve=answer, **bounds):
    server = await asyncio.get_running_loop().create_server(
        Connections(web.Server(serve), **bounds), "127.0.0.1", 0
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def connected(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def is_closed(reader):
    try:
        return await asyncio.wait_for(reader.read(), 60) == b""
    except ConnectionResetError:
        return True


async def asked(port):
    async with connected(port) as (reader, writer):
        writer.write(GET)
        return await asyncio.wait_for(reader.readline(), 60)


def test_a_connection_too_many_replaces_the_oldest(run):
    async def main():
        async with (
            listening(most=2, age_s=60) as port,
            connected(port) as (oldest, _),
            connected(port) as (reader, writer),
        ):
            assert b"200" in await asked(port)
            assert await is_closed(oldest)
            writer.write(GET)
            return await reader.readline()

    assert b"200" in run(main())


@pytest.mark.parametrize("sent", [b"", GET[:-2], GET])
def test_a_connection_ends_when_it_is_old(run, sent):
    async def main():
        async with listening(age_s=0.2) as port, connected(port) as (reader, writer):
            writer.write(sent)
            if sent == GET:
                await reader.readuntil(b"ok")
            return await is_closed(reader)

    assert run(main())


def test_a_client_that_leaves_frees_its_place(run):
    async def main():
        async with listening(most=1, age_s=60) as port:
            for _ in range(5):
                assert b"200" in await asked(port)

    run(main())


def test_a_client_that_reads_slowly_is_closed_too(run):
    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)

    async def main():
        async with listening(endless, age_s=0.3) as port, connected(port) as (reader, writer):
            writer.write(GET)
            await asyncio.sleep(0.5)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await asyncio.wait_for(reader.readexactly(1 << 30), 60)

    run(main())
