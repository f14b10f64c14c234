"""Keep asking the pools' servers for their load and their windows, whatever the settings become."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from extproc.config.errors import UserError
from extproc.config.settings import LoadSettings, PoolSettings, RowSettings, Settings
from extproc.routing.load.pool_load import PoolLoad, Tracker, describe
from extproc.service.certificates import CertificateError
from extproc.service.files import pool_tls
from extproc.service.polling import LoadQuestion, ModelsQuestion, Pace, Polled, Poller
from extproc.service.windows import Windows
from extproc.stream.metrics import LoadCollector, WindowCollector

# A server that computes a large prompt may take seconds to answer.
_MODELS_PACE = Pace(every_s=10.0, timeout_s=5.0, longest_s=60.0)

_log = logging.getLogger(__name__)


class PoolWatch:
    """Passes the load of the pools to `told` while `load.spill` is set.

    While `load.discover` is, it calls `resized` whenever `capped` returns other windows. Nobody is
    asked without these settings.
    """

    def __init__(
        self,
        settings: Settings,
        registry: CollectorRegistry,
        told: Callable[[Mapping[str, PoolLoad]], None],
        resized: Callable[[], None] = lambda: None,
    ) -> None:
        """Raises CertificateError if a pool's tls_ca cannot be read."""
        self._told, self._resized = told, resized
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

    def _build(self, settings: Settings) -> Sequence[Poller]:
        return [*self._load_poller(settings), *self._models_poller(settings)]

    def _load_poller(self, settings: Settings) -> Iterator[Poller]:
        load, pools = settings.load, settings.pools
        if not load.spill:
            return
        tracker = Tracker((pool.name for pool in pools), load.stale_s)
        pace = Pace(load.every_ms / 1000, load.timeout_ms / 1000)

        def tell() -> None:
            self._loads = tracker.loads(asyncio.get_running_loop().time())
            self._told(self._loads)

        question = LoadQuestion(tracker)
        yield Poller(list(map(_polled, pools)), pace, question, tell, self._polls)

    def _models_poller(self, settings: Settings) -> Iterator[Poller]:
        if not settings.load.discover:
            return
        question = ModelsQuestion(self._windows.discovery)
        # Of a shadow, the pools but the largest need not be there.
        polled = list(_reachable(settings.routed.pools))
        yield Poller(polled, _MODELS_PACE, question, self._look, self._polls)

    def _look(self) -> None:
        if self._windows.look():
            try:
                self._resized()
            except UserError as error:
                _log.error("the windows that servers state do not count: %s", error)


def _given(settings: Settings) -> tuple[LoadSettings, tuple[RowSettings, ...], bool]:
    return settings.load, settings.fleet, settings.shadow


def _log_fault(task: asyncio.Task[None]) -> None:
    # A fault here must not end the service: nothing is known of the pools from then on.
    if not task.cancelled() and (error := task.exception()):
        _log.error("the pools' servers are asked no more", exc_info=error)


def _reachable(pools: Sequence[PoolSettings]) -> Iterator[Polled]:
    """Yield the pools whose tls_ca the service can read: for the others the settings count."""
    for pool in pools:
        try:
            yield _polled(pool)
        except CertificateError as error:
            _log.info("%s is not asked for its window: %s", pool.name, error)


def _polled(pool: PoolSettings) -> Polled:
    tls = pool_tls(pool)
    return Polled(pool.name, pool.addresses, tls, pool.tls_name if tls else "")
