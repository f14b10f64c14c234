"""Build the parts of a serving process from the settings."""

import logging
import math
import random
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry

from extproc.budget.learner import Learner
from extproc.budget.values import Observation
from extproc.build import build_rules
from extproc.config.settings import ListenSettings, Settings, Transport
from extproc.service.bearer import BearerToken
from extproc.service.certificates import CertificateFiles, Certificates
from extproc.service.grpc_server import GrpcServer
from extproc.service.h2_server import H2Server
from extproc.service.streams import Bounds, Server
from extproc.stream.exchange import Stages, create_series
from extproc.stream.metrics import Metrics
from extproc.stream.stream import StreamOutcome


def build_stages(
    settings: Settings,
    learner: Learner,
    learn: Callable[[Observation], None],
    registry: CollectorRegistry,
) -> Stages:
    """Build what all streams of a process share. `learn` receives every observation."""
    stages = Stages(
        rules=build_rules(settings),
        learner=learner,
        learn=learn,
        metrics=Metrics(registry),
        clock=time.perf_counter,
        draw=random.random,
    )
    create_series(stages)
    for outcome in StreamOutcome:
        stages.metrics.streams_ended.labels(outcome.value)
    return stages


def build_server(settings: Settings, stages: Stages, address: str) -> Server:
    """Build the server of one address on the configured transport. Raises CertificateError."""
    listen = settings.listen
    bounds = Bounds(
        message_bytes=listen.max_message_bytes,
        streams=listen.max_streams,
        body_s=listen.body_timeout_s,
        late_s=_late_s(settings),
    )
    if listen.transport is Transport.H2:
        return H2Server(stages, address, bounds)
    files = certificate_files(listen)
    return GrpcServer(stages, address, bounds, Certificates(files) if files else None)


def _late_s(settings: Settings) -> float:
    share = settings.listen.busy_share
    return share * settings.envoy.message_timeout_ms / 1000 if share else math.inf


def certificate_files(listen: ListenSettings) -> CertificateFiles | None:
    """Return the configured certificate files; None without TLS."""
    if not listen.tls_cert:
        return None
    client_ca = Path(listen.tls_client_ca) if listen.tls_client_ca else None
    return CertificateFiles(Path(listen.tls_cert), Path(listen.tls_key), client_ca)


def build_token(listen: ListenSettings) -> BearerToken | None:
    """Return the token of the HTTP side; None if none is needed. Raises TokenError."""
    return BearerToken(Path(listen.http_token_file)) if listen.http_token_file else None


def describe_settings(settings: Settings) -> dict[str, object]:
    """Return the settings that GET /state shows beside what was learnt."""
    return {
        "estimator": settings.budget.estimator.value,
        "target": settings.budget.target,
        "pools": {pool.name: pool.max_model_len for pool in settings.pools},
    }


def configure_logging(settings: Settings) -> None:
    """Log to standard error at the configured level."""
    logging.basicConfig(
        level=settings.log_level.value.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
