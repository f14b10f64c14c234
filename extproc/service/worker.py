"""One of several processes: its own gRPC address, what it sees told to all, what others see learnt.

It talks to its supervisor over its standard input and output, one JSON text a line: first the
settings come in, then observations go both ways. An empty line means to leave in good time, the
end of its input to end at once, so a worker never outlives its supervisor.
"""

import asyncio
import signal
import sys
from dataclasses import dataclass

import msgspec
from prometheus_client import CollectorRegistry

from extproc.budget.learner import Learner
from extproc.budget.values import Observation
from extproc.build import build_learner
from extproc.config.settings import Settings
from extproc.service.certificates import CertificateError
from extproc.service.process import Stop, build_server, build_stages, leave

LINE_BYTES = 64 * 1024
"""The longest line between supervisor and worker."""

UNSENT_BYTES = 1024 * 1024
"""What may wait for a slow reader before observations are dropped."""

EMPTY = b"\n"
"""A worker says by it that it serves, and its supervisor that it is to leave."""

_DECODER = msgspec.json.Decoder(Observation)


@dataclass(frozen=True, slots=True)
class Order:
    """What the supervisor says first."""

    settings: str
    """Settings as JSON."""
    address: str


def encode(line: Order | Observation) -> bytes:
    """Return a value as one line."""
    return msgspec.json.encode(line) + b"\n"


def send(pipe: asyncio.WriteTransport, line: bytes) -> None:
    """Write a line, or drop it where the reader is far behind: learning never makes anyone wait."""
    if not pipe.is_closing() and pipe.get_write_buffer_size() < UNSENT_BYTES:
        pipe.write(line)


async def work(lines: asyncio.StreamReader, out: asyncio.WriteTransport) -> None:
    """Serve as ordered until the input says or means the end."""
    order = msgspec.json.decode(await lines.readline(), type=Order)
    settings = Settings.model_validate_json(order.settings)
    learner = build_learner(settings)

    def learn(observation: Observation) -> None:
        learner.learn(observation)
        send(out, encode(observation))

    server = build_server(
        settings, build_stages(settings, learner, learn, CollectorRegistry()), order.address
    )
    await server.start()
    send(out, EMPTY)
    stop = Stop()
    async with asyncio.TaskGroup() as tasks:
        hearing = tasks.create_task(_hear(lines, learner, stop))
        await stop.asked.wait()
        await leave(server, settings.listen, stop)
        hearing.cancel()


async def _hear(lines: asyncio.StreamReader, learner: Learner, stop: Stop) -> None:
    async for line in lines:
        if line == EMPTY:
            stop.ask()
        else:
            learner.learn(_DECODER.decode(line))
    stop.asked.set()
    stop.at_once.set()


async def _main() -> None:
    loop = asyncio.get_running_loop()
    # The supervisor decides when we end: Ctrl-C reaches the whole process group.
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: None)
    lines = asyncio.StreamReader(limit=LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    out, _ = await loop.connect_write_pipe(asyncio.Protocol, sys.stdout)
    await work(lines, out)


def main() -> int:
    """Run a worker; its supervisor has said what is wrong where it cannot listen."""
    try:
        asyncio.run(_main())
    except (OSError, CertificateError) as error:
        print(f"dualpool: {error}", file=sys.stderr)  # noqa: T201 - read by the operator
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
