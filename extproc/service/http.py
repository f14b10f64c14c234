"""The HTTP side: /metrics, /healthz, /readyz, /state and /lengths."""

from collections.abc import Callable, Mapping

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


class Admin:
    """Serves what the process says of itself."""

    def __init__(
        self,
        registry: CollectorRegistry,
        state: Callable[[], Mapping[str, object]],
        lengths: Callable[[], bytes],
        ready: Callable[[], bool],
    ) -> None:
        self._registry, self._state, self._ready = registry, state, ready
        self._lengths = lengths
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port. Raises OSError where that is impossible."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/state", self._show_state),
                web.get("/lengths", self._show_lengths),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _request: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"content-type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _request: web.Request) -> web.Response:
        if self._ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text="not ready\n")

    async def _show_lengths(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._lengths(), content_type="application/json")

    async def _show_state(self, _request: web.Request) -> web.Response:
        body = msgspec.json.format(msgspec.json.encode(self._state()), indent=2)
        return web.Response(body=body, content_type="application/json")
