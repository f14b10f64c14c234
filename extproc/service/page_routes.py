"""The page's part of the HTTP side: its files, its live figures, and its form.

Invariant: the files tell nothing about this service. All figures need the token, if one is set; a
script sends it, because a browser sends no bearer token for an address.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final

import msgspec

from extproc.page.files import SECURITY_HEADERS, File, read_files
from extproc.page.overview import Overview
from extproc.request.apis import Endpoint, endpoint
from extproc.service.web import JSON, Refusal, Request, Response, Routes

MOST_WATCHERS: Final = 8
"""Streams of live figures at once."""

WATCH_S: Final = 25.0
"""How long a stream lasts; the browser then opens another. Connections end after 30 s."""

EVERY_S: Final = 2.0
"""Seconds between two messages of a stream."""

_LEAST_PAUSE_S: Final = 5.0
_MOST_PAUSE_S: Final = 60.0
_LEARNT_SHARE: Final = 0.005  # of the time may go to reading what was learnt

Explain = Callable[[bytes, Endpoint], object]
"""Returns the decision for a body in figures, for JSON."""


@dataclass(slots=True)
class Page:
    """What the page shows, beside what was learnt. `explain` changes with the settings."""

    overview: Overview
    explain: Explain


@dataclass(frozen=True, slots=True)
class Access:
    """What the routes need of the HTTP server."""

    require_token: Callable[[Request], None]
    """Raises Refusal."""
    turn: Callable[[Request], AbstractAsyncContextManager[None]]
    """Lets one page at a time be made, and bounds the share of the time that all take.

    Raises Refusal if the peer has left.
    """
    write_learnt: Callable[[], Awaitable[bytes]]
    """Returns what was learnt as JSON."""


class PageRoutes:
    """The page's routes; call `close` before the server stops."""

    def __init__(self, page: Page, access: Access) -> None:
        self._page, self._access = page, access
        self._watchers = 0
        self._closing = asyncio.Event()
        self._learnt, self._learnt_next = b"{}", 0.0

    def routes(self) -> Routes:
        """Return the routes."""
        files = {path: {"GET": partial(_send, file)} for path, file in read_files().items()}
        return {
            **files,
            "/page/events": {"GET": self._watch},
            "/page/explain": {"POST": self._explain},
        }

    def close(self) -> None:
        """End the streams of live figures."""
        self._closing.set()

    async def _watch(self, request: Request) -> Response:
        self._access.require_token(request)
        if self._watchers >= MOST_WATCHERS:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, headers={"retry-after": "5"})
        return Response(self._stream(), "text/event-stream", headers=SECURITY_HEADERS)

    async def _stream(self) -> AsyncGenerator[bytes, None]:
        self._watchers += 1
        try:
            end = time.monotonic() + WATCH_S
            hour = learnt = object()  # differs from all that can be sent
            while time.monotonic() < end and not self._closing.is_set():
                yield _event("now", msgspec.json.encode(self._page.overview.now()))
                if hour != (hour := self._page.overview.points):
                    yield _event("hour", msgspec.json.encode(self._page.overview.hour()))
                if learnt != (learnt := await self._read_learnt()):
                    yield _event("learnt", self._learnt)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), EVERY_S)
        finally:
            self._watchers -= 1

    async def _read_learnt(self) -> bytes:
        start = time.monotonic()
        if start >= self._learnt_next:
            self._learnt_next = start + _MOST_PAUSE_S  # one stream reads for all
            self._learnt = await self._access.write_learnt()
            end = time.monotonic()
            pause = (end - start) / _LEARNT_SHARE
            self._learnt_next = end + min(_MOST_PAUSE_S, max(_LEAST_PAUSE_S, pause))
        return self._learnt

    async def _explain(self, request: Request) -> Response:
        self._access.require_token(request)
        # A page of another origin cannot send this type without asking first, and is told nothing.
        if request.content_type != "application/json":
            text = "the body's type must be application/json\n"
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, text)
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise Refusal(HTTPStatus.FORBIDDEN, "only the page of this service may ask\n")
        path = request.query.get("path", "")
        if (kind := endpoint(path)) is None:
            raise Refusal(HTTPStatus.BAD_REQUEST, "requests to this path carry no prompt\n")
        body = await request.read()
        async with self._access.turn(request):
            explanation = self._page.explain(body, kind)
        return Response(msgspec.json.encode(explanation), JSON, headers=SECURITY_HEADERS)


async def _send(file: File, _request: Request) -> Response:
    return Response(file.content, f"{file.content_type}; charset=utf-8", headers=SECURITY_HEADERS)


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)
