"""A worker process: serves one gRPC address and shares its observations with its supervisor.

It ends at once if the channel to its supervisor closes, so it never outlives it.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry

from extproc.budget.learner import Learner
from extproc.budget.values import Observation
from extproc.build import build_learner, build_rules, retune
from extproc.config.addresses import with_port
from extproc.config.settings import Settings
from extproc.page.decisions import Decisions
from extproc.page.digest import EVERY_S
from extproc.routing.load.pool_load import PoolLoad
from extproc.service.build import (
    build_mark,
    build_reporter,
    build_server,
    build_stages,
    configure_logging,
    renew_stages,
)
from extproc.service.certificates import CertificateError
from extproc.service.channel import (
    CHANGE,
    EMPTY,
    LINE_BYTES,
    LOADS,
    REPLICAS,
    SNAPSHOT,
    Order,
    Outbox,
    decode,
    decode_change,
    decode_loads,
    decode_order,
    decode_replicas,
    decode_snapshot,
    encode,
    encode_digest,
    read_line,
)
from extproc.service.memory import keep_large_buffers, spare_modules
from extproc.service.repeating import repeating
from extproc.service.stopping import Stop, leave
from extproc.state.snapshot import decode as decode_file

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Orders:
    """What a worker does on lines of its supervisor that are not observations."""

    change: Callable[[Order], Awaitable[None]]
    tell: Callable[[Mapping[str, PoolLoad]], None]
    load: Callable[[Path], Learner]


async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve as ordered until the supervisor asks for the end or closes the channel."""
    order = decode_order(await read_line(reader))
    settings = Settings.model_validate_json(order.settings)
    configure_logging(settings)
    learner, outbox = build_learner(settings), Outbox(writer)

    def learn(observation: Observation) -> None:
        # The supervisor sends it back in the order that holds for all workers.
        outbox.send_soon(encode(observation))

    secret = bytes.fromhex(order.tenant_secret)

    def load(path: Path) -> Learner:
        loaded = build_learner(settings)
        decode_file(path.read_bytes(), build_mark(settings, secret)).load(loaded)
        return loaded

    # Nobody reads this registry: with PROMETHEUS_MULTIPROC_DIR set, values live in files that the
    # supervisor adds up.
    decisions = Decisions()
    stages = build_stages(settings, learner, learn, CollectorRegistry(), secret, decisions.note)
    reporter = build_reporter(stages, decisions)
    server = build_server(settings, stages, order.address)
    port = await server.start()
    if with_port(order.address, port) != order.address:
        _log.info("a worker listens on %s", with_port(order.address, port))
    outbox.send(EMPTY)
    stop = Stop()

    async def change(order: Order) -> None:
        nonlocal stages, settings, secret
        settings = Settings.model_validate_json(order.settings)
        # Opens the tokenizers of models that are new, which takes longer than a request may wait.
        await asyncio.to_thread(build_rules, settings)
        secret = bytes.fromhex(order.tenant_secret)
        configure_logging(settings)
        retune(learner, settings)
        stages = renew_stages(stages, settings, learn, secret)
        server.use(stages)

    def tell(loads: Mapping[str, PoolLoad]) -> None:
        if stages.spill is not None:
            stages.spill.tell(loads)

    def report() -> None:
        stages.metrics.publish()
        outbox.send(encode_digest(reporter.digest()))

    async with repeating(report, EVERY_S), asyncio.TaskGroup() as tasks:
        orders = _Orders(change, tell, load)
        reading = tasks.create_task(_read_channel(reader, learner, orders, stop))
        await stop.asked.wait()
        await leave(server, settings.listen, stop)
        stages.metrics.publish()
        outbox.flush()
        reading.cancel()


async def _read_channel(
    reader: asyncio.StreamReader,
    learner: Learner,
    orders: _Orders,
    stop: Stop,
) -> None:
    # A supervisor that was killed may reset the channel.
    with suppress(ConnectionError):
        while line := await read_line(reader):
            if line == EMPTY:
                stop.ask()
            elif line.startswith(CHANGE):
                await orders.change(decode_change(line))
            elif line.startswith(LOADS):
                orders.tell(decode_loads(line))
            elif line.startswith(REPLICAS):
                learner.share(decode_replicas(line))
            elif line.startswith(SNAPSHOT):
                learner.replace(await asyncio.to_thread(orders.load, decode_snapshot(line)))
            else:
                learner.learn(decode(line))
    stop.ask_at_once()


async def _run(channel: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    # Ctrl-C and a hangup reach the whole process group, but the supervisor ends its workers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)
    await work(*await asyncio.open_connection(sock=channel, limit=LINE_BYTES))


def main() -> int:
    """Run a worker on the channel whose file descriptor is the only argument."""
    keep_large_buffers()
    spare_modules()
    try:
        uvloop.run(_run(socket.socket(fileno=int(sys.argv[1]))))
    except (OSError, CertificateError) as error:
        print(f"dualpool: {error}", file=sys.stderr)  # noqa: T201 - read by the operator
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
