"""A reverse proxy in front of each pool that records what the pool received and answered.

It forwards every byte as it arrives, in both directions, and keeps SHA-256 hashes, so that the
report can show that nothing changed between client and pool.
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

# RFC 9110 section 7.6.1: these concern one connection and are not forwarded.
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding",
     "upgrade"}
)  # fmt: skip
_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class Recording:
    """One request as a pool received it, and the pool's answer; hashes are SHA-256 in hex.

    hash_less_usage: of the answer without its usage event (see usage_event).
    complete: the pool ended the answer properly and all of it was forwarded.
    """

    request_id: str
    pool: str
    status: int
    request_hash: str
    response_hash: str
    response_bytes: int
    complete: bool
    hash_less_usage: str = ""


class Recorder:
    """The recordings of all pools, in the order in which the answers ended."""

    def __init__(self) -> None:
        self.recordings: list[Recording] = []

    def by_request(self) -> dict[str, list[Recording]]:
        """Return the recordings by request id: one per attempt."""
        grouped: dict[str, list[Recording]] = {}
        for recording in self.recordings:
            grouped.setdefault(recording.request_id, []).append(recording)
        return grouped


class _Proxy:
    """The handler of one pool."""

    def __init__(self, pool: StackPool, session: aiohttp.ClientSession, recorder: Recorder) -> None:
        self._pool = pool
        self._session = session
        self._recorder = recorder

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        received, answered = bytearray(), bytearray()
        status, complete = 0, False
        try:
            async with self._open(request, received) as upstream:
                status = upstream.status
                response = web.StreamResponse(status=status, headers=_forwarded(upstream.headers))
                await response.prepare(request)
                async for data in upstream.content.iter_any():
                    answered += data
                    await response.write(data)
                await response.write_eof()
                complete = True
                return response
        except aiohttp.ClientError:
            # Break the connection to Envoy as the pool broke the one to us.
            _abort(request)
            return web.Response(status=502)
        finally:
            self._recorder.recordings.append(
                Recording(
                    request_id=request.headers.get("x-request-id", ""),
                    pool=self._pool.name,
                    status=status,
                    request_hash=_sha256(received),
                    response_hash=_sha256(answered),
                    response_bytes=len(answered),
                    complete=complete,
                    hash_less_usage=_sha256(less_usage(bytes(answered))),
                )
            )

    def _open(
        self, request: web.BaseRequest, received: bytearray
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._session.request(
            request.method,
            # encoded: aiohttp would otherwise quote the path anew, and the pool would get another
            # one.
            URL(self._pool.url + request.raw_path, encoded=True),
            headers=_forwarded(request.headers),
            data=_body(request, received) if request.can_read_body else None,
            allow_redirects=False,
            # aiohttp would add these, and the pool must get what Envoy sent.
            skip_auto_headers=(hdrs.USER_AGENT, hdrs.CONTENT_TYPE, hdrs.ACCEPT),
        )


async def _body(request: web.BaseRequest, received: bytearray) -> AsyncIterator[bytes]:
    async for data in request.content.iter_any():
        received += data
        yield data


def _sha256(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


def _forwarded(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    # Pairs: a header may come more than once.
    return [(key, value) for key, value in headers.items() if key.lower() not in _HOP_BY_HOP]


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


@asynccontextmanager
async def recording_proxies(
    pools: Sequence[StackPool],
) -> AsyncIterator[tuple[Recorder, tuple[Upstream, ...]]]:
    """Run a proxy in front of each pool; yield the recorder and the proxies' addresses."""
    recorder = Recorder()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
    # The pool could close a kept-alive connection at the moment it is reused.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        )
        upstreams = []
        for pool in pools:
            proxy = _Proxy(pool, session, recorder)
            port = await stack.enter_async_context(_served(proxy))
            upstreams.append(Upstream(pool.name, "127.0.0.1", port))
        yield recorder, tuple(upstreams)


@asynccontextmanager
async def _served(proxy: _Proxy) -> AsyncIterator[int]:
    # Bodies stay compressed; a client that disconnects cancels the pool's request at once.
    server = web.Server(proxy.handle, auto_decompress=False, handler_cancellation=True)
    runner = web.ServerRunner(server, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
