"""`dualpool serve`: one process, or a supervisor with its workers, until a signal ends them."""

import logging
import sys

import uvloop
from prometheus_client import CollectorRegistry

from extproc.build import build_learner
from extproc.config.addresses import host_port, with_port
from extproc.config.settings import Settings
from extproc.page.decisions import Decisions
from extproc.page.digest import EVERY_S
from extproc.service.build import (
    build_page,
    build_reporter,
    build_server,
    build_stages,
    build_tenant_secret,
    build_token,
    choose_transport,
    configure_logging,
    describe_settings,
)
from extproc.service.http import HttpServer
from extproc.service.memory import keep_large_buffers, spare_modules
from extproc.service.repeating import repeating
from extproc.service.stopping import Stop, leave, log_stopping, stop_on_signals
from extproc.service.supervisor import Supervisor
from extproc.stream.metrics import WorkerMetrics

# A thread renders the HTTP pages. At CPython's 5 ms the event loop would wait that long for the
# interpreter lock, again after each system call.
_SWITCH_INTERVAL_S = 0.0002

_log = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal stops at once.

    Raises OSError if an address cannot be bound, CertificateError or TokenError for a wrong file.
    """
    configure_logging(settings)
    keep_large_buffers()
    spare_modules()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = Stop()
    stop_on_signals(stop)
    service = Service(settings) if settings.workers == 1 else Supervisor(settings)
    await service.run(stop)


class Service:
    """The service in one process: gRPC for Envoy, HTTP for the operator."""

    def __init__(self, settings: Settings) -> None:
        registry = CollectorRegistry()
        learner = build_learner(settings)
        secret = build_tenant_secret(settings)
        decisions = Decisions()
        stages = build_stages(settings, learner, learner.learn, registry, secret, decisions.note)
        learner.on_replaced = stages.metrics.forget_category
        self._listen = settings.listen
        self._workers = WorkerMetrics(registry)
        self._workers.configured.set(1)
        self._reporter = build_reporter(stages, decisions)
        self._page = build_page(settings, learner, self._workers)
        self._serving = False
        self._server = build_server(settings, stages, settings.listen.grpc)
        self._http = HttpServer(
            registry,
            learner,
            describe_settings(settings),
            lambda: self._serving,
            build_token(settings.listen),
            self._page,
        )

    async def run(self, stop: Stop) -> None:
        """Serve until `stop` is asked, then drain. Raises OSError if an address cannot be bound."""
        # HTTP first: if it fails, gRPC has not yet left the file of a Unix socket behind.
        http = await self._http.start(*host_port(self._listen.http))
        grpc = await self._server.start()
        self._set_serving(serving=True)
        _log.info(
            "serving: gRPC on %s (transport %s), HTTP on %s",
            with_port(self._listen.grpc, grpc),
            choose_transport(self._listen),
            with_port(self._listen.http, http),
        )
        async with repeating(self._report, EVERY_S):
            await stop.asked.wait()
            self._set_serving(serving=False)
            log_stopping(self._listen)
            await leave(self._server, self._listen, stop)
        await self._http.stop()

    def _report(self) -> None:
        self._page.overview.tell(0, self._reporter.digest())
        self._page.overview.tick()

    def _set_serving(self, *, serving: bool) -> None:
        self._serving = serving
        self._workers.ready.set(serving)
