"""How late a server on the event loop's own sockets answers.

What it reads has waited in a socket: at most since the turn of the loop before this one began,
unless the socket still held more after it was read. Then it has waited since that was first so,
until a turn of the loop finds the socket empty.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

FULL_BYTES: Final = 1 << 16
"""A read of so many bytes may have left more behind."""

_IDLE_S = 0.001  # between two turns: the loop had nothing to do, and waited for a socket


class Backlog:
    """Since when one socket has held more than was read of it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reads = 0
        self.since: float | None = None

    def read(self, size: int) -> None:
        """Count a read."""
        self._reads += 1
        if size < FULL_BYTES:
            self.since = None
            return
        if self.since is None:
            self.since = self._clock()
        # The loop looks at the socket once more before the second of two callbacks.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._end_unless_read, self._reads)

    def _end_unless_read(self, reads: int) -> None:
        if reads == self._reads:
            self.since = None


class Turns:
    """The age of what is being read."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s, self._clock = limit_s, clock
        self._began = self._ended = clock()
        self._in_turn = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn_oldest = self._oldest = self._began

    def is_over(self) -> bool:
        """Return whether what was read last has waited for longer than the limit."""
        return self._clock() - self._oldest > self._limit_s

    def read(self, backlog: Backlog) -> None:
        """Begin to process what was read of a socket with this backlog."""
        if not self._in_turn:
            self._begin()
        since = backlog.since
        self._oldest = self._turn_oldest if since is None else min(since, self._turn_oldest)

    def _begin(self) -> None:
        now = self._clock()
        waited = now - self._ended < _IDLE_S
        self._turn_oldest, self._began = self._began if waited else now, now
        self._in_turn = True
        if self._loop is None:  # which it is costs a system call to ask
            self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._end)

    def _end(self) -> None:
        self._in_turn = False
        self._ended = self._clock()
