"""HTTP/1.1 for operators, on h11: each connection carries one request, which a handler answers.

h11 reads and frames; this drives it. aiohttp would take 10 MB of memory of each process.

Invariant: a peer takes little: a head of MOST_HEAD_BYTES and MOST_LINES, and a body of
MOST_BODY_BYTES only once a handler reads it. What else it sends is dropped, up to
MOST_DROPPED_BYTES. `Connections` bounds their number and their age.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

from extproc.service.bounded_log import BoundedLog

MOST_HEAD_BYTES: Final = 16 << 10
MOST_LINES: Final = 256
"""Of a head, which take h11 milliseconds to parse."""
MOST_BODY_BYTES: Final = 1 << 20
MOST_CHUNKS: Final = 1024
"""Of a body, which take h11 10 ms to parse."""
MOST_DROPPED_BYTES: Final = 8 << 20
"""Beyond what is read; who sends more is cut off."""
STOP_S: Final = 5.0
"""How long answers that are being made may take once the server stops."""
TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"

_PIECE_BYTES: Final = 1 << 10
_BODY: Final = frozenset({b"content-length", b"transfer-encoding"})
_SENT: Final = frozenset({h11.DONE, h11.MUST_CLOSE, h11.CLOSED})
_log = logging.getLogger(__name__)


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """The answer to a request that is not fulfilled; handlers raise it."""

    def __init__(
        self, status: HTTPStatus, text: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status)
        self.response = Response(
            (text or f"{status.value}: {status.phrase}").encode(),
            TEXT,
            status=status,
            headers=headers or {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request; `read` returns its body. Raises Refusal if it has none that is accepted."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By their names in lower case."""
    read: Callable[[], Awaitable[bytes]]
    is_awaited: Callable[[], bool]
    """Whether the peer is surely there: one that has closed its side may still read."""

    @property
    def content_type(self) -> str:
        """The type of the body without parameters; empty if it is not stated."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; a body that is generated is sent in pieces as they come."""

    body: bytes | AsyncGenerator[bytes, None]
    content_type: str
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]
Routes = Mapping[str, Mapping[str, Handler]]
"""By path and method. HEAD is answered as GET."""


class Exchanges:
    """Makes the protocol of each connection; `stop` ends all."""

    def __init__(self, routes: Routes) -> None:
        self.routes = routes
        self.faults = BoundedLog(_log, logging.ERROR, time.monotonic)
        self._answering: dict[asyncio.Task[None], None] = {}
        self._open: set[Exchange] = set()

    def __call__(self) -> "Exchange":
        """Return the protocol of a new connection."""
        exchange = Exchange(self)
        self._open.add(exchange)
        return exchange

    def answer(self, answering: "asyncio.Task[None]") -> None:
        """Keep a task until it is done."""
        self._answering[answering] = None
        answering.add_done_callback(lambda done: self._answering.pop(done, None))

    def remove(self, exchange: "Exchange") -> None:
        """Forget a connection that has ended."""
        self._open.discard(exchange)

    async def stop(self) -> None:
        """Wait for the answers that are being made, for STOP_S at most; then close all."""
        if answering := list(self._answering):
            _, late = await asyncio.wait(answering, timeout=STOP_S)
            for task in late:
                task.cancel()
            if late:  # they close what they read from
                await asyncio.wait(late, timeout=STOP_S)
        for exchange in list(self._open):
            exchange.close()


