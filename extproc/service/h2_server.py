"""The server on HTTP/2 framing of its own, for Envoy on a Unix socket or loopback; no TLS.

It costs a fraction of grpc.aio's CPU: a stream is an object, not a task, and all answers to what
one read brought leave in one write.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

from grpc_health.v1 import health_pb2

from extproc.service.bounded_log import BoundedLog
from extproc.service.h2_calls import PROCESS, HealthChecks, ProcessCall
from extproc.service.listening import BACKLOG, cannot_listen, open_sockets, socket_path
from extproc.service.places import Deadline
from extproc.service.streams import TICK_S, TOO_MANY, Bounds, Streams
from extproc.service.turns import Backlog, Turns
from extproc.service.unix_socket import PathLock, reserve
from extproc.stream.stages import Stages
from extproc.transport.calls import (
    OK,
    RESOURCE_EXHAUSTED,
    Call,
    Connection,
    Limits,
    OpenCall,
    Status,
)
from extproc.transport.connection import FramedConnection

HELD_MESSAGES: Final = 4
"""All connections together hold less than so many of the longest messages, in messages that have
not arrived whole and answers that are not read; else the stream that holds most ends, and Envoy
passes its request on unread."""

_HANG_UP_TICKS = 3  # for a peer to read why
_REFUSED = Status(RESOURCE_EXHAUSTED, TOO_MANY)
_log = logging.getLogger(__name__)

Connect = Callable[[OpenCall, Limits], Connection]


class H2Server:
    """Serves Envoy on one address; `connect` makes the protocol of a connection."""

    def __init__(
        self, stages: Stages, address: str, bounds: Bounds, connect: Connect = FramedConnection
    ) -> None:
        self.turns = Turns(bounds.late_s)
        self.streams = Streams(stages, bounds, self.turns.is_over)
        self.health = HealthChecks()
        self.bounds = bounds
        self.violations = BoundedLog(_log, logging.WARNING, time.monotonic)
        self._address = address
        self._connect = connect
        self._limits = Limits(streams=bounds.connection_streams, message_bytes=bounds.message_bytes)
        self._names = itertools.count(1)
        self._peers: set[_Peer] = set()
        self._empty = asyncio.Event()
        self._held_bytes = 0
        self._drains = False
        self._listeners: list[asyncio.Server] = []
        self._path_lock: PathLock | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen; return the port (1 for a Unix socket). Raises OSError if that is impossible."""
        if path := socket_path(self._address):
            self._path_lock = reserve(path)
        try:
            sockets = open_sockets(self._address)
        except OSError as error:
            self._unlock_path()
            raise cannot_listen(self._address, "gRPC", error) from error
        port = sockets[0].getsockname()[1] if path is None else 1
        loop = asyncio.get_running_loop()
        for each in sockets:
            self._listeners.append(
                await loop.create_server(self._accept, sock=each, backlog=BACKLOG)
            )
        self._empty.set()
        self.health.report(health_pb2.HealthCheckResponse.SERVING)
        self._ticking = asyncio.create_task(self._tick())
        return int(port)

    def use(self, stages: Stages) -> None:
        """Decide new streams by other stages; those that are open end under their own."""
        self.streams.use(stages)

    async def announce_end(self) -> None:
        """Report NOT_SERVING; keep serving."""
        self.health.report(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def settle(self, answers_s: float, decisions_s: float) -> None:
        """Serve on while what is open now ends: answers for `answers_s`, then only decisions."""
        await self.streams.settle(answers_s, decisions_s)

    async def drain(self, seconds: float) -> None:
        """Refuse new streams, give open ones `seconds` to finish, then end them.

        Call it again to shorten the time.
        """
        await self.announce_end()
        self._drains = True
        for listener in self._listeners:
            listener.close()
        for peer in list(self._peers):
            peer.drain()
        # Not in a handler: a compiled one that waits leaves its exception behind.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        for peer in list(self._peers):
            peer.shut()
        await self._empty.wait()
        self._stop()

    def add(self, peer: "_Peer") -> bool:
        """Count a connection; False if there are too many, or the server is draining."""
        if self._drains or len(self._peers) >= self.bounds.connections:
            return False
        self._peers.add(peer)
        self._empty.clear()
        return True

    def remove(self, peer: "_Peer") -> None:
        """Forget a connection; idempotent."""
        self._peers.discard(peer)
        if not self._peers:
            self._empty.set()

    def count_held(self, more_bytes: int) -> None:
        """Count bytes that connections hold, and bound them."""
        self._held_bytes += more_bytes
        while more_bytes > 0 and self._held_bytes > HELD_MESSAGES * self.bounds.message_bytes:
            max(self._peers, key=lambda peer: peer.held_bytes).shed()

    def _accept(self) -> "_Peer":
        # The number keeps each connection a peer of its own, also over a Unix socket, whose clients
        # have no address.
        return _Peer(self, f"connection {next(self._names)}", self._connect, self._limits)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = asyncio.get_running_loop().time()
            for peer in list(self._peers):
                peer.tick(now)

    def _stop(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        self._unlock_path()

    def _unlock_path(self) -> None:
        if self._path_lock is not None:
            path = socket_path(self._address)
            assert path is not None, "only a path is locked"  # noqa: S101 - for the type
            path.unlink(missing_ok=True)
            self._path_lock.release()
            self._path_lock = None


class _Peer(asyncio.Protocol):
    """One connection: moves bytes between its socket and its protocol, and keeps its time."""

    def __init__(self, server: H2Server, name: str, connect: Connect, limits: Limits) -> None:
        self.held_bytes = 0
        self._server, self._name = server, name
        self._connection = connect(self._open_call, limits)
        self._deadlines: dict[int, Deadline] = {}
        self._backlog = Backlog()
        self._time = asyncio.get_running_loop().time
        self._since = self._heard_at = self._time()
        self._heard = self._asked = False
        self._hung_up_ticks = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        if not self._server.add(self):
            self._transport.abort()
            return
        if address := transport.get_extra_info("peername"):
            self._name = f"{self._name} from {address}"
        self._write(self._connection.receive(b""))

    def connection_lost(self, _: Exception | None) -> None:
        self._connection.lose()
        self._server.remove(self)
        self._count_held()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._backlog.read(len(data))
        self._server.turns.read(self._backlog)
        self._write(self._connection.receive(data))
        self._count_held()

    # A peer that does not read is not read.
    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def drain(self) -> None:
        """Have the peer open no more streams."""
        self._write(self._connection.drain())

    def shut(self) -> None:
        """End the connection with all its streams."""
        self._write(self._connection.shut())

    def shed(self) -> None:
        """End the stream that holds most bytes."""
        self._write(self._connection.shed())
        self._count_held()

    def tick(self, now: float) -> None:
        """Check all that has a time limit."""
        if self._hung_up_ticks:
            self._hung_up_ticks += 1
            if self._hung_up_ticks > _HANG_UP_TICKS:
                self._transport.abort()
            return
        self._connection.tick()
        self._check_silence(now)
        due = [number for number, deadline in self._deadlines.items() if deadline.at <= now]
        for number in due:
            self._write(self._connection.end(number, OK))
        self._count_held()

    def _check_silence(self, now: float) -> None:
        bounds = self._server.bounds
        if not self._connection.ready and now - self._since > bounds.handshake_s:
            self._transport.abort()
        elif self._heard:
            self._heard_at, self._heard, self._asked = now, False, False
        elif now - self._heard_at > bounds.silence_s:
            if self._asked:
                self._transport.abort()
            else:
                self._write(self._connection.ping())
                self._heard_at, self._asked = now, True

    def _open_call(self, path: str, number: int) -> Call | Status:
        if path != PROCESS:
            return self._server.health.open(path)
        deadline = Deadline(self._time() + self._server.bounds.first_message_s)
        stream = self._server.streams.open(self._name, deadline)
        if stream is None:
            return _REFUSED
        self._deadlines[number] = deadline
        return ProcessCall(stream, number, self._deadlines)

    def _count_held(self) -> None:
        more = self._connection.held_bytes - self.held_bytes
        if more:
            self.held_bytes += more
            self._server.count_held(more)

    def _write(self, data: bytes) -> None:
        if data:
            self._transport.write(data)
        if self._connection.closed and not self._hung_up_ticks:
            self._hang_up()

    def _hang_up(self) -> None:
        self._hung_up_ticks = 1
        if fault := self._connection.fault:
            self._server.violations.write("%s broke HTTP/2: %s", self._name, fault)
        # Not closed: with unread data that would reset the connection before the peer reads why.
        with suppress(OSError):  # the peer was faster
            self._transport.write_eof()
