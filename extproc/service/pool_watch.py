"""Keep asking the pools' servers for their load and their windows, whatever the settings become."""

import asyncio
import importlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry

from extproc.budget.values import Observation
from extproc.config.errors import UserError
from extproc.config.settings import LoadSettings, RowSettings, Settings
from extproc.routing.load.pool_load import PoolLoad, Tracker, describe
from extproc.service.windows import Windows
from extproc.stream.metrics import LoadCollector, WindowCollector

if TYPE_CHECKING:
    from extproc.service.polling import Poller

_log = logging.getLogger(__name__)


class Counting(NamedTuple):
    """What tells whether a model needs no counts of samples, and what learns from them."""

    knows: Callable[[str], bool]
    teach: Callable[[Observation], None]


class PoolWatch:
    """Passes the load of the pools to `told` while `load.spill` is set.

    While `load.discover` is, it calls `resized` whenever `capped` returns other windows, and has
    models that are new counted. Nobody is asked without these settings.
    """

    def __init__(
        self,
        settings: Settings,
        registry: CollectorRegistry,
        told: Callable[[Mapping[str, PoolLoad]], None],
        resized: Callable[[], None] = lambda: None,
        counting: Counting | None = None,
    ) -> None:
        """`counting` takes what servers count of samples for models that are discovered.

        Raises CertificateError if a pool's tls_ca cannot be read.
        """
        self._told, self._resized, self._counting = told, resized, counting
        self._polls: Counter[tuple[str, str, str]] = Counter()
        self._loads: Mapping[str, PoolLoad] = {}
        self._windows = Windows(settings)
        self._settings = settings
        self._pollers = self._build(settings)
        self._tasks: list[asyncio.Task[None]] = []
        self._is_running = False
        registry.register(LoadCollector(lambda: self._loads, lambda: self._polls))
        registry.register(WindowCollector(self._windows.sizes, self._windows.counts))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask within this context."""
        self._is_running = True
        self._begin()
        try:
            yield
        finally:
            self._is_running = False
            if tasks := self._end():
                await asyncio.wait(tasks)

    def use(self, settings: Settings) -> None:
        """Go on with other settings. Raises CertificateError, and changes nothing then."""
        if _given(settings) == _given(self._settings):
            return
        self._pollers = self._build(settings)
        self._windows.use(settings)
        self._settings = settings
        self._end()
        self._loads = {}
        if self._is_running:
            self._begin()

    def capped(self, settings: Settings) -> Settings:
        """Return settings with the smaller ones of their windows and those that servers state."""
        return self._windows.capped(settings)

    def describe(self) -> dict[str, object]:
        """Return the load of each pool, for GET /state."""
        return {name: describe(load) for name, load in self._loads.items()}

    def seen(self) -> dict[str, dict[str, object]]:
        """Return what the page shows of each pool: its window in the settings, and its load."""
        loads = self.describe()
        return {
            pool.name: {"stated": pool.max_model_len}
            | ({"load": loads[pool.name]} if pool.name in loads else {})
            for pool in self._settings.pools
        }

    def counts(self) -> dict[str, float]:
        """Return how often servers were asked, by the keys of page.counts."""
        return {f"dualpool_pool_polls_total {' '.join(key)}": n for key, n in self._polls.items()}

    def describe_windows(self) -> dict[str, object]:
        """Return what the servers of each pool state of themselves, for GET /state."""
        return {"discovered": self._windows.describe()} if self._settings.load.discover else {}

    def _begin(self) -> None:
        for poller in self._pollers:
            task = asyncio.create_task(poller.run())
            task.add_done_callback(_log_fault)
            self._tasks.append(task)

    def _end(self) -> list[asyncio.Task[None]]:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        return tasks

    def _build(self, settings: Settings) -> "list[Poller]":
        return [*self._load_poller(settings), *self._models_poller(settings)]

    def _load_poller(self, settings: Settings) -> "Iterator[Poller]":
        if not settings.load.spill:
            return
        from extproc.service.build_pollers import build_load_poller

        tracker = Tracker((pool.name for pool in settings.pools), settings.load.stale_s)

        def tell() -> None:
            self._loads = tracker.loads(asyncio.get_running_loop().time())
            self._told(self._loads)

        yield build_load_poller(settings, tracker, tell, self._polls)

    def _models_poller(self, settings: Settings) -> "Iterator[Poller]":
        if not settings.load.discover:
            return
        from extproc.service.build_pollers import build_models_poller, build_tokenize_poller

        yield build_models_poller(settings, self._windows.discovery, self._look, self._polls)
        if self._counting:
            yield build_tokenize_poller(
                settings, self._windows.discovery, *self._counting, self._polls
            )

    def _look(self) -> None:
        if self._windows.look():
            try:
                self._resized()
            except UserError as error:
                _log.error("the windows that servers state do not count: %s", error)


def prepare(settings: Settings) -> None:
    """Import what asks the servers, if they are asked: it takes a tenth of a second."""
    if settings.load.spill or settings.load.discover:
        importlib.import_module("extproc.service.build_pollers")


def _given(settings: Settings) -> tuple[LoadSettings, tuple[RowSettings, ...], bool]:
    return settings.load, settings.fleet, settings.shadow


def _log_fault(task: asyncio.Task[None]) -> None:
    # A fault here must not end the service: nothing is known of the pools from then on.
    if not task.cancelled() and (error := task.exception()):
        _log.error("the pools' servers are asked no more", exc_info=error)
