"""`dualpool serve`: one process, or a supervisor with its workers, until a signal ends them."""

import logging
import sys
from collections.abc import Mapping
from contextlib import nullcontext

import uvloop
from prometheus_client import CollectorRegistry

from extproc.budget.learner import Learner
from extproc.build import build_learner, retune
from extproc.config.addresses import host_port, with_port
from extproc.config.settings import Settings
from extproc.page.decisions import Decisions
from extproc.page.digest import EVERY_S
from extproc.routing.load.pool_load import PoolLoad
from extproc.service.build import (
    build_mark,
    build_reporter,
    build_server,
    build_shared,
    build_stages,
    build_state,
    build_tenant_secret,
    build_token,
    choose_transport,
    configure_logging,
    describe_settings,
    describe_state,
    renew_stages,
)
from extproc.service.build_page import build_page, renew_page
from extproc.service.compiled import engine
from extproc.service.http import HttpServer
from extproc.service.journal import Journal
from extproc.service.memory import keep_large_buffers, spare_modules
from extproc.service.pool_watch import Counting, PoolWatch
from extproc.service.reload import Reloader, Source
from extproc.service.repeating import repeating
from extproc.service.state_file import keeping
from extproc.service.stopping import Stop, leave, log_stopping, stop_on_signals
from extproc.stream.metrics import WorkerMetrics

# A thread renders the HTTP pages. At CPython's 5 ms the event loop would wait that long for the
# interpreter lock, again after each system call.
SWITCH_INTERVAL_S = 0.0002

_log = logging.getLogger(__name__)


def serve(settings: Settings, source: Source) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal stops at once.

    SIGHUP and a change of the source's file load the settings again.
    Raises OSError if an address cannot be bound, CertificateError or TokenError for a wrong file.
    """
    configure_logging(settings)
    keep_large_buffers()
    spare_modules()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    uvloop.run(_serve(settings, source))


async def _serve(settings: Settings, source: Source) -> None:
    stop = Stop()
    stop_on_signals(stop)
    if settings.workers == 1:
        await Service(settings, source).run(stop)
        return
    # Imported where it is used: a single process needs none of it.
    from extproc.service.supervisor import Supervisor

    await Supervisor(settings, source).run(stop)


class Service:
    """The service in one process: gRPC for Envoy, HTTP for the operator."""

    def __init__(self, settings: Settings, source: Source) -> None:
        registry = CollectorRegistry()
        self._learner = learner = build_learner(settings)
        self._secret = build_tenant_secret(settings)
        decisions = Decisions()
        self._workers = WorkerMetrics(registry)
        self._journal = Journal(learner, self._workers.dropped.inc)
        self._settings, self._mark = settings, build_mark(settings, self._secret)
        mark = lambda: self._mark  # noqa: E731 - other settings may have another
        self._state = build_state(settings, mark, self._build, registry)
        self._shared = build_shared(settings, self._journal, mark, self._build, registry)
        self._observe = self._shared.observe if self._shared else self._journal.apply
        if self._shared:
            self._shared.on_replicas = learner.share
        self._stages = stages = build_stages(
            settings, learner, self._observe, registry, self._secret, decisions.note
        )
        learner.on_replaced = stages.metrics.forget_category
        self._listen = settings.listen
        self._transport = choose_transport(settings)
        self._workers.configured.set(1)
        self._reporter = build_reporter(stages, decisions)
        counting = Counting(learner.knows, self._observe)
        self._watch = PoolWatch(settings, registry, self._tell, self._retune, counting)
        self._page = build_page(
            settings, learner, self._workers, self._watch, self._shared or self._state
        )
        self._reloader = Reloader(settings, source, self._use, self._workers)
        self._described = describe_settings(settings)
        self._serving = False
        self._server = build_server(settings, stages, settings.listen.grpc)
        self._http = HttpServer(
            registry,
            learner,
            self._describe,
            lambda: self._serving,
            build_token(settings.listen),
            self._page,
        )

    async def run(self, stop: Stop) -> None:
        """Serve until `stop` is asked, then drain. Raises OSError if an address cannot be bound."""
        # HTTP first: if it fails, gRPC has not yet left the file of a Unix socket behind.
        http = await self._http.start(*host_port(self._listen.http))
        sharing = self._shared.sharing() if self._shared else nullcontext()
        async with keeping(self._state, self._journal), sharing:
            await self._serve(stop, http)
        await self._http.stop()

    async def _serve(self, stop: Stop, http: int) -> None:
        grpc = await self._server.start()
        self._set_serving(serving=True)
        _log.info(
            "serving: gRPC on %s (transport %s, %s), HTTP on %s",
            with_port(self._listen.grpc, grpc),
            self._transport,
            engine(),
            with_port(self._listen.http, http),
        )
        reporting = repeating(self._report, EVERY_S)
        async with self._watch.running(), reporting, self._reloader.watching():
            await stop.asked.wait()
            self._set_serving(serving=False)
            log_stopping(self._listen)
            await leave(self._server, self._listen, stop)

    def _use(self, settings: Settings) -> None:
        """Go on with other settings. Raises UserError, and changes nothing then."""
        secret = build_tenant_secret(settings, self._secret)
        self._watch.use(settings)
        self._secret, self._settings = secret, settings
        self._mark = build_mark(settings, secret)
        self._retune()
        self._described.update(describe_settings(settings))
        configure_logging(settings)

    def _retune(self) -> None:
        """Go on with the settings, and the windows that the servers state. Raises UserError."""
        used = self._watch.capped(self._settings)
        stages = renew_stages(self._stages, used, self._observe, self._secret)
        self._journal.run(lambda: retune(self._learner, used))
        if self._shared:
            self._shared.retuned()
        self._stages = stages
        self._server.use(stages)
        renew_page(self._page, used, self._learner)

    def _build(self) -> Learner:
        return build_learner(self._watch.capped(self._settings))

    def _tell(self, loads: Mapping[str, PoolLoad]) -> None:
        if self._stages.spill is not None:
            self._stages.spill.tell(loads)

    def _describe(self) -> dict[str, object]:
        spill = self._stages.spill
        load = {"load": spill.describe()} if spill is not None else {}
        seen = self._watch.describe_windows()
        return {**self._described, **describe_state(self._state, self._shared), **seen, **load}

    def _report(self) -> None:
        self._page.overview.tell(0, self._reporter.digest())
        self._page.overview.tick()

    def _set_serving(self, *, serving: bool) -> None:
        self._serving = serving
        self._workers.ready.set(serving)
