"""A reverse proxy before each pool that records what the pool was sent and what it answered.

It hands on every byte as it comes, in both directions, and keeps their hashes, so that a client
can prove that nothing was changed between it and the pool.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import hdrs, web
from yarl import URL

from extproc.local.envoy import Upstream
from extproc.local.fleet import StackPool
from extproc.local.usage_event import less_usage

# RFC 9110 section 7.6.1: these concern one connection and are not handed on.
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
     "upgrade"}
)  # fmt: skip
_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """One request as it reached a pool, and the answer as it left; hashes are SHA-256, in hex.

    told_hash: of the answer less its usage, see usage_event.
    complete: the pool ended the answer as HTTP demands, and all of it was handed on.
    """

    request_id: str
    pool: str
    status: int
    request_hash: str
    response_hash: str
    response_bytes: int
    complete: bool
    told_hash: str = ""


class Witness:
    """What was seen before all pools, in the order in which the answers ended."""

    def __init__(self) -> None:
        self.sightings: list[Sighting] = []

    def by_request(self) -> dict[str, list[Sighting]]:
        """Return the sightings by request id: one of a request, or one an attempt."""
        grouped: dict[str, list[Sighting]] = {}
        for seen in self.sightings:
            grouped.setdefault(seen.request_id, []).append(seen)
        return grouped


class _Proxy:
    """The handler of one pool."""

    def __init__(self, pool: StackPool, session: aiohttp.ClientSession, witness: Witness) -> None:
        self._pool = pool
        self._session = session
        self._witness = witness

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        asked, answered = bytearray(), bytearray()
        status, complete = 0, False
        try:
            async with self._open(request, asked) as upstream:
                status = upstream.status
                response = web.StreamResponse(status=status, headers=_passed_on(upstream.headers))
                await response.prepare(request)
                async for data in upstream.content.iter_any():
                    answered += data
                    await response.write(data)
                await response.write_eof()
                complete = True
                return response
        except aiohttp.ClientError:
            # Envoy must see what the witness saw: a connection that broke.
            _abort(request)
            return web.Response(status=502)
        finally:
            self._witness.sightings.append(
                Sighting(
                    request_id=request.headers.get("x-request-id", ""),
                    pool=self._pool.name,
                    status=status,
                    request_hash=_sha256(asked),
                    response_hash=_sha256(answered),
                    response_bytes=len(answered),
                    complete=complete,
                    told_hash=_sha256(less_usage(bytes(answered))),
                )
            )

    def _open(
        self, request: web.BaseRequest, asked: bytearray
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._session.request(
            request.method,
            URL(self._pool.url + request.raw_path, encoded=True),
            headers=_passed_on(request.headers),
            data=_body(request, asked) if request.can_read_body else None,
            allow_redirects=False,
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.CONTENT_TYPE, hdrs.ACCEPT),
        )


async def _body(request: web.BaseRequest, asked: bytearray) -> AsyncIterator[bytes]:
    async for data in request.content.iter_any():
        asked += data
        yield data


def _sha256(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


def _passed_on(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    # Pairs: a header may come more than once.
    return [(key, value) for key, value in headers.items() if key.lower() not in _HOP_BY_HOP]


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


@asynccontextmanager
async def witnessing(
    pools: Sequence[StackPool],
) -> AsyncIterator[tuple[Witness, tuple[Upstream, ...]]]:
    """Put a witness before each pool; yields it and where Envoy finds the pools now."""
    witness = Witness()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
    # A kept connection could be closed by the pool in the moment of its next use.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        )
        upstreams = []
        for pool in pools:
            proxy = _Proxy(pool, session, witness)
            port = await stack.enter_async_context(_served(proxy))
            upstreams.append(Upstream(pool.name, "127.0.0.1", port))
        yield witness, tuple(upstreams)


@asynccontextmanager
async def _served(proxy: _Proxy) -> AsyncIterator[int]:
    # Bodies stay as they are, and a client that leaves ends the pool's work at once.
    server = web.Server(proxy.handle, auto_decompress=False, handler_cancellation=True)
    runner = web.ServerRunner(server, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
