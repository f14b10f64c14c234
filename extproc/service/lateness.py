"""How late the server answers, measured by asking itself.

New streams wait in gRPC's own queue, which tells neither its length nor when an entry came. A
question of ours waits in the same queue, so its round trip is what the next stream will wait; the
lag of the event loop stays small meanwhile.
"""

import asyncio
import contextlib
import logging
import math
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

PAUSE_S: Final = 0.1
"""From an answer to the next question: 10 questions a second cost 0.5 % of a core."""

_log = logging.getLogger(__name__)


class Lateness:
    """The time that the last question took, or has taken until now if that is more."""

    def __init__(self, limit_s: float, clock: Callable[[], float]) -> None:
        self._limit_s, self._clock = limit_s, clock
        self._took_s = 0.0
        self._asked = math.inf  # nothing is being asked

    def is_over(self) -> bool:
        """Return whether the server answers later than the limit."""
        return max(self._took_s, self._clock() - self._asked) > self._limit_s

    async def measure(self, ask: Callable[[], Awaitable[object]]) -> None:
        """Ask and pause until cancelled, or until a question fails because the server ends."""
        while True:
            self._asked = self._clock()
            try:
                await ask()
            except grpc.aio.AioRpcError:
                return
            finally:
                self._took_s, self._asked = self._clock() - self._asked, math.inf
            await asyncio.sleep(PAUSE_S)


class SelfCheck:
    """Asks a server for its health over a socket that only this user can reach."""

    def __init__(self, lateness: Lateness) -> None:
        self._lateness = lateness
        self._ends = contextlib.AsyncExitStack()
        self._target = ""

    def listen(self, server: grpc.aio.Server) -> None:
        """Have the server listen for us, before it starts."""
        try:
            folder = self._ends.enter_context(tempfile.TemporaryDirectory(prefix="dualpool-"))
            target = f"unix:{Path(folder) / 'self'}"
            server.add_insecure_port(target)
        except (OSError, RuntimeError) as error:
            fix = "set TMPDIR to a folder that this user may write to"
            _log.warning("cannot measure how late streams are answered: %s; %s", error, fix)
            return
        self._target = target

    def start(self) -> None:
        """Begin to ask the server, which has started."""
        if not self._target:
            return
        channel = grpc.aio.insecure_channel(self._target)
        stub = health_pb2_grpc.HealthStub(channel)
        task = asyncio.create_task(
            self._lateness.measure(lambda: stub.Check(health_pb2.HealthCheckRequest()))
        )
        self._ends.push_async_callback(channel.close, None)
        self._ends.callback(task.cancel)

    async def stop(self) -> None:
        """Stop asking, and remove the socket; idempotent."""
        await self._ends.aclose()
