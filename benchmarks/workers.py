"""`python -m benchmarks.workers`: the service's CPU per request with 1, 2 and 4 workers.

No Envoy: each worker gets a steady load on a connection of its own, the streams of a decision and
of the observation of its answer. The numbers of workers are measured in turn. With --divide all
workers together get what one gets alone: each then wakes for fewer requests at a time.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import aiohttp
from prometheus_client import CollectorRegistry

from benchmarks.bodies import make_body
from extproc.build import build_learner
from extproc.config.settings import Settings
from extproc.local.children import Child, Children, Command, Log
from extproc.local.ports import free_ports
from extproc.protos.envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import (
    ProcessingMode,
)
from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import (
    ProcessingRequest,
    ProcessingResponse,
)
from extproc.service.build import build_stages
from extproc.service.streams import SERVICE
from extproc.stream.stream import Stream
from extproc.transport import frames
from extproc.transport.frames import frame

_WORKERS: Final = (1, 2, 4)
_BODIES: Final = 300
_TICK_S: Final = 0.02
_SETTLE_S: Final = 1.0
_CANCEL: Final = (8).to_bytes(4)
_WIDE: Final = (1 << 31) - (1 << 16)


@dataclass(frozen=True, slots=True)
class _Exchange:
    """The messages of the two streams of one request."""

    decided: tuple[bytes, ...]
    observed: tuple[bytes, ...]


def main() -> int:
    """Run the benchmark and print a line for each number of workers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--rate", type=int, default=200, help="requests a second and worker")
    parser.add_argument("--divide", action="store_true", help="divide the rate by the workers")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    exchanges = _exchanges()
    found: dict[int, list[float]] = {workers: [] for workers in _WORKERS}
    for _ in range(options.rounds):
        for workers, costs in found.items():
            rate = options.rate / workers if options.divide else options.rate
            cost = _measure(workers, exchanges, rate, options.seconds)
            costs.append(asyncio.run(cost))
    base = found[_WORKERS[0]]
    for workers, costs in found.items():
        ratios = [cost / one for cost, one in zip(costs, base, strict=True)]
        print(  # noqa: T201 - its output
            f"{workers} workers: {_spread(costs, '.0f')} us of all processes per request,"
            f" {_spread(ratios, '.2f')} of one worker's"
        )
    return 0


