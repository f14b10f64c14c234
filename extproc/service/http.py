"""The operator's HTTP side: /metrics, /healthz, /readyz, /state and /lengths.

Invariant: no page holds the event loop for more than a few milliseconds, however much was learnt,
because streams wait meanwhile. The learner is read on the loop, a slice at a time; a thread writes
the page.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry

from extproc.budget.learner import Learner
from extproc.budget.lengths import write_lengths
from extproc.budget.values import Learnt
from extproc.service.pages import collector_paused, in_slices, write_metrics, write_state

_Part = TypeVar("_Part")


class HttpServer:
    """Serves metrics, health and what was learnt.

    `described` is shown by /state beside what was learnt.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        learner: Learner,
        described: Mapping[str, object],
        is_ready: Callable[[], bool],
    ) -> None:
        self._registry, self._learner = registry, learner
        self._described, self._is_ready = described, is_ready
        self._writing = asyncio.Lock()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port. Raises OSError if the address cannot be bound."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/state", self._state),
                web.get("/lengths", self._lengths),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.stop()
            raise OSError(_bind_fault(host, port, error)) from error
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        if self._is_ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text="not ready\n")

    async def _metrics(self, _request: web.Request) -> web.Response:
        def write(parts: list[Learnt]) -> bytes:
            return write_metrics(self._registry, Learnt.merged(parts))

        body = await self._write(self._learner.learnt_parts(), write)
        return web.Response(body=body, headers={"content-type": CONTENT_TYPE_LATEST})

    async def _state(self, _request: web.Request) -> web.Response:
        def write(parts: list[Learnt]) -> bytes:
            return write_state(self._described, Learnt.merged(parts))

        body = await self._write(self._learner.learnt_parts(), write)
        return web.Response(body=body, content_type="application/json")

    async def _lengths(self, _request: web.Request) -> web.Response:
        body = await self._write(self._learner.lengths.rows(), write_lengths)
        return web.Response(body=body, content_type="application/json")

    async def _write(self, parts: Iterator[_Part], write: Callable[[list[_Part]], bytes]) -> bytes:
        # One page at a time: a second thread would only compete for the interpreter lock.
        async with self._writing:
            with collector_paused():
                taken = await in_slices(parts)
                return await asyncio.to_thread(_write_and_free, write, taken)


def _write_and_free(write: Callable[[list[_Part]], bytes], parts: list[_Part]) -> bytes:
    # What is freed here need not be traversed when the garbage collector resumes.
    page = write(parts)
    parts.clear()
    return page


def _bind_fault(host: str, port: int, error: OSError) -> str:
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    fix = "stop what listens there, or change listen.http to an address of this machine"
    return f"cannot listen on {host}:{port} for HTTP: {reason}; {fix}"
