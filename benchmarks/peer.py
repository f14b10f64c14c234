"""An HTTP/2 client of ext_proc streams that can hold very many of them, each for little memory."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, cast

from extproc.service.streams import SERVICE
from extproc.transport import frames
from extproc.transport.frames import frame

_STANDARD_WINDOW: Final = 65_535
_GREETING_S: Final = 10.0
_FIELDS: Final = {
    ":method": "POST",
    ":scheme": "http",
    ":path": f"/{SERVICE}/Process",
    ":authority": "peer",
    "te": "trailers",
    "content-type": "application/grpc",
}


class PeerConnection(asyncio.Protocol):
    """One connection; streams are known by their odd numbers.

    The server's windows are not looked at: keep below 64 KiB on a stream.
    """

    def __init__(self, settings: dict[int, int]) -> None:
        self.refused: set[int] = set()
        window = frames.window_update(0, frames.MAX_WINDOW - _STANDARD_WINDOW)
        self._greeting = frames.PREFACE + frames.settings(settings) + window
        self._transport: asyncio.Transport | None = None
        self._greeted = asyncio.get_running_loop().create_future()
        self._data = bytearray()
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def greeted(self) -> None:
        """Wait for the server's settings."""
        await self._greeted

    def open(self, numbers: Iterable[int], message: bytes) -> None:
        """Open streams, each with this first message."""
        self._write(b"".join(_headers(number) + _message(number, message) for number in numbers))

    def send(self, number: int, message: bytes) -> None:
        """Send a message on a stream."""
        self._write(_message(number, message))

    def answered(self, number: int) -> asyncio.Future[None]:
        """Return a future that ends with the stream's next message, or its end."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        return future

    def abort(self) -> None:
        """Close the connection at once."""
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's own class is not derived from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._write(self._greeting)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        del exc
        for number in self._waiting.copy():
            self._end(number, refused=True)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._data += data
        at = 0
        while len(self._data) - at >= frames.HEAD_BYTES:
            size = int.from_bytes(self._data[at : at + 3])
            payload = at + frames.HEAD_BYTES
            if payload + size > len(self._data):
                break
            kind, flags = self._data[at + 3 : at + 5]
            self._on_frame(kind, flags, int.from_bytes(self._data[at + 5 : payload]), size)
            at = payload + size
        del self._data[:at]

    def _on_frame(self, kind: int, flags: int, number: int, size: int) -> None:
        if kind == frames.SETTINGS and not flags & frames.ACK:
            self._write(frame(frames.SETTINGS, flags=frames.ACK))
            if not self._greeted.done():
                self._greeted.set_result(None)
        elif kind == frames.DATA and size:
            self._end(number, refused=False)
        elif kind == frames.RST_STREAM or (kind == frames.HEADERS and flags & frames.END_STREAM):
            self._end(number, refused=True)

    def _end(self, number: int, *, refused: bool) -> None:
        future = self._waiting.pop(number, None)
        if future is None:
            return
        if refused:
            self.refused.add(number)
        if not future.done():
            future.set_result(None)

    def _write(self, data: bytes) -> None:
        if self._transport:
            self._transport.write(data)


async def connect(address: int | Path, settings: dict[int, int] | None = None) -> PeerConnection:
    """Connect to a server of ext_proc streams on this machine, by its port or its socket's path."""
    wanted = {frames.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW} if settings is None else settings
    loop, peer = asyncio.get_running_loop(), PeerConnection(wanted)
    if isinstance(address, Path):
        await loop.create_unix_connection(lambda: peer, str(address))
    else:
        await loop.create_connection(lambda: peer, "127.0.0.1", address)
    async with asyncio.timeout(_GREETING_S):
        await peer.greeted()
    return peer


async def in_turn(calls: Sequence[Callable[[], Awaitable[None]]], at_once: int) -> None:
    """Await all calls, this many at a time."""
    left = iter(calls)

    async def work() -> None:
        for call in left:
            await call()

    await asyncio.gather(*(work() for _ in range(at_once)))


def _message(number: int, message: bytes) -> bytes:
    return frame(frames.DATA, b"\0" + len(message).to_bytes(4) + message, stream=number)


def _headers(number: int) -> bytes:
    # The size of a table that we do not use; then literals.
    block = b"\x20" + b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in _FIELDS.items()
    )
    return frame(frames.HEADERS, block, flags=frames.END_HEADERS, stream=number)