class Exchange(asyncio.Protocol):
    """One connection: reads a request, has it answered, and closes."""

    def __init__(self, every: Exchanges) -> None:
        self._every = every
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD_BYTES)
        self._transport: asyncio.Transport | None = None
        self._body = bytearray()
        self._arrived = asyncio.Event()  # the whole body, or what shows that it will not
        self._writable = asyncio.Event()
        self._writable.set()
        self._reads, self._dropped, self._lines, self._chunks = True, 0, 0, 0
        self._ended = False  # the peer sends nothing more
        self._waits = False  # until a handler asks for the body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._every.remove(self)
        self._transport = None
        self._arrived.set()
        self._writable.set()

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if not self._reads:
            self._drop(data)
            return
        # In pieces: h11 bounds only what it cannot parse yet.
        for start in range(0, len(data), _PIECE_BYTES):
            piece = data[start : start + _PIECE_BYTES]
            if self._http.their_state is h11.IDLE:
                self._lines += piece.partition(b"\r\n\r\n")[0].count(b"\n")
            if self._lines > MOST_LINES:
                self._break_off(h11.RemoteProtocolError("too many lines", 431))
                return
            self._http.receive_data(piece)
            if not self._waits:
                self._parse()
            if not self._reads:
                return

    def eof_received(self) -> bool:
        """See asyncio.Protocol: the connection stays open while an answer is due."""
        self._ended = True
        if self._reads:
            self._http.receive_data(b"")
            if not self._waits:
                self._parse()
        return self._http.our_state not in _SENT and self._http.their_state is not h11.CLOSED

    def close(self) -> None:
        """Close the connection once what was written is sent; idempotent."""
        if self._transport is not None:
            self._transport.close()

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > MOST_DROPPED_BYTES and self._transport is not None:
            self._transport.abort()

    def _parse(self) -> None:
        try:
            self._take_events()
        except h11.RemoteProtocolError as error:
            self._break_off(error)

    def _take_events(self) -> None:
        while True:
            match self._http.next_event():
                case h11.Request() as request:
                    self._begin(request)
                    if self._waits:
                        return
                case h11.Data(data=data, chunk_start=starts):
                    self._body += data
                    self._chunks += starts
                    if self._is_too_large():
                        self._reads = False
                        self._arrived.set()
                        return
                case h11.EndOfMessage():
                    self._arrived.set()
                    self._reads = False  # h11 would keep whatever follows
                    return
                case _:
                    return

    def _begin(self, request: h11.Request) -> None:
        if any(name in _BODY for name, _ in request.headers):
            self._waits = True
            assert self._transport is not None, "it has sent something"  # noqa: S101 - for the type
            self._transport.pause_reading()
        answering = asyncio.create_task(self._answer(request))
        self._every.answer(answering)

    def _break_off(self, error: h11.RemoteProtocolError) -> None:
        self._reads = False
        self._arrived.set()
        if self._http.our_state is h11.IDLE:  # else a handler answers
            status = HTTPStatus(error.error_status_hint)
            self._every.answer(asyncio.create_task(self._send(Refusal(status).response, "GET")))

    async def _answer(self, request: h11.Request) -> None:
        method = request.method.decode("latin-1")
        await self._send(await self._respond(method, request), method)

    async def _respond(self, method: str, request: h11.Request) -> Response:
        try:
            read = self._described(method, request)
            return await self._handler(read)(read)
        except Refusal as refusal:
            return refusal.response
        except Exception as error:  # noqa: BLE001 - a page that fails must fail alone
            self._every.faults.write("a page failed", error=error)
            return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR).response

    def _described(self, method: str, request: h11.Request) -> Request:
        try:
            target = urlsplit(request.target.decode("latin-1"))
            query = dict(parse_qsl(target.query))
        except ValueError:  # brackets that are no IPv6 address, or too many fields
            raise Refusal(HTTPStatus.BAD_REQUEST) from None
        headers = dict[str, str]()
        for name, value in request.headers:
            headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        return Request(
            method=method,
            path=unquote(target.path),
            query=query,
            headers=headers,
            read=lambda: self._read_body(headers),
            is_awaited=lambda: self._transport is not None and not self._ended,
        )

    def _handler(self, request: Request) -> Handler:
        methods = self._every.routes.get(request.path)
        if methods is None:
            raise Refusal(HTTPStatus.NOT_FOUND)
        handler = methods.get("GET" if request.method == "HEAD" else request.method)
        if handler is None:
            allowed = ("HEAD", *methods) if "GET" in methods else methods
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, headers={"allow": ", ".join(allowed)})
        return handler

    async def _read_body(self, headers: Mapping[str, str]) -> bytes:
        if int(headers.get("content-length", "0")) > MOST_BODY_BYTES:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if self._http.they_are_waiting_for_100_continue:
            self._write(h11.InformationalResponse(status_code=100, headers=[]))
        self._waits = False
        self._parse()  # a part may have come with the head
        self._resume()
        await self._arrived.wait()
        if self._is_too_large():
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if self._http.their_state not in {h11.DONE, h11.MUST_CLOSE}:
            raise Refusal(HTTPStatus.BAD_REQUEST)
        return bytes(self._body)

    def _is_too_large(self) -> bool:
        return len(self._body) > MOST_BODY_BYTES or self._chunks > MOST_CHUNKS

    async def _send(self, response: Response, method: str) -> None:
        try:
            self._write(
                h11.Response(
                    status_code=response.status,
                    headers=list(_head(response)),
                    reason=response.status.phrase.encode(),
                )
            )
            if isinstance(response.body, bytes):
                if method != "HEAD":
                    self._write(h11.Data(data=response.body))
            else:
                await self._stream(response.body, method)
            self._write(h11.EndOfMessage())
            self._leave()
        except ConnectionError:  # the peer left
            return
        except Exception as error:  # noqa: BLE001 - as in _respond
            self._every.faults.write("a page failed", error=error)
            self.close()

    async def _stream(self, pieces: AsyncGenerator[bytes, None], method: str) -> None:
        async with aclosing(pieces):
            if method == "HEAD":
                return
            async for piece in pieces:
                self._write(h11.Data(data=piece))
                await self._writable.wait()

    def _write(self, event: h11.Event) -> None:
        """Write an event. Raises ConnectionError if the connection is closed."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError
        self._transport.write(self._http.send(event) or b"")

    def _leave(self) -> None:
        """Close, once the peer has sent all: else it would be reset before it has read."""
        if self._transport is None:
            return
        if self._ended or self._http.their_state in _SENT:
            self._transport.close()
            return
        self._reads = False
        self._transport.write_eof()
        self._resume()

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


def _head(response: Response) -> Iterator[tuple[str, str]]:
    yield "date", formatdate(usegmt=True)
    yield "content-type", response.content_type
    if isinstance(response.body, bytes):
        yield "content-length", str(len(response.body))
    yield "connection", "close"
    yield from response.headers.items()
