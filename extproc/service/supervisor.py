"""Several processes as one service: a gRPC address for each worker, one HTTP address for all.

The supervisor serves no streams. It starts the workers, replaces one that ends, passes the
observations of each to the others, and serves HTTP for all: the sum of their metrics, and what was
learnt, from a learner of its own that learns every observation.

Invariants: after all workers have served once, no fault of one ends the service or another worker.
All processes learn the same observations in the same order: that in which the supervisor does.
"""

import asyncio
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry

from extproc.budget.learner import Learner
from extproc.budget.values import Observation
from extproc.build import build_learner, retune
from extproc.config.addresses import host_port, with_port, worker_addresses
from extproc.config.settings import Settings
from extproc.page.digest import EVERY_S
from extproc.routing.load.pool_load import PoolLoad
from extproc.service.build import (
    build_mark,
    build_shared,
    build_state,
    build_tenant_secret,
    build_token,
    configure_logging,
    describe_settings,
    describe_state,
)
from extproc.service.build_page import build_page, renew_page
from extproc.service.certificates import read_certificates
from extproc.service.channel import (
    DIGEST,
    EMPTY,
    LINE_BYTES,
    Order,
    OverlongLine,
    decode,
    decode_digest,
    encode,
    encode_loads,
    encode_replicas,
    encode_snapshot,
)
from extproc.service.compiled import engine
from extproc.service.files import certificate_files
from extproc.service.http import HttpServer
from extproc.service.journal import Journal
from extproc.service.pool_watch import Counting, PoolWatch
from extproc.service.reload import Reloader, Source
from extproc.service.repeating import repeating
from extproc.service.state_file import keeping, write_file
from extproc.service.stopping import Stop, first_of, log_stopping
from extproc.service.worker_files import WorkerFilesCollector
from extproc.service.worker_process import EXIT_S, WorkerProcess
from extproc.state.snapshot import MOST_BYTES
from extproc.state.snapshot import encode as encode_file
from extproc.stream.metrics import WorkerMetrics

_RESTART_S = 1.0

_log = logging.getLogger(__name__)


