"""The ext_proc streams of a server, whatever transport carries them.

Invariant: all that one peer can take of the server is bounded, except the time of an answer.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from grpc_health.v1 import health_pb2

from extproc.service.bounded_log import BoundedLog
from extproc.service.places import Deadline, Places
from extproc.stream.session import ProtocolError
from extproc.stream.stages import Stages
from extproc.stream.stream import Stream
from extproc.stream.traced import Trace

SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"
HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
REPORTED: Final = ("", SERVICE)
"""The services whose health is reported; the empty name is the whole server."""
TOO_MANY: Final = "too many streams are open"
TICK_S: Final = 0.25
"""How often time limits are checked, and so how late they may be."""

_SETTLING_STEP_S: Final = 0.02

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits on what peers can take of the server.

    streams: open at once, over all connections, shared as `places` says; Envoy passes on the
        requests of others unread.
    connection_streams: open at once on one connection; Envoy opens another connection for more.
    handshake_s: the time for a new connection to start HTTP/2.
    first_message_s: the time for a stream to send its first message, which Envoy sends at once.
    body_s: the time from the start of a stream to the end of the request's body; later the request
        passes on unread. The answer may take any time.
    late_s: how late a stream may be answered; above it, requests are decided by their size alone.
    silence_s: the time without data before a keepalive ping, and again before a connection without
        a reply is closed. A stream may be idle for as long as an answer takes, and a machine that
        crashes closes nothing.
    ping_interval_s: the shortest interval of pings from a peer.
    """

    message_bytes: int
    streams: int = 12_000
    connection_streams: int = 1000
    connections: int = 4096
    handshake_s: float = 10.0
    first_message_s: float = 10.0
    body_s: float = 300.0
    late_s: float = math.inf
    silence_s: float = 30.0
    ping_interval_s: float = 1.0


class Server(Protocol):
    """A server of one address, on either transport."""

    async def start(self) -> int:
        """Listen; return the port (1 for a Unix socket). Raises OSError if that is impossible."""

    def use(self, stages: Stages) -> None:
        """Decide new streams by other stages; those that are open end under their own."""

    async def announce_end(self) -> None:
        """Report NOT_SERVING; keep serving."""

    async def settle(self, answers_s: float, decisions_s: float) -> None:
        """Serve on while what is open now ends: answers for `answers_s`, then only decisions."""

    async def drain(self, seconds: float) -> None:
        """Refuse new streams, give open ones `seconds` to finish, then end them.

        Call it again to shorten the time.
        """


class Streams:
    """Opens the streams of a server; `is_late` says whether it answers too late."""

    def __init__(self, stages: Stages, bounds: Bounds, is_late: Callable[[], bool]) -> None:
        self._is_late = is_late
        self.use(stages)
        self._bounds = bounds
        self._places = Places(bounds.streams)
        self._open: set[OpenStream] = set()
        self._clock: Callable[[], float] | None = None
        self._faults = BoundedLog(_log, logging.ERROR, time.monotonic)
        self._violations = BoundedLog(_log, logging.WARNING, time.monotonic)

    def _time(self) -> float:
        # Which loop it is costs a system call to ask.
        if self._clock is None:
            self._clock = asyncio.get_running_loop().time
        return self._clock()

    def use(self, stages: Stages) -> None:
        """Open further streams with other stages."""
        self._stages = replace(stages, is_late=self._is_late)

    def open(
        self, peer: str, deadline: Deadline, trace: Trace | None = None
    ) -> "OpenStream | None":
        """Open a stream, and set its deadline; None if the server has no place for it."""
        if not self._places.take(peer, deadline):
            return None
        body_until = self._time() + self._bounds.body_s
        stream = OpenStream(self, Stream(self._stages, trace), peer, deadline, body_until)
        self._open.add(stream)
        return stream

    async def settle(self, answers_s: float, decisions_s: float) -> None:
        """Wait while streams that are open now end: for `answers_s`, then only for decisions."""
        loop, waiting = asyncio.get_running_loop(), set(self._open)
        until = loop.time() + answers_s
        while waiting and loop.time() < until + decisions_s:
            waiting &= self._open
            if loop.time() >= until:
                waiting = {stream for stream in waiting if stream.awaits_request}
            await asyncio.sleep(_SETTLING_STEP_S)

    def leave(
        self, stream: "OpenStream", peer: str, deadline: Deadline, error: Exception | None
    ) -> None:
        """Give up the place of a stream that has ended, and log what went wrong."""
        self._open.discard(stream)
        self._places.leave(peer, deadline)
        match error:
            case None:
                return
            case ProtocolError():
                self._violations.write("%s broke the ext_proc protocol: %s", peer, error)
            case _:
                message = "stream failed; its request passes on unchanged"
                self._faults.write(message, error=error)


class OpenStream:
    """One stream, from `Streams.open` to `close`."""

    __slots__ = ("_body_until", "_deadline", "_every", "_open", "_peer", "_stream", "finished")

    def __init__(
        self, every: Streams, stream: Stream, peer: str, deadline: Deadline, body_until: float
    ) -> None:
        self._every, self._stream = every, stream
        self._peer, self._deadline = peer, deadline
        self._body_until = body_until  # in the time of the event loop
        self._open = True
        self.finished = False
        """Whether the service ends the stream, without an error."""

    @property
    def awaits_request(self) -> bool:
        """Whether a decision is due once the rest of the request has come."""
        return self._stream.awaits_request

    def receive(self, message: bytes | memoryview) -> list[bytes]:
        """Return the replies that are due after this message."""
        stream = self._stream
        replies = stream.receive_encoded(message)
        if stream.finished:
            self.finished = True
        else:
            self._deadline.reschedule(self._body_until if stream.awaits_request else None)
        return replies

    def close(self) -> None:
        """Clean up, however the stream ended; idempotent, and never waits."""
        if self._open:
            self._open = False
            self._stream.close()
            self._every.leave(self, self._peer, self._deadline, self._stream.error)
