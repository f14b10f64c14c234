"""The seam of a transport: what a shell drives, what it is given, and what it calls.

A shell owns sockets and clocks, a connection the protocol, a call the service. Nothing waits.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Status:
    """How a stream ends: a gRPC status code, and a text.

    The text is printable ASCII without %, which gRPC would escape, and has at most 126 characters,
    whose number HPACK writes in one byte.
    """

    code: int
    message: str = ""


OK = Status(0)
INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, UNIMPLEMENTED = 3, 5, 8, 12


class Call(Protocol):
    """One gRPC stream as the service sees it. Must not raise."""

    @property
    def status(self) -> Status | None:
        """How the service ends the stream; None while it goes on."""

    def receive(self, message: bytes | memoryview) -> Iterable[bytes]:
        """Return the replies that are due after this message; a view is of a long one."""

    def close(self) -> None:
        """Clean up, however the stream ended; called once or more."""


OpenCall = Callable[[str, int], Call | Status]
"""Opens the stream of a path and a number, or refuses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may use.

    streams: open at once; more are refused. message_bytes: the longest message.
    """

    streams: int
    message_bytes: int


class Connection(Protocol):
    """One HTTP/2 connection of a server. What the methods return is to be sent at once.

    ready: the peer has begun to speak HTTP/2.
    closed: nothing will be read or returned any more; close the socket after sending.
    fault: what the peer did wrong, if that is why.
    """

    ready: bool
    closed: bool
    fault: str | None

    @property
    def held_bytes(self) -> int:
        """Bytes of messages that have not arrived whole, and of answers that wait for a window."""

    def receive(self, data: bytes) -> bytes:
        """Process what the peer sent, in pieces of any size. Never raises."""

    def end(self, number: int, status: Status) -> bytes:
        """End a stream of which this server has had enough; no error if it is gone."""

    def shed(self) -> bytes:
        """End the stream that holds most bytes."""

    def tick(self) -> None:
        """Let the peer send PINGs, resets and the like again; call it at fixed intervals."""

    def ping(self) -> bytes:
        """Ask the peer for a sign of life."""

    def drain(self) -> bytes:
        """Have the peer open no more streams; `closed` once those that are open have ended."""

    def shut(self) -> bytes:
        """End all streams and the connection."""

    def lose(self) -> None:
        """Close all calls, as the peer is gone; idempotent."""
