"""The connections of the HTTP side, whose number and age are bounded.

Invariant: a new connection is served. If there are too many, the oldest is closed for it: a health
check takes milliseconds, a client that holds a connection takes longer.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

MOST: Final = 64
"""Connections open at once; a scraper and some health checks need a handful."""

AGE_S: Final = 30.0
"""How old a connection may become: the longest page of a busy service takes a few seconds."""


class Connections:
    """A protocol factory that bounds the connections of another one."""

    def __init__(
        self, serve: Callable[[], asyncio.Protocol], most: int = MOST, age_s: float = AGE_S
    ) -> None:
        self._serve, self._most, self._age_s = serve, most, age_s
        self._open: dict[_Connection, None] = {}  # oldest first

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        return _Connection(self, self._serve())

    def add(self, connection: "_Connection") -> asyncio.TimerHandle:
        """Count a connection; return the timer that will end it."""
        if len(self._open) >= self._most:
            next(iter(self._open)).abort()
        self._open[connection] = None
        return asyncio.get_running_loop().call_later(self._age_s, connection.abort)

    def remove(self, connection: "_Connection") -> None:
        """Forget a connection; idempotent."""
        self._open.pop(connection, None)


class _Connection(asyncio.Protocol):
    """Passes everything on to the protocol that serves."""

    def __init__(self, every: Connections, serving: asyncio.Protocol) -> None:
        self._every, self._serving = every, serving
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._timer = self._every.add(self)
        self._serving.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._every.remove(self)
        if self._timer is not None:
            self._timer.cancel()
        self._serving.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._serving.data_received(data)

    def eof_received(self) -> bool | None:
        return self._serving.eof_received()

    def pause_writing(self) -> None:
        self._serving.pause_writing()

    def resume_writing(self) -> None:
        self._serving.resume_writing()

    def abort(self) -> None:
        """Close the connection without sending the rest."""
        # connection_lost comes in a later turn of the loop, and until then the place would be
        # taken.
        self._every.remove(self)
        if self._transport is not None:
            self._transport.abort()
