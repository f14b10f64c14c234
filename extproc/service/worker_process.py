"""A worker process, seen from its supervisor: start it, send to it, read from it, end it."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from prometheus_client.multiprocess import mark_process_dead

from extproc.service.channel import (
    EMPTY,
    LINE_BYTES,
    Order,
    Outbox,
    OverlongLine,
    encode,
    encode_change,
)

# With -P, as its supervisor: it must not find other sources in the current folder.
_FLAGS = ("-P",) if sys.flags.safe_path else ()
COMMAND = (sys.executable, *_FLAGS, "-m", "extproc.service.worker")
"""What a worker runs; the file descriptor of its channel is added."""

EXIT_S = 5.0
"""How long a worker may take to exit once its channel is closed."""


class WorkerProcess:
    """One running worker, from `start` to `wait`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process, self._reader, self._writer = process, reader, writer
        self._outbox = Outbox(writer)
        self._ending = False

    @classmethod
    async def start(cls, order: Order, metrics: Path) -> Self:
        """Start a worker that writes its metrics into the folder `metrics`. Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await _run(theirs.fileno(), metrics)
        except OSError:
            ours.close()
            raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES)
        writer.write(encode(order))
        return cls(process, reader, writer)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield what the worker sends until its channel closes. Raises OverlongLine."""
        try:
            async for line in self._reader:
                yield line
        except ConnectionError:  # a worker that was killed may reset the channel
            return
        except ValueError as error:
            raise OverlongLine from error

    def send(self, line: bytes) -> bool:
        """Send a line, unless the worker is ending; return False if it is too far behind."""
        return self._ending or self._outbox.send(line)

    def send_soon(self, line: bytes) -> bool:
        """Send a line together with others. See `send`."""
        return self._ending or self._outbox.send_soon(line)

    async def has_read(self) -> None:
        """Wait until the worker has read nearly all that it was sent, or is gone."""
        self._outbox.flush()
        with suppress(ConnectionError):
            await self._writer.drain()

    def change(self, order: Order) -> None:
        """Have the worker go on with other settings, after what it was sent before."""
        if not self._ending and not self._writer.is_closing():
            self._outbox.flush()
            self._writer.write(encode_change(order))

    def ask_to_drain(self) -> None:
        """Ask for the end, with notice and drain."""
        if not self._writer.is_closing():
            self._outbox.flush()
            self._writer.write(EMPTY)

    def end(self) -> None:
        """Have the worker end at once. It is sent nothing from now on; idempotent."""
        if not self._ending and not self._writer.is_closing():
            self._ending = True
            self._outbox.flush()
            # The worker reads it as a closed channel, and ends without notice or drain.
            self._writer.write_eof()

    def kill(self) -> None:
        """End the process without its help."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def wait(self, metrics: Path) -> None:
        """Wait for the exit, for EXIT_S at most, and take its gauges out of the metrics."""
        self._writer.close()
        try:
            async with asyncio.timeout(EXIT_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        # Only gauges: its counters stay, or the service's sums would fall at every restart.
        mark_process_dead(self._process.pid, path=str(metrics))  # type: ignore[no-untyped-call]


async def _run(channel: int, metrics: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        str(channel),
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=[channel],
        env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(metrics)},
    )
