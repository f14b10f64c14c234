"""Build the parts of a serving process from the settings."""

import logging
import math
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry

from extproc.budget.learner import Learner
from extproc.budget.values import Observation
from extproc.build import build_rules, build_spill
from extproc.config.addresses import host_port, is_of_this_machine
from extproc.config.errors import UserError
from extproc.config.settings import (
    MESSAGE_OVERHEAD,
    ListenSettings,
    RowSettings,
    Settings,
    StickyBy,
    Transport,
)
from extproc.names import install_hint
from extproc.page.decisions import Decisions
from extproc.page.digest import Reporter
from extproc.routing.load.spill import Spill
from extproc.routing.route import Rules
from extproc.routing.sticky import StickyPools
from extproc.service.bearer import BearerToken, read_secret
from extproc.service.files import certificate_files, state_path
from extproc.service.h2_server import H2Server
from extproc.service.journal import Journal
from extproc.service.state_file import StateFile
from extproc.service.streams import Bounds, Server
from extproc.state.snapshot import fingerprint
from extproc.stream.exchange import create_series
from extproc.stream.metrics import Metrics, SharedMetrics, StateMetrics
from extproc.stream.sampling import Sampling
from extproc.stream.stages import OnDecided, OnSpent, Stages
from extproc.stream.stream import StreamOutcome
from extproc.stream.thinning import Allowance, Thinning

if TYPE_CHECKING:
    from extproc.service.grpc_server import BeginTrace
    from extproc.service.shared_state import SharedState, StoreAddress

_SECRET_BYTES: Final = 32
_LEAST_MESSAGE_BYTES: Final = 1 << 20  # room for all headers


def build_stages(
    settings: Settings,
    learner: Learner,
    learn: Callable[[Observation], None],
    registry: CollectorRegistry,
    tenant_secret: bytes,
    decided: OnDecided = lambda *_: None,
) -> Stages:
    """Build what all streams of a process share.

    `learn` receives the observations to learn, `decided` every decision.
    """
    rules = build_rules(settings, tenant_secret)
    stages = Stages(
        spill=_spill(settings, rules),
        sticky_pools=_sticky_pools(settings, None),
        rules=rules,
        learner=learner,
        learn=_thinning(settings, learner, learn, rules).learn,
        metrics=Metrics(registry),
        clock=time.perf_counter,
        draw=random.random,
        sampling=Sampling(time.perf_counter),
        decided=decided,
        spent=_build_meter(settings),
    )
    _create_series(stages)
    return stages


def renew_stages(
    before: Stages, settings: Settings, learn: Callable[[Observation], None], tenant_secret: bytes
) -> Stages:
    """Build stages for other settings, which count, sample and tell what those before did."""
    rules = build_rules(settings, tenant_secret)
    thinning = _thinning(settings, before.learner, learn, rules)
    spill = _spill(settings, rules)
    pools = _sticky_pools(settings, before.sticky_pools)
    stages = replace(before, rules=rules, learn=thinning.learn, spill=spill, sticky_pools=pools)
    _create_series(stages)
    return stages


def _spill(settings: Settings, rules: Rules) -> Spill | None:
    if not settings.load.spill:
        return None
    return build_spill(settings, rules.pools, time.perf_counter, random.random)


def _sticky_pools(settings: Settings, before: StickyPools | None) -> StickyPools | None:
    """Return what remembers conversations; those that are known stay."""
    if settings.sticky.by is StickyBy.NONE:
        return None
    pools = before or StickyPools(settings.sticky.max)
    pools.resize(settings.sticky.max)
    return pools


def _thinning(
    settings: Settings, learner: Learner, learn: Callable[[Observation], None], rules: Rules
) -> Thinning:
    # Each worker learns what any of them observes.
    allowance = Allowance(1.0 / settings.workers, settings.categories.models)
    return Thinning(learn, learner, rules.row, time.perf_counter, random.random, allowance)


