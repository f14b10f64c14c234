"""The channel between the supervisor and a worker: one JSON text a line, on a socket of its own.

Standard output is not used: any library may print to it. The supervisor sends an Order first, then
observations go both ways: a worker sends what it observes, and learns what the supervisor sends, in
that order, its own among it. Before the first, and wherever a worker is too far behind to be sent
all, the supervisor names a snapshot to continue from. An empty line from the worker reports that it
serves; one from the supervisor asks it to drain and end. A worker's line that begins with DIGEST is
for the page; a supervisor's that begins with CHANGE holds an Order with other settings, one that
begins with LOADS the load of the pools, one that begins with REPLICAS how many learn the same.

An Order has the length of its settings. All other lines are shorter than LINE_BYTES.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from extproc.budget.values import Observation
from extproc.page.digest import Digest
from extproc.routing.load.pool_load import PoolLoad

LINE_BYTES = 1024 * 1024
"""The longest line that the supervisor reads; longer ones are not sent.

A digest of as many pools as the settings permit, with the longest names, has two thirds of that.
"""

UNSENT_BYTES = 1024 * 1024
"""The most that may wait for a slow reader before observations are dropped."""

BATCH_S = 0.25
"""How long observations may wait for others: so much later they are learnt."""

EMPTY = b"\n"

DIGEST = b"="
"""Begins a line that holds a digest; no JSON text begins so."""

CHANGE = b"!"
"""Begins a line that holds a later order."""

LOADS = b"~"
"""Begins a line that holds the load of the pools."""

REPLICAS = b"#"
"""Begins a line that holds how many replicas learn the same."""

SNAPSHOT = b"@"
"""Begins a line that holds the path of a snapshot."""

_DECODER = msgspec.json.Decoder(Observation)
_DIGEST_DECODER = msgspec.json.Decoder(Digest)
_LOADS_DECODER = msgspec.json.Decoder(dict[str, PoolLoad])


class OverlongLine(Exception):  # noqa: N818 - says what came, as UnreadableRequest does
    """A line longer than LINE_BYTES came: what follows it cannot be read."""


@dataclass(frozen=True, slots=True)
class Order:
    """The supervisor's first line, and that of a change: what the worker is to serve."""

    settings: str
    """Settings as JSON."""
    address: str
    """For gRPC: host:port or unix:/path."""
    tenant_secret: str = field(repr=False)
    """Hexadecimal: all workers name a tenant alike."""


_ORDER_DECODER = msgspec.json.Decoder(Order)


def encode(value: Order | Observation) -> bytes:
    """Return a value as one line."""
    return msgspec.json.encode(value) + b"\n"


def decode_order(line: bytes) -> Order:
    """Read the first line, of encode. Raises msgspec.DecodeError."""
    return _ORDER_DECODER.decode(line)


def encode_change(order: Order) -> bytes:
    """Return a later order as one line."""
    return CHANGE + encode(order)


def decode_change(line: bytes) -> Order:
    """Read a line of encode_change. Raises msgspec.DecodeError."""
    return decode_order(line.removeprefix(CHANGE))


def encode_digest(digest: Digest) -> bytes:
    """Return a digest as one line."""
    return DIGEST + msgspec.json.encode(digest) + b"\n"


def encode_snapshot(path: Path) -> bytes:
    """Return the path of a snapshot as one line; the supervisor's own folder has no line ends."""
    return SNAPSHOT + bytes(path) + b"\n"


def decode_snapshot(line: bytes) -> Path:
    """Read a line of encode_snapshot."""
    return Path(os.fsdecode(line.removeprefix(SNAPSHOT).rstrip(b"\n")))


def decode_digest(line: bytes) -> Digest:
    """Read a line of encode_digest. Raises msgspec.DecodeError."""
    return _DIGEST_DECODER.decode(line.removeprefix(DIGEST))


def encode_replicas(replicas: int) -> bytes:
    """Return how many replicas learn the same as one line."""
    return b"%s%d\n" % (REPLICAS, replicas)


def decode_replicas(line: bytes) -> int:
    """Read a line of encode_replicas."""
    return int(line.removeprefix(REPLICAS))


def encode_loads(loads: Mapping[str, PoolLoad]) -> bytes:
    """Return the load of the pools as one line."""
    return LOADS + msgspec.json.encode(loads) + b"\n"


def decode_loads(line: bytes) -> Mapping[str, PoolLoad]:
    """Read a line of encode_loads. Raises msgspec.DecodeError."""
    return _LOADS_DECODER.decode(line.removeprefix(LOADS))


def decode(line: bytes) -> Observation:
    """Read an observation. Raises msgspec.DecodeError."""
    return _DECODER.decode(line)


async def read_line(reader: asyncio.StreamReader) -> bytes:
    """Return the next line, however long it is; what is left without a line end at the end.

    The sender is trusted: the settings bound how long their line is.
    """
    line = bytearray()
    while True:
        try:
            return bytes(line + await reader.readuntil())
        except asyncio.LimitOverrunError as error:
            line += await reader.readexactly(error.consumed)
        except asyncio.IncompleteReadError as error:
            return bytes(line + error.partial)


class Outbox:
    """Writes lines to one reader in their order, never waits, and drops what it cannot take.

    Observations wait for up to BATCH_S and leave together: to wake their reader costs more than to
    learn one.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer, self._loop = writer, asyncio.get_running_loop()
        self._waiting = list[bytes]()
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def send(self, line: bytes) -> bool:
        """Write a line now, after those that wait.

        A line that is too long, or comes after the end, is dropped. Return False if the reader is
        too far behind.
        """
        if not self._has_room():
            return False
        self._keep(line)
        self.flush()
        return True

    def send_soon(self, line: bytes) -> bool:
        """Write a line now, or together with others BATCH_S after the last. See `send`."""
        if not self._has_room():
            return False
        self._keep(line)
        if self._timer is None:
            now = self._loop.time()
            if now >= self._due:
                self.flush()
            else:
                self._timer = self._loop.call_at(self._due, self.flush)
        return True

    def flush(self) -> None:
        """Write the lines that wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and not self._writer.transport.is_closing():
            self._writer.write(b"".join(self._waiting))
        self._waiting.clear()
        self._bytes = 0
        self._due = self._loop.time() + BATCH_S

    def _has_room(self) -> bool:
        transport = self._writer.transport
        unsent = self._bytes + transport.get_write_buffer_size()
        return transport.is_closing() or unsent < UNSENT_BYTES

    def _keep(self, line: bytes) -> None:
        if len(line) <= LINE_BYTES:
            self._waiting.append(line)
            self._bytes += len(line)
