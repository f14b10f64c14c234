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


def encode(value: Order | Observation) -> bytes:
    """Return a value as one line."""
    return msgspec.json.encode(value) + b"\n"


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


def send(writer: asyncio.StreamWriter, line: bytes) -> bool:
    """Write a line, or drop it if it is too long or the reader is too far behind. Never waits.

    Return False if the reader is too far behind.
    """
    transport = writer.transport
    if len(line) > LINE_BYTES or transport.is_closing():
        return True
    if transport.get_write_buffer_size() >= UNSENT_BYTES:
        return False
    writer.write(line)
    return True
