"""`python -m benchmarks.stream_memory`: the service's memory with streams and peers that hold on.

Open streams have sent a request's headers, have their answer, and wait. Peers that do not read send
pieces of an answer that the service sends back, and give it no window.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Final

import aiohttp
from rich.console import Console

from benchmarks.environment import describe_machine, describe_versions
from extproc.local.children import Child, Children, Command, Log
from extproc.local.ports import free_ports
from extproc.protos.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import (
    ProcessingMode,
)
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from extproc.service.streams import SERVICE
from extproc.transport import frames
from extproc.transport.frames import frame

_SERVED: Final = ("grpc", "h2")
_PER_CONNECTION: Final = 500
_BATCH: Final = 50
_PIECE_BYTES: Final = 16_000
_PIECES: Final = {"grpc": 4, "h2": 250}  # what the window of a stream has room for
_OPEN: Final = "dualpool_streams_open "
_SETTLE_S: Final = 1.0

_Burden = Callable[[int, int, str], Awaitable[list[asyncio.StreamWriter]]]


def main() -> int:
    """Run the benchmark and print a line for each transport."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream_memory", description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--silent", type=int, default=50, help="peers that do not read")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    console.print(describe_machine(), describe_versions("grpcio", "uvloop"), sep="\n")
    for transport in _SERVED:
        console.print(asyncio.run(_measure(transport, options.streams, options.silent)))
    return 0


async def _measure(transport: str, streams: int, silent: int) -> str:
    idle, opened, count = await _rss_kib(transport, _open_streams, streams)
    _, kept, _ = await _rss_kib(transport, _do_not_read, silent)
    return (
        f"{transport}: {idle >> 10} MiB without streams, {opened >> 10} MiB with {count} open,"
        f" {(opened - idle) / count:.1f} KiB each;"
        f" {kept >> 10} MiB with {silent} peers that do not read"
    )


async def _rss_kib(transport: str, burden: _Burden, count: int) -> tuple[int, int, int]:
    """Return a new service's resident memory, before and under the burden, and its streams."""
    children, ports = Children(), free_ports()
    with closing(Log()) as file:
        listen = {"grpc": f"127.0.0.1:{ports.grpc}", "http": f"127.0.0.1:{ports.http}"}
        file.write(json.dumps({"listen": listen | {"transport": transport, "notice_s": 0}}))
        argv = (sys.executable, "-m", "extproc", "serve", "--config", str(file.path()))
        try:
            service = await children.start(Command("service", argv, grace_s=0.1))
            await _until_ready(ports.http)
            idle = _resident_kib(service)
            peers = await burden(ports.grpc, count, transport)
            opened = await _settled(ports.http)
            held = _resident_kib(service)
            for peer in peers:
                peer.transport.abort()
        finally:
            await children.stop()
    return idle, held, opened


async def _open_streams(port: int, count: int, _: str) -> list[asyncio.StreamWriter]:
    """Open streams that wait; return the connections."""
    head = _request_head()
    writers = []
    for start in range(0, count, _PER_CONNECTION):
        reader, writer = await _connect(port, frames.settings({}))
        asyncio.get_running_loop().create_task(_discard(reader))
        for batch in _batches(min(_PER_CONNECTION, count - start)):
            for number in batch:
                writer.write(_headers(number) + _data(number, head))
            await asyncio.sleep(0.02)  # for a larger window
        writers.append(writer)
    return writers


def _batches(count: int) -> Iterator[range]:
    for first in range(0, count, _BATCH):
        yield range(2 * first + 1, 2 * min(first + _BATCH, count) + 1, 2)


async def _do_not_read(port: int, count: int, transport: str) -> list[asyncio.StreamWriter]:
    """Have as much sent back as the windows allow, and read none of it; return the connections."""
    first, piece = _answer_head(), _answer_piece()
    writers = []
    for _ in range(count):
        _, writer = await _connect(port, frames.settings({frames.INITIAL_WINDOW_SIZE: 0}))
        writer.write(_headers(1) + _data(1, first))
        for _ in range(_PIECES[transport]):
            writer.write(_data(1, piece))
        writers.append(writer)
    return writers


async def _connect(port: int, settings: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(frames.PREFACE + settings)
    await reader.read(1 << 16)  # the greeting
    writer.write(frame(frames.SETTINGS, flags=frames.ACK))
    return reader, writer


async def _discard(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 16):
        pass


def _headers(number: int) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/{SERVICE}/Process",
        ":authority": "peer",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    # The size of a table that we do not use; then literals.
    block = b"\x20" + b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in fields.items()
    )
    return frame(frames.HEADERS, block, flags=frames.END_HEADERS, stream=number)


def _data(number: int, message: bytes) -> bytes:
    return frame(frames.DATA, b"\0" + len(message).to_bytes(4) + message, stream=number)


def _request_head() -> bytes:
    head = ProcessingRequest()
    head.protocol_config.request_body_mode = ProcessingMode.BUFFERED
    for key, value in ((":method", b"POST"), (":path", b"/v1/completions")):
        head.request_headers.headers.headers.add(key=key, raw_value=value)
    return head.SerializeToString()


def _answer_head() -> bytes:
    head = ProcessingRequest(response_headers={})
    head.protocol_config.response_body_mode = ProcessingMode.FULL_DUPLEX_STREAMED
    return head.SerializeToString()


def _answer_piece() -> bytes:
    return ProcessingRequest(response_body={"body": bytes(_PIECE_BYTES)}).SerializeToString()


async def _until_ready(port: int) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


async def _settled(port: int) -> int:
    """Wait until the number of open streams stays the same; return it."""
    before = -1
    while (now := await _streams_open(port)) != before:
        before = now
        await asyncio.sleep(_SETTLE_S)
    return now


async def _streams_open(port: int) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()
    return next(int(float(line.split()[1])) for line in lines if line.startswith(_OPEN))


def _resident_kib(child: Child) -> int:
    with open(f"/proc/{child.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


if __name__ == "__main__":
    sys.exit(main())
