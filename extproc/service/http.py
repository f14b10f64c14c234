"""The operator's HTTP side: the page, /metrics, /healthz, /readyz, /state and /lengths.

Invariant: no page holds the event loop for more than a few milliseconds, however much was learnt,
because streams wait meanwhile; to explain a pasted body takes as long as to route it. The learner
is read on the loop, a slice at a time; a thread writes the page. A connection carries one request,
and has a limited time for it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TypeVar

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry

from extproc.budget.learner import Learner
from extproc.budget.lengths import write_lengths
from extproc.budget.values import Learnt
from extproc.page.learnt import describe_learnt
from extproc.service.bearer import BearerToken
from extproc.service.connections import Connections
from extproc.service.listening import cannot_listen, open_ports
from extproc.service.page_routes import Access, Page, PageRoutes
from extproc.service.pages import collector_paused, in_slices, write_metrics, write_state
from extproc.service.web import JSON, TEXT, Exchanges, Refusal, Request, Response

_PAGES_SHARE = 0.2  # of the time may go to pages: a scrape every 15 s takes far less

_Part = TypeVar("_Part")


class HttpServer:
    """Serves metrics, health and what was learnt.

    `described` returns what /state shows beside what was learnt. With a token, /state, /lengths and
    the figures of the page need it.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        learner: Learner,
        described: Callable[[], Mapping[str, object]],
        is_ready: Callable[[], bool],
        token: BearerToken | None = None,
        page: Page | None = None,
    ) -> None:
        self._token = token
        self._registry, self._learner = registry, learner
        self._described, self._is_ready = described, is_ready
        access = Access(self._require_token, self._turn, self._write_learnt)
        self._page = PageRoutes(page, access) if page else None
        self._writing = asyncio.Lock()
        self._waiting = 0
        self._next_page = 0.0
        self._exchanges: Exchanges | None = None
        self._listeners: list[asyncio.Server] = []

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port. Raises OSError if the address cannot be bound."""
        pages = {
            "/metrics": self._metrics,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/state": self._state,
            "/lengths": self._lengths,
        }
        routes = {path: {"GET": page} for path, page in pages.items()}
        more = self._page.routes() if self._page else {}
        self._exchanges = Exchanges({**routes, **more})
        serve = Connections(self._exchanges)
        try:
            sockets = open_ports(host, port)
        except OSError as error:
            await self.stop()
            address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            raise cannot_listen(address, "HTTP", error) from error
        loop = asyncio.get_running_loop()
        for each in sockets:
            self._listeners.append(await loop.create_server(serve, sock=each))
        return int(sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening."""
        for listener in self._listeners:
            listener.close()
        if self._page is not None:
            self._page.close()
        if self._exchanges is not None:
            await self._exchanges.stop()

    async def _healthz(self, _request: Request) -> Response:
        return Response(b"ok\n", TEXT)

    async def _readyz(self, _request: Request) -> Response:
        if self._is_ready():
            return Response(b"ready\n", TEXT)
        return Response(b"not ready\n", TEXT, HTTPStatus.SERVICE_UNAVAILABLE)

    async def _metrics(self, request: Request) -> Response:
        def write(parts: list[Learnt]) -> bytes:
            return write_metrics(self._registry, Learnt.merged(parts))

        body = await self._write(self._learner.learnt_parts(), write, request)
        return Response(body, CONTENT_TYPE_LATEST)

    async def _state(self, request: Request) -> Response:
        self._require_token(request)

        described = self._described()

        def write(parts: list[Learnt]) -> bytes:
            return write_state(described, Learnt.merged(parts))

        body = await self._write(self._learner.learnt_parts(), write, request)
        return Response(body, JSON)

    async def _lengths(self, request: Request) -> Response:
        self._require_token(request)
        body = await self._write(self._learner.lengths.rows(), write_lengths, request)
        return Response(body, JSON)

    async def _write_learnt(self) -> bytes:
        def write(parts: list[Learnt]) -> bytes:
            return msgspec.json.encode(describe_learnt(Learnt.merged(parts)))

        return await self._write(self._learner.learnt_parts(), write)

    def _require_token(self, request: Request) -> None:
        given = request.headers.get("authorization", "")
        if self._token is not None and not self._token.permits(given):
            raise Refusal(HTTPStatus.UNAUTHORIZED, headers={"www-authenticate": "Bearer"})

    async def _write(
        self,
        parts: Iterator[_Part],
        write: Callable[[list[_Part]], bytes],
        request: Request | None = None,
    ) -> bytes:
        async with self._turn(request):
            with collector_paused():
                taken = await in_slices(parts)
                return await asyncio.to_thread(_write_and_free, write, taken)

    @asynccontextmanager
    async def _turn(self, request: Request | None = None) -> AsyncIterator[None]:
        # One page at a time: a second thread would only compete for the interpreter lock.
        self._waiting += 1
        async with self._writing:
            self._waiting -= 1
            if request and not request.is_awaited() and self._waiting:
                # It has probably left, and the others need not wait for it.
                raise Refusal(HTTPStatus.REQUEST_TIMEOUT)
            async with self._paced():
                yield

    @asynccontextmanager
    async def _paced(self) -> AsyncIterator[None]:
        # Decisions wait for the interpreter lock too, so pages get a bounded share of the time.
        await asyncio.sleep(self._next_page - time.monotonic())
        start = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            # A page of 50 ms is followed by a pause of 200 ms.
            self._next_page = end + (end - start) * (1 / _PAGES_SHARE - 1)


def _write_and_free(write: Callable[[list[_Part]], bytes], parts: list[_Part]) -> bytes:
    # What is freed here need not be traversed when the garbage collector resumes.
    page = write(parts)
    parts.clear()
    return page