class Supervisor:
    """Runs settings.workers processes."""

    def __init__(self, settings: Settings, source: Source) -> None:
        if files := certificate_files(settings.listen):
            read_certificates(files)  # one message, not one from each worker
        self._token = build_token(settings.listen)
        self._tenant_secret = build_tenant_secret(settings)
        self._settings, self._mark = settings, build_mark(settings, self._tenant_secret)
        self._addresses = worker_addresses(settings.listen.grpc, settings.workers)
        self._learner = build_learner(settings)
        self._workers: dict[int, WorkerProcess] = {}
        # Those that learn what the supervisor learns, with what ends it: that they fell behind.
        self._following: dict[WorkerProcess, asyncio.Event] = {}
        self._served: set[int] = set()  # have served at least once
        self._ready: set[int] = set()  # serve now
        self._stopping = False
        self._registry = CollectorRegistry()
        self._metrics = WorkerMetrics(self._registry)
        self._metrics.configured.set(len(self._addresses))
        self._journal = Journal(
            self._learner, self._metrics.dropped.inc, self._tell, self._have_all_continue
        )
        mark = lambda: self._mark  # noqa: E731 - other settings may have another
        self._state = build_state(settings, mark, self._build, self._registry)
        self._shared = build_shared(settings, self._journal, mark, self._build, self._registry)
        self._observe = self._shared.observe if self._shared else self._journal.apply
        if self._shared:
            self._shared.on_replicas = self._share
        counting = Counting(self._learner.knows, self._observe)
        self._watch = PoolWatch(settings, self._registry, self._pass_on, self._resize, counting)
        self._page = build_page(
            settings, self._learner, self._metrics, self._watch, self._shared or self._state
        )
        self._reloader = Reloader(settings, source, self._use, self._metrics)
        self._described = describe_settings(settings)

    async def run(self, stop: Stop) -> None:
        """Serve until `stop` is asked, then drain. Raises OSError if an address cannot be bound."""
        with _metrics_folder() as folder:
            WorkerFilesCollector(self._registry, path=str(folder))  # type: ignore[no-untyped-call]
            http = HttpServer(
                self._registry,
                self._learner,
                self._describe,
                self._is_ready,
                self._token,
                self._page,
            )
            port = await http.start(*host_port(self._settings.listen.http))
            _log.info("HTTP on %s", with_port(self._settings.listen.http, port))
            try:
                async with (
                    self._watch.running(),
                    repeating(self._page.overview.tick, EVERY_S),
                    keeping(self._state, self._journal),
                    self._shared.sharing() if self._shared else nullcontext(),
                    self._reloader.watching(),
                ):
                    await self._supervise(folder, stop)
            finally:
                await http.stop()

    def _pass_on(self, loads: Mapping[str, PoolLoad]) -> None:
        """Tell the workers the load of the pools: one process asks for all."""
        line = encode_loads(loads)
        for worker in self._workers.values():
            worker.send(line)

    def _describe(self) -> dict[str, object]:
        load = {"load": self._watch.describe()} if self._settings.load.spill else {}
        seen = self._watch.describe_windows()
        return {**self._described, **describe_state(self._state, self._shared), **seen, **load}

    def _share(self, replicas: int) -> None:
        """Have this service pass on its share of the observations of so many replicas."""
        if replicas != self._learner.replicas:
            self._learner.share(replicas)
            for worker in self._workers.values():
                worker.send(encode_replicas(replicas))

    async def _supervise(self, folder: Path, stop: Stop) -> None:
        keeping = [
            asyncio.create_task(self._keep(index, folder)) for index in range(len(self._addresses))
        ]
        await first_of(stop.asked, *keeping)
        if not stop.asked.is_set():  # a worker could not start
            stop.at_once.set()
        await self._leave(keeping, stop)
        for task in keeping:
            task.result()

    async def _leave(self, keeping: list[asyncio.Task[None]], stop: Stop) -> None:
        self._stopping = True
        listen = self._settings.listen
        # Three steps, each for workers that did not follow the one before: ask, close the channel,
        # kill.
        for worker in self._workers.values():
            worker.ask_to_drain()
        ended = asyncio.gather(*keeping, return_exceptions=True)
        if not stop.at_once.is_set():
            log_stopping(listen)
        await first_of(stop.at_once, ended, timeout_s=listen.notice_s + listen.drain_s + EXIT_S)
        for worker in self._workers.values():
            worker.end()
        await asyncio.wait([ended], timeout=EXIT_S)
        for worker in self._workers.values():
            worker.kill()
        await ended

    def _is_ready(self) -> bool:
        # At the start all must serve, so that a rollout does not go on with a part of the capacity
        # or with a worker that cannot start. Later one is enough: Envoy leaves out the others.
        started = len(self._served) == len(self._addresses)
        return started and bool(self._ready) and not self._stopping

    async def _keep(self, index: int, folder: Path) -> None:
        """Run a worker, and another after each that ends. Raises OSError if none has served."""
        while not self._stopping:
            try:
                await self._run_one(index, folder)
            except Exception:
                if index not in self._served:
                    raise
                _log.exception("cannot run worker %d", index)
            if self._stopping:
                return
            if index not in self._served:
                raise OSError(f"worker {index} could not start; its own message is above")
            _log.error("worker %d has ended; restarting it in %g s", index, _RESTART_S)
            self._metrics.restarts.inc()
            await asyncio.sleep(_RESTART_S)

    async def _run_one(self, index: int, folder: Path) -> None:
        order = self._order(index)
        worker = await WorkerProcess.start(order, folder)
        self._workers[index] = worker
        if order != (latest := self._order(index)):
            worker.change(latest)
        try:
            if self._stopping:  # it was starting when the others were asked
                worker.end()
            async with asyncio.TaskGroup() as tasks:
                following = tasks.create_task(self._follow(index, worker, folder))
                await self._listen(index, worker)
                following.cancel()
        finally:
            self._following.pop(worker, None)
            self._ready.discard(index)
            self._metrics.ready.set(len(self._ready))
            await worker.wait(folder)
            del self._workers[index]

    def _order(self, index: int) -> Order:
        settings = self._used.model_dump_json()
        return Order(settings, self._addresses[index], self._tenant_secret.hex())

    def _use(self, settings: Settings) -> None:
        """Go on with other settings. Raises UserError, and changes nothing then."""
        secret = build_tenant_secret(settings, self._tenant_secret)
        self._watch.use(settings)
        self._tenant_secret = secret
        self._settings, self._mark = settings, build_mark(settings, secret)
        self._resize()
        self._described.update(describe_settings(settings))
        configure_logging(settings)

    @property
    def _used(self) -> Settings:
        """The settings, with the windows that the servers state."""
        return self._watch.capped(self._settings)

    def _resize(self) -> None:
        """Go on with the settings, and the windows that the servers state. Raises UserError."""
        renew_page(self._page, self._used, self._learner)
        self._journal.run(self._retune)
        if self._shared:
            self._shared.retuned()

    def _retune(self) -> None:
        retune(self._learner, self._used)
        for index, worker in self._workers.items():
            worker.change(self._order(index))

    def _build(self) -> Learner:
        return build_learner(self._used)

    async def _follow(self, index: int, worker: WorkerProcess, folder: Path) -> None:
        """Have a worker continue from what was learnt, again whenever it is too far behind."""
        path = folder / f"learnt{index}"
        while True:
            behind = asyncio.Event()
            await worker.has_read()
            async with self._journal.held():
                if self._journal.changes and await self._write_copy(path):
                    worker.send(encode_snapshot(path))
                self._following[worker] = behind
                if self._learner.replicas > 1:
                    worker.send(encode_replicas(self._learner.replicas))
            await behind.wait()
            _log.warning("worker %d continues from a copy of what was learnt", index)

    def _have_all_continue(self) -> None:
        """Have all workers continue from a copy of what was learnt, which was replaced."""
        for behind in self._following.values():
            behind.set()
        self._following.clear()

    async def _write_copy(self, path: Path) -> bool:
        """Write what was learnt; return False if that fails: a worker can do without it."""
        chunks = encode_file(await self._journal.take(), self._mark)
        try:
            if await asyncio.to_thread(write_file, path, chunks) is not None:
                return True
            reason = f"it exceeds {MOST_BYTES} bytes"
        except OSError as error:
            reason = f"{path.parent}: {error.strerror}"
        _log.error("a worker goes on without what was learnt before: %s", reason)
        return False

    def _tell(self, seen: Observation) -> None:
        line = encode(seen)
        for worker, behind in list(self._following.items()):
            if not worker.send_soon(line):
                del self._following[worker]
                behind.set()

    async def _listen(self, index: int, worker: WorkerProcess) -> None:
        try:
            async for line in worker.lines():
                if line == EMPTY:
                    self._note_ready(index)
                elif line.startswith(DIGEST):
                    self._show(index, line)
                else:
                    self._learn(index, line)
        except OverlongLine:
            _log.error("worker %d sent a line of more than %d bytes; killing it", index, LINE_BYTES)
            self._metrics.dropped.inc()
            worker.kill()

    def _note_ready(self, index: int) -> None:
        self._served.add(index)
        self._ready.add(index)
        self._metrics.ready.set(len(self._ready))
        _log.info("worker %d serves %s (%s)", index, self._addresses[index], engine())

    def _show(self, index: int, line: bytes) -> None:
        try:
            self._page.overview.tell(index, decode_digest(line))
        except Exception:  # noqa: BLE001 - as for _learn
            _log.exception("worker %d sent a digest that cannot be read; dropping it", index)
            self._metrics.dropped.inc()

    def _learn(self, index: int, line: bytes) -> None:
        try:
            seen = decode(line)
        except (msgspec.MsgspecError, ValueError):
            _log.exception("worker %d sent a line that cannot be read; dropping it", index)
            self._metrics.dropped.inc()
        else:
            self._observe(seen)


@contextmanager
def _metrics_folder() -> Iterator[Path]:
    """Make a folder for the workers' metrics; remove it at the end. Raises OSError."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="dualpool-")
    except OSError as error:
        fix = "set TMPDIR to a folder that this user may write to"
        raise OSError(f"no folder for the workers' metrics: {error.strerror}; {fix}") from error
    with folder as name:
        yield Path(name)