def _spread(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


async def _measure(
    workers: int, exchanges: Sequence[_Exchange], rate: float, seconds: float
) -> float:
    """Return the microseconds of CPU per request. Raises RuntimeError if one was not served."""
    children, ports = Children(), free_ports()
    folder = Path(f"/tmp/dualpool-workers-{ports.grpc}")  # noqa: S108 - sockets have short names
    with closing(Log()) as file:
        listen = {"grpc": f"unix:{folder}", "http": f"127.0.0.1:{ports.http}", "notice_s": 0}
        file.write(json.dumps({"listen": listen, "workers": workers}))
        argv = (sys.executable, "-m", "extproc", "serve", "--config", str(file.path()))
        try:
            service = await children.start(Command("service", argv, grace_s=0.1))
            url = f"http://127.0.0.1:{ports.http}"
            await _until_ready(url)
            paths = [str(folder)] if workers == 1 else [f"{folder}.{i}" for i in range(workers)]
            await _send(paths, exchanges, rate, 2.0)  # until all is imported and calibrated
            before, start = await _settled(url), _cpu_s(service)
            count = await _send(paths, exchanges, rate, seconds)
            end = _cpu_s(service)
            if (decided := await _settled(url) - before) != count:
                raise RuntimeError(f"{decided} of {count} requests were decided")
            return (end - start) * 1e6 / count
        finally:
            await children.stop()


async def _send(
    paths: Sequence[str], exchanges: Sequence[_Exchange], rate: float, seconds: float
) -> int:
    """Send exchanges to each path at a steady rate; return how many."""
    counts = [_send_one(path, exchanges, rate, seconds, i) for i, path in enumerate(paths)]
    return sum(await asyncio.gather(*counts))


async def _send_one(
    path: str, exchanges: Sequence[_Exchange], rate: float, seconds: float, seed: int
) -> int:
    draw = random.Random(seed)  # noqa: S311 - nothing secret
    reader, writer = await asyncio.open_unix_connection(path)
    window = frames.settings({frames.INITIAL_WINDOW_SIZE: 1 << 24})
    writer.write(frames.PREFACE + window + frame(frames.SETTINGS, flags=frames.ACK))
    writer.write(frame(frames.WINDOW_UPDATE, _WIDE.to_bytes(4)))
    discarding = asyncio.create_task(_discard(reader))
    start, sent, undone = time.monotonic(), 0, b""
    while (passed := time.monotonic() - start) < seconds:
        batch, ends = [undone], []
        while sent < rate * passed:
            exchange, number = draw.choice(exchanges), 4 * sent + 1
            sent += 1
            batch += [_stream(number, exchange.decided), _stream(number + 2, exchange.observed)]
            ends += [
                frame(frames.RST_STREAM, _CANCEL, stream=each) for each in (number, number + 2)
            ]
        undone = b"".join(ends)
        writer.write(b"".join(batch))
        await asyncio.sleep(_TICK_S)
    writer.write(undone)
    await asyncio.sleep(_SETTLE_S)
    discarding.cancel()
    writer.close()
    return sent


async def _discard(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 16):
        pass


def _stream(number: int, messages: Sequence[bytes]) -> bytes:
    data = (b"\0" + len(message).to_bytes(4) + message for message in messages)
    opened = frame(frames.HEADERS, _BLOCK, flags=frames.END_HEADERS, stream=number)
    return opened + b"".join(frame(frames.DATA, each, stream=number) for each in data)


def _exchanges() -> list[_Exchange]:
    """Return requests of prompts of many sizes, which a service that knows nothing has noted."""
    settings = Settings()
    learner = build_learner(settings)
    stages = build_stages(settings, learner, lambda _: None, CollectorRegistry(), b"")
    draw = random.Random(0)  # noqa: S311 - nothing secret
    return [_exchange(Stream(stages), draw, seed) for seed in range(_BODIES)]


def _exchange(stream: Stream, draw: random.Random, seed: int) -> _Exchange:
    body = make_body(int(800 * draw.lognormvariate(0, 0.8)) + 300, seed)
    head = ProcessingRequest()
    head.protocol_config.request_body_mode = ProcessingMode.BUFFERED
    _add(head.request_headers, {":method": "POST", ":path": "/v1/chat/completions"})
    whole = ProcessingRequest(request_body={"body": body, "end_of_stream": True})
    replies = [each for message in (head, whole) for each in _replies(stream, message)]
    observed = ProcessingRequest(observability_mode=True)
    observed.protocol_config.response_body_mode = ProcessingMode.STREAMED
    _add(observed.request_headers, {":path": "/v1/chat/completions"})
    note = observed.metadata_context.filter_metadata["llm"]
    for reply in replies:
        note.MergeFrom(reply.dynamic_metadata.fields["llm"].struct_value)
    answered = ProcessingRequest(observability_mode=True)
    _add(answered.response_headers, {":status": "200", "content-type": "application/json"})
    usage = {"prompt_tokens": round(len(body) / draw.gauss(4, 0.2)), "completion_tokens": 100}
    text = json.dumps({"choices": [{"finish_reason": "stop"}], "usage": usage}).encode()
    last = ProcessingRequest(response_body={"body": text, "end_of_stream": True})
    last.observability_mode = True
    parts = (observed, answered, last)
    return _Exchange(
        (head.SerializeToString(), whole.SerializeToString()),
        tuple(part.SerializeToString() for part in parts),
    )


def _replies(stream: Stream, message: ProcessingRequest) -> list[ProcessingResponse]:
    return [ProcessingResponse.FromString(each) for each in stream.receive(message)]


def _add(headers: object, fields: dict[str, str]) -> None:
    for key, value in fields.items():
        headers.headers.headers.add(key=key, raw_value=value.encode())  # type: ignore[attr-defined]


def _block() -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/{SERVICE}/Process",
        ":authority": "peer",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    # The size of a table that we do not use; then literals.
    return b"\x20" + b"".join(
        b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
        for name, value in fields.items()
    )


_BLOCK: Final = _block()


async def _until_ready(url: str) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while True:
            try:
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


async def _settled(url: str) -> int:
    """Wait until no more requests are decided; return how many were."""
    before = -1
    while (now := await _decided(url)) != before:
        before = now
        await asyncio.sleep(_SETTLE_S)
    return now


async def _decided(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    counted = [line for line in lines if line.startswith("dualpool_decisions_total")]
    return sum(int(float(line.rpartition(" ")[2])) for line in counted)


def _cpu_s(service: Child) -> float:
    """Return the CPU seconds of a service and its workers."""
    children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
    # The CPU clock of a process, see clock_getcpuclockid(3).
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in (service.pid, *map(int, children)))


if __name__ == "__main__":
    sys.exit(main())
