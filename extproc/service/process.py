"""The service in one process: built once from the settings, and run to the end of its drain."""

import asyncio
import logging
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from extproc.budget.learner import Learner
from extproc.budget.values import Learnt, Observation
from extproc.build import build_learner, build_rules
from extproc.config.settings import ListenSettings, Settings, host_port
from extproc.service.certificates import CertificateFiles, Certificates
from extproc.service.http import Admin
from extproc.service.server import Bounds, Server
from extproc.stream.exchange import Stages, begin_counting
from extproc.stream.metrics import LearntCollector, Metrics

_log = logging.getLogger(__name__)


def build_state(settings: Settings, learnt: Learnt) -> dict[str, object]:
    """Say what was learnt, as GET /state does."""
    return {
        "estimator": settings.budget.estimator.value,
        "target": settings.budget.target,
        "pools": {pool.name: pool.max_model_len for pool in settings.pools},
        "categories": learnt.categories,
        "models": learnt.models,
        "limits": learnt.limits,
    }


class Stop:
    """What ends the service: asked once, it leaves in good time; asked again, at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()

    def ask(self) -> None:
        """Ask to end."""
        (self.at_once if self.asked.is_set() else self.asked).set()


class Service:
    """One process: gRPC for Envoy, HTTP for the operator."""

    def __init__(self, settings: Settings) -> None:
        registry = CollectorRegistry()
        self._learner = build_learner(settings)
        self._settings = settings
        self._serving = False
        registry.register(LearntCollector(self._learner.learnt))
        stages = build_stages(settings, self._learner, self._learner.learn, registry)
        self._server = build_server(settings, stages, settings.listen.grpc)
        self._admin = Admin(
            registry, self._state, self._learner.lengths.to_json, lambda: self._serving
        )

    async def run(self, stop: Stop) -> None:
        """Serve until `stop` is asked, then leave. Raises OSError where it cannot listen."""
        listen = self._settings.listen
        # First what can fail without a trace: gRPC leaves its socket's file behind.
        await self._admin.start(*host_port(listen.http))
        await self._server.start()
        self._serving = True
        _log.info("serving: gRPC on %s, HTTP on %s", listen.grpc, listen.http)
        await stop.asked.wait()
        self._serving = False
        log_end(listen)
        await leave(self._server, listen, stop)
        await self._admin.stop()

    def _state(self) -> dict[str, object]:
        return build_state(self._settings, self._learner.learnt())


def build_stages(
    settings: Settings,
    learner: Learner,
    learn: Callable[[Observation], None],
    registry: CollectorRegistry,
) -> Stages:
    """Put together what exchanges share."""
    stages = Stages(
        rules=build_rules(settings),
        learner=learner,
        learn=learn,
        metrics=Metrics(registry),
        clock=time.perf_counter,
        draw=random.random,
    )
    begin_counting(stages)
    return stages


def build_server(settings: Settings, stages: Stages, address: str) -> Server:
    """Build the gRPC server for one address."""
    files = certificate_files(settings.listen)
    certificates = Certificates(files) if files else None
    bounds = Bounds(message_bytes=settings.listen.max_message_bytes)
    return Server(stages, address, bounds, certificates)


def certificate_files(listen: ListenSettings) -> CertificateFiles | None:
    """Take from the settings which certificates the service has; None: it speaks without TLS."""
    if not listen.tls_cert:
        return None
    client_ca = Path(listen.tls_client_ca) if listen.tls_client_ca else None
    return CertificateFiles(Path(listen.tls_cert), Path(listen.tls_key), client_ca)


def stop_on_signals(stop: Stop) -> None:
    """Ask `stop` on each SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)


def log_end(listen: ListenSettings) -> None:
    """Tell the operator how long the end takes."""
    _log.info(
        "leaving: new streams for %d s more, then %d s for open ones; a second signal ends at once",
        listen.notice_s,
        listen.drain_s,
    )


async def leave(server: Server, listen: ListenSettings, stop: Stop) -> None:
    """Say that we leave, serve on for notice_s, refuse new streams, give open ones drain_s."""
    await server.announce_end()
    await first_of(stop.at_once, timeout_s=listen.notice_s)
    drained = asyncio.create_task(server.drain(listen.drain_s))
    await first_of(stop.at_once, drained)
    if not drained.done():
        await server.drain(0)
    await drained


async def first_of(
    event: asyncio.Event, *work: asyncio.Future[Any], timeout_s: float | None = None
) -> None:
    """Wait until the event is set, any of the work is done, or the time is over."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([waiting, *work], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