def _create_series(stages: Stages) -> None:
    # All series begin at 0, so that rate() sees the first increment.
    create_series(stages)
    for outcome in StreamOutcome:
        stages.metrics.streams_ended.labels(outcome.value)


def build_reporter(stages: Stages, decisions: Decisions) -> Reporter:
    """Build what tells the page of the streams of a process."""
    metrics = stages.metrics
    few = (
        metrics.verdicts,
        metrics.misroutes,
        metrics.retries,
        metrics.answers,
        metrics.streams_ended,
        metrics.unread,
        metrics.decision_seconds,
    )
    return Reporter(decisions, few)


def build_server(settings: Settings, stages: Stages, address: str) -> Server:
    """Build the server of one address on the configured transport. Raises CertificateError."""
    listen = settings.listen
    bounds = Bounds(
        message_bytes=message_bytes(settings),
        streams=listen.max_streams,
        body_s=listen.body_timeout_s,
        late_s=_late_s(settings),
    )
    if choose_transport(settings) is Transport.H2:
        return H2Server(stages, address, bounds)
    # Imported where it serves: gRPC takes 8 MB of memory.
    from extproc.service.credentials import Certificates
    from extproc.service.grpc_server import GrpcServer

    files = certificate_files(listen)
    certificates = Certificates(files) if files else None
    return GrpcServer(stages, address, bounds, certificates, _build_tracing(settings))


def _build_tracing(settings: Settings) -> "BeginTrace | None":
    """Return what begins traces; None if there are none. Raises UserError without the packages."""
    if not settings.tracing.otlp:
        return None
    # Imported where they are used: an extra, and 20 MB of memory.
    with _explained():
        from extproc.service.tracing import Tracing
    return Tracing(settings.tracing.otlp, settings.tracing.share, random.random).begin


def _build_meter(settings: Settings) -> OnSpent:
    """Return what is told the usage of answers. Raises UserError without the packages."""
    if not settings.tracing.usage:
        return lambda *_: None
    with _explained():
        from extproc.service.usage_meter import UsageMeter, receiver_of
    return UsageMeter(receiver_of(settings.tracing.otlp), settings.categories.models).count


@contextmanager
def _explained() -> Iterator[None]:
    """Explain a package of OpenTelemetry's that is missing, by UserError."""
    try:
        yield
    except ModuleNotFoundError as error:
        text = f"tracing.otlp needs the package {error.name}: {install_hint('tracing')}"
        raise UserError(text) from None


def choose_transport(settings: Settings) -> Transport:
    """Return the transport that carries Envoy's streams: GRPC or H2."""
    listen = settings.listen
    if listen.transport is not Transport.AUTO:
        return listen.transport
    # Only gRPC shows the span of Envoy's, which comes in the metadata of its stream.
    plain = is_of_this_machine(listen.grpc) and not listen.tls_cert and not settings.tracing.otlp
    return Transport.H2 if plain else Transport.GRPC


def message_bytes(settings: Settings) -> int:
    """Return the longest gRPC message that is received.

    Envoy decides a body above envoy.large_body_bytes by its content-length. If a body has none, its
    message is refused here before it is held, and Envoy sends it to the largest pool as well. With
    several rows all bodies are read: nothing else says whose they are.
    """
    most = settings.listen.max_message_bytes
    large = settings.envoy.large_body_bytes if len(settings.fleet) == 1 else 0
    return min(most, max(large, _LEAST_MESSAGE_BYTES) + MESSAGE_OVERHEAD) if large else most


def _late_s(settings: Settings) -> float:
    share = settings.listen.busy_share
    return share * settings.envoy.message_timeout_ms / 1000 if share else math.inf


def build_token(listen: ListenSettings) -> BearerToken | None:
    """Return the token of the HTTP side; None if none is needed. Raises TokenError."""
    return BearerToken(Path(listen.http_token_file)) if listen.http_token_file else None


