"""The service in one process: built once from the settings, and run to the end of its drain."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from extproc.admin import Admin
from extproc.budget import Estimator, Learnt, Observation
from extproc.calibration.calibrated import Calibrated
from extproc.calibration.prior import MEASURED
from extproc.category import Labels
from extproc.exchange import Stages
from extproc.learner import Learner
from extproc.metrics import LearntCollector, Metrics
from extproc.paper import PaperEstimator
from extproc.pools import Pool, limits
from extproc.routing import Rules
from extproc.server import Server
from extproc.settings import Estimator as EstimatorName
from extproc.settings import Settings, host_port

_log = logging.getLogger(__name__)


def build_rules(settings: Settings) -> Rules:
    """Take from the settings what decides a request."""
    return Rules(
        pools=tuple(Pool(p.name, p.max_model_len, p.threshold) for p in settings.pools),
        category_header=settings.categories.header,
        max_body_bytes=settings.requests.max_body_bytes,
    )


def build_learner(settings: Settings) -> Learner:
    """Build the estimator that the settings name, with nothing learnt."""
    return Learner(_estimator(settings), Labels(settings.categories.max))


def _estimator(settings: Settings) -> Estimator:
    budget = settings.budget
    if budget.estimator is EstimatorName.CALIBRATED:
        return Calibrated(
            MEASURED,
            limits(build_rules(settings).pools),
            target=budget.target,
            categories=settings.categories.max,
        )
    return PaperEstimator(
        beta=budget.beta,
        gamma=budget.gamma,
        prior_bytes_per_token=budget.prior_bytes_per_token,
        default_output_tokens=budget.default_output_tokens,
        categories=settings.categories.max,
    )


def build_state(settings: Settings, learnt: Learnt) -> dict[str, object]:
    """Say what was learnt, as GET /state does."""
    return {
        "estimator": settings.budget.estimator.value,
        "target": settings.budget.target,
        "categories": learnt.categories,
        "models": learnt.models,
        "limits": learnt.limits,
    }


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
        self._admin = Admin(registry, self._state, lambda: self._serving)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain. Raises OSError where it cannot listen."""
        listen = self._settings.listen
        await self._server.start()
        await self._admin.start(*host_port(listen.http))
        self._serving = True
        _log.info("serving: gRPC on %s, HTTP on %s", listen.grpc, listen.http)
        await stop.wait()
        self._serving = False
        _log.info("draining: running streams have %g s", listen.drain_s)
        await self._server.drain(listen.drain_s)
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
    return Stages(build_rules(settings), learner, learn, Metrics(registry), time.perf_counter)


def build_server(settings: Settings, stages: Stages, address: str) -> Server:
    """Build the gRPC server for one address."""
    return Server(stages, address, max_message_bytes=settings.listen.max_message_bytes)


def stop_on_signals(stop: asyncio.Event) -> None:
    """Set `stop` on SIGTERM and on SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
