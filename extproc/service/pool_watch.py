"""Keep asking the pools' servers for their load, whatever the settings become."""

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from extproc.config.settings import LoadSettings, PoolSettings, Settings
from extproc.routing.load.pool_load import PoolLoad, Tracker, describe
from extproc.service.certificates import CertificateError
from extproc.service.polling import Pace, Polled, Poller
from extproc.stream.metrics import LoadCollector

_log = logging.getLogger(__name__)


class PoolWatch:
    """Passes the load of the pools to `told` while `load.spill` is set; nobody is asked before."""

    def __init__(
        self,
        settings: Settings,
        registry: CollectorRegistry,
        told: Callable[[Mapping[str, PoolLoad]], None],
    ) -> None:
        """Raises CertificateError if a pool's tls_ca cannot be read."""
        self._told = told
        self._polls: Counter[tuple[str, str]] = Counter()
        self._loads: Mapping[str, PoolLoad] = {}
        self._given = _given(settings)
        self._poller = self._build(settings)
        self._task: asyncio.Task[None] | None = None
        self._is_running = False
        registry.register(LoadCollector(lambda: self._loads, lambda: self._polls))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask within this context."""
        self._is_running = True
        self._begin()
        try:
            yield
        finally:
            self._is_running = False
            task = self._end()
            if task is not None:
                await asyncio.wait([task])

    def use(self, settings: Settings) -> None:
        """Go on with other settings. Raises CertificateError, and changes nothing then."""
        if _given(settings) == self._given:
            return
        self._poller = self._build(settings)
        self._given = _given(settings)
        self._end()
        self._loads = {}
        if self._is_running:
            self._begin()

    def describe(self) -> dict[str, object]:
        """Return the load of each pool, for GET /state."""
        return {name: describe(load) for name, load in self._loads.items()}

    def _begin(self) -> None:
        if self._poller is not None:
            self._task = asyncio.create_task(self._poller.run())
            self._task.add_done_callback(_log_fault)

    def _end(self) -> asyncio.Task[None] | None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        return task

    def _build(self, settings: Settings) -> Poller | None:
        load, pools = settings.load, settings.pools
        if not load.spill:
            return None
        tracker = Tracker((pool.name for pool in pools), load.stale_s)
        pace = Pace(load.every_ms / 1000, load.timeout_ms / 1000)
        return Poller(list(map(_polled, pools)), pace, tracker, self._tell, self._polls)

    def _tell(self, loads: Mapping[str, PoolLoad]) -> None:
        self._loads = loads
        self._told(loads)


def _given(settings: Settings) -> tuple[LoadSettings, tuple[PoolSettings, ...]]:
    return settings.load, settings.pools


def _log_fault(task: asyncio.Task[None]) -> None:
    # A fault here must not end the service: nothing is known of the pools from then on.
    if not task.cancelled() and (error := task.exception()):
        _log.error("the pools' servers are asked no more", exc_info=error)


def _polled(pool: PoolSettings) -> Polled:
    if not pool.tls_ca:
        return Polled(pool.name, pool.addresses)
    try:
        tls = ssl.create_default_context(cafile=pool.tls_ca)
    except OSError as error:
        fix = "put the file there for the service too, or set load.spill to false"
        text = f"{pool.tls_ca} (tls_ca of pool {pool.name}) cannot be read: {error}; {fix}"
        raise CertificateError(text) from error
    return Polled(pool.name, pool.addresses, tls, pool.tls_name)