def build_tenant_secret(settings: Settings, before: bytes | None = None) -> bytes:
    """Return the secret of the tenants' digests: from its file, that before, or a random one.

    Raises TokenError.
    """
    file = settings.tenants.key_file
    if not file:
        return before or secrets.token_bytes(_SECRET_BYTES)
    return blake2b(
        read_secret(Path(file), "secret for tenants.key_file"), digest_size=_SECRET_BYTES
    ).digest()


def build_mark(settings: Settings, tenant_secret: bytes) -> bytes:
    """Return the fingerprint of the snapshots of what is learnt by these settings."""
    # Only with these are digests learnt that another secret would make meaningless.
    keyed = settings.tenants.header or settings.budget.prefixes
    form = f"{settings.budget.estimator.value} {'rows' if build_rules(settings).rows else ''}"
    return fingerprint(form, tenant_secret if keyed else b"")


def build_state(
    settings: Settings,
    mark: Callable[[], bytes],
    build: Callable[[], Learner],
    registry: CollectorRegistry,
) -> StateFile | None:
    """Return what keeps what is learnt in a file; None without one. See StateFile."""
    path = state_path(settings)
    return StateFile(path, mark, build, StateMetrics(registry)) if path else None


def build_shared(
    settings: Settings,
    journal: Journal,
    mark: Callable[[], bytes],
    build: Callable[[], Learner],
    registry: CollectorRegistry,
) -> "SharedState | None":
    """Return this replica's part in a shared state; None without a store.

    Raises UserError without the package.
    """
    if not settings.state.startswith("redis"):
        return None
    # Imported where they are used: an extra, and what only replicas need.
    from extproc.service.shared_state import SharedState

    try:
        from extproc.service.redis_store import RedisStore
    except ModuleNotFoundError as error:
        text = f"state needs the package {error.name}: {install_hint('redis')}"
        raise UserError(text) from None
    store = RedisStore(_store_address(settings), mark)
    return SharedState(store, journal, mark, build, SharedMetrics(registry))


def _store_address(settings: Settings) -> "StoreAddress":
    from extproc.service.shared_state import StoreAddress

    scheme, _, rest = settings.state.partition("://")
    authority, *parts = rest.split("/")
    user, _, hosts = authority.rpartition("@")
    (host, port), *more = map(host_port, hosts.split(","))
    master = parts.pop(0) if scheme == "redis+sentinel" else ""
    password, ca = settings.state_password_file, settings.state_ca_file
    return StoreAddress(
        host,
        port,
        int(parts[0]) if parts else 0,
        user=user,
        password_file=Path(password) if password else None,
        tls=scheme == "rediss",
        ca_file=Path(ca) if ca else None,
        master=master,
        sentinels=tuple(more),
    )


def describe_settings(settings: Settings) -> dict[str, object]:
    """Return the settings that GET /state shows beside what was learnt."""
    return {
        "estimator": settings.budget.estimator.value,
        "target": settings.budget.target,
        "shadow": settings.shadow,
        "pools": {pool.name: pool.max_model_len for pool in settings.pools},
        **({"rows": [_describe_row(row) for row in settings.rows]} if settings.rows else {}),
        "settings": settings.model_dump(),
    }


def _describe_row(row: RowSettings) -> dict[str, object]:
    return {"models": row.models, "pools": [pool.name for pool in row.pools]}


def describe_state(state: StateFile | None, shared: "SharedState | None") -> dict[str, object]:
    """Return what GET /state shows of how the state is kept."""
    if shared:
        return {"state": shared.describe()}
    return {"state": state.describe()} if state else {}


def configure_logging(settings: Settings) -> None:
    """Log to standard error at the configured level; call it again to change the level."""
    logging.getLogger().setLevel(settings.log_level.value.upper())
    # hpack would log every header of every stream, and grpcio a server that is being deallocated,
    # which ends the process.
    for library in ("hpack", "grpc"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
