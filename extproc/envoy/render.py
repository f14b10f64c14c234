"""Render Envoy's configuration for the settings from envoy/envoy.yaml.j2.

The template decides what Envoy does; this module computes its variables: addresses, limits, and
what the version of Envoy supports.
"""

import ipaddress
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from extproc.config.addresses import host_port, worker_addresses
from extproc.config.errors import UserError
from extproc.config.keys import Fault, dotted
from extproc.config.settings import (
    ANY_MODEL,
    MESSAGE_OVERHEAD,
    NEWEST_ENVOY,
    EnvoySettings,
    FailOpen,
    Form,
    PoolSettings,
    RowSettings,
    Settings,
)
from extproc.names import ROW_HEADER
from extproc.request.apis import Endpoint, path_regex
from extproc.routing.rows import split_names

_PACKAGE = Path(__file__).parents[1]
# A wheel has the folder envoy/ inside the package, a clone beside it.
_TEMPLATES = (_PACKAGE / "envoy_config", _PACKAGE.parent / "envoy")
# Envoys that apply no more than the listener's limit to a body that ext_proc buffers.
_LISTENER_LIMITED = ("1.36",)
# Envoys that can send a body again only up to half of request_body_buffer_limit.
_HALF_RETRIED = ("1.36", "1.37")
# What is routed by its size alone: what generates, for that is what a pool is busy with.
_SIZED = (Endpoint.CHAT, Endpoint.COMPLETION, Endpoint.RESPONSES, Endpoint.MESSAGES)
# The headers that the service and Envoy add to a request; few more than they can be.
_OWN_HEADERS = 24
# Where Envoy has no value for "no limit": the most that its fields of 32 bits hold.
_UNLIMITED = (1 << 31) - 1


class RenderError(UserError):
    """Envoy cannot be configured for these settings; each fault names the key and the fix."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(f"{dotted(place)}: {text}" for place, text in self.faults))


def refuse(faults: Iterable[Fault]) -> None:
    """Raise RenderError if there are faults."""
    if found := tuple(faults):
        raise RenderError(found)


@dataclass(frozen=True, slots=True)
class _RenderedAddress:
    """A host and a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_ip(self) -> bool:
        """Whether the host is an address of its own, not a name."""
        return _is_address(self.host)


@dataclass(frozen=True, slots=True)
class _ServiceCluster:
    """The cluster of this service, with one endpoint for each worker."""

    discovery: str
    addresses: tuple[_RenderedAddress, ...]


@dataclass(frozen=True, slots=True)
class _Receiver:
    """Where Envoy sends its traces, and of how many per cent of the requests."""

    url: str
    percent: float
    discovery: str
    address: _RenderedAddress


@dataclass(frozen=True, slots=True)
class PoolCluster:
    """A pool's cluster, and `route_to`, the cluster that adds the pool `fallback`.

    Without a second pool there is no fallback, and `route_to` is the pool itself. `is_largest` is
    of its row. `undecided` is the range of body bytes, the end exclusive, that the pool is given
    without a decision.
    """

    name: str
    fallback: str
    route_to: str
    is_largest: bool
    undecided: tuple[int, int]
    max_model_len: int
    discovery: str
    addresses: tuple[_RenderedAddress, ...]
    tls: "_UpstreamTls | None"


@dataclass(frozen=True, slots=True)
class RowClusters:
    """The clusters of a row, in ascending order of their windows.

    `sized` are those that some requests are sent to by their size alone. Its models are those of
    these names, and those that begin and end as `patterns` say.
    """

    pools: tuple[PoolCluster, ...]
    sized: tuple[PoolCluster, ...]
    names: tuple[str, ...]
    patterns: tuple[tuple[str, str], ...]
    is_named: bool
    """Whether it has only the models that it names."""

    @property
    def largest(self) -> PoolCluster:
        """The largest pool."""
        return self.pools[-1]

    @property
    def matcher(self) -> str:
        """The condition on the row that Envoy has read, as a header matcher."""
        return f"{{name: {ROW_HEADER}, string_match: {{exact: {json.dumps(self.largest.name)}}}}}"


@dataclass(frozen=True, slots=True)
class _BodyLimits:
    """Limits of bodies, in bytes; 0: none."""

    accepted: int
    large: int
    """Above it, a body passes without being held."""
    held: int
    """What is held of a request, for the service and for a retry."""
    connection: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the limits for the settings' version of Envoy."""
        envoy, accepted = settings.envoy, settings.requests.max_body_bytes
        held = accepted
        if envoy.version in _HALF_RETRIED:
            message = settings.listen.max_message_bytes - MESSAGE_OVERHEAD
            held = max(accepted, min(2 * accepted, message))
        listener_limited = envoy.version in _LISTENER_LIMITED
        connection = accepted if listener_limited else min(envoy.buffer_bytes, accepted)
        return cls(accepted, settings.most_read_bytes, held, connection)


@dataclass(frozen=True, slots=True)
class _UpstreamTls:
    """TLS to the service or a pool: files, and the name that its certificate must have."""

    ca: str
    cert: str
    key: str
    name: str
    san_type: str


def render_envoy(settings: Settings) -> str:
    """Return Envoy's configuration as YAML; raises RenderError."""
    return render_template("envoy.yaml.j2", settings)


def render_template(name: str, settings: Settings, **more: object) -> str:
    """Return a template's text for the settings and `more` variables; raises RenderError."""
    refuse(render_faults(settings))
    settings = settings.routed
    envoy = settings.envoy
    rows = [_row(settings, row) for row in settings.fleet]
    unnamed = _row(settings, settings.unnamed_row)
    return (
        _environment()
        .get_template(name)
        .render(
            envoy=envoy,
            version=envoy.version,
            form=str(choose_form(envoy)),
            has_body_size_limit=envoy.version == NEWEST_ENVOY,
            hides_usage=settings.requests.ask_usage and not settings.shadow,
            shadow="shadow-" if settings.shadow else "",
            own_headers=_OWN_HEADERS,
            unlimited=_UNLIMITED,
            sized_paths=path_regex(*_SIZED),
            tenant_header=settings.tenants.header,
            messages_paths=path_regex(Endpoint.MESSAGES),
            body=_BodyLimits.of(settings),
            listener=_address(envoy.listen),
            admin=_address(envoy.admin),
            metrics=_address(envoy.metrics) if envoy.metrics else _RenderedAddress(),
            message_timeout=_seconds(envoy.message_timeout_ms),
            connect_timeout=_seconds(envoy.connect_timeout_ms),
            service=_service(settings),
            tls=_tls(settings),
            rows=rows,
            sized_pools=unnamed.sized,
            pools=[pool for row in rows for pool in row.pools],
            unnamed_row=replace(
                unnamed, is_named=False, sized=() if rows[-1].is_named else unnamed.sized
            ),
            lua=_lua,
            largest=unnamed.largest,
            reads_model=any(row.is_named for row in rows),
            tracing=_receiver(settings),
            **more,
        )
    )


def render_faults(settings: Settings) -> Iterator[Fault]:
    """Yield what no Envoy can be configured for."""
    listen, envoy = settings.listen, settings.envoy
    if not listen.grpc.startswith("unix:") and host_port(listen.grpc)[1] == 0:
        text = "port 0 is not known before the service starts; set one"
        yield ("listen", "grpc"), text
    if listen.tls_cert and not envoy.tls_ca:
        text = "empty, though listen.tls_cert is set; set the CA of the service's certificate"
        yield ("envoy", "tls_ca"), text
    if listen.tls_client_ca and envoy.tls_ca and not envoy.tls_cert:
        text = "empty, though listen.tls_client_ca requires one; set Envoy's"
        yield ("envoy", "tls_cert"), text


def choose_form(envoy: EnvoySettings) -> Form:
    """Return the form to render, one that this version of Envoy has unless another is set."""
    if envoy.form is not Form.AUTO:
        return envoy.form
    return Form.TRAILERS if envoy.version == NEWEST_ENVOY else Form.OBSERVED


def _environment() -> Environment:
    # The output is YAML: the template escapes strings with tojson.
    return Environment(  # noqa: S701
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _lua(text: str) -> str:
    # A name has no control characters, so that JSON escapes what Lua does: quote and backslash.
    return json.dumps(text, ensure_ascii=False)


def _row(settings: Settings, row: RowSettings) -> RowClusters:
    pools = _pools(settings, row.pools)
    names, patterns = split_names(row.models)
    return RowClusters(
        pools=tuple(pools),
        sized=tuple(_sized(settings, pools)),
        names=names,
        patterns=patterns,
        is_named=ANY_MODEL not in row.models,
    )


def _pools(settings: Settings, pools: Sequence[PoolSettings]) -> list[PoolCluster]:
    clusters, last = list[PoolCluster](), len(pools) - 1
    low = 1
    for index, pool in enumerate(pools):
        # A smaller pool falls back on the largest, the largest on the one before it.
        other = pools[-1] if index < last else pools[index - 1]
        fallback = other.name if len(pools) > 1 else ""
        high = settings.envoy.undecided_bytes(pool)
        clusters.append(_pool(pool, fallback, (low, max(low, high)), is_largest=index == last))
        low = max(low, high)
    return clusters


def _sized(settings: Settings, pools: list[PoolCluster]) -> list[PoolCluster]:
    """Return the pools that some requests are sent to by their size alone."""
    if settings.envoy.fail_open is not FailOpen.BY_SIZE:
        return []
    return [pool for pool in pools[:-1] if pool.undecided[0] < pool.undecided[1]]


def _pool(
    pool: PoolSettings, fallback: str, undecided: tuple[int, int], *, is_largest: bool
) -> PoolCluster:
    addresses = tuple(_address(text) for text in pool.addresses)
    # Never a pool's own name: those have no underscores.
    route_to = f"{pool.name}_then_{fallback}" if fallback else pool.name
    return PoolCluster(
        pool.name,
        fallback,
        route_to,
        is_largest,
        undecided,
        pool.max_model_len,
        _discovery(*(address.host for address in addresses)),
        addresses,
        _pool_tls(pool),
    )


def _pool_tls(pool: PoolSettings) -> _UpstreamTls | None:
    name = pool.tls_name or host_port(pool.addresses[0])[0]
    return _UpstreamTls(pool.tls_ca, "", "", name, _san_type(name)) if pool.tls_ca else None


def _service(settings: Settings) -> _ServiceCluster:
    texts = worker_addresses(settings.listen.grpc, settings.workers)
    if settings.listen.grpc.startswith("unix:"):
        paths = tuple(_RenderedAddress(path=text.removeprefix("unix:")) for text in texts)
        return _ServiceCluster("STATIC", paths)
    host = settings.envoy.service
    ports = (host_port(text)[1] for text in texts)
    return _ServiceCluster(_discovery(host), tuple(_RenderedAddress(host, port) for port in ports))


def _tls(settings: Settings) -> _UpstreamTls | None:
    envoy = settings.envoy
    if not envoy.tls_ca:
        return None
    name = envoy.service
    return _UpstreamTls(envoy.tls_ca, envoy.tls_cert, envoy.tls_key, name, _san_type(name))


def _san_type(name: str) -> str:
    return "IP_ADDRESS" if _is_address(name) else "DNS"


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}s"


def _receiver(settings: Settings) -> _Receiver | None:
    url = settings.tracing.otlp
    if not url:
        return None
    address = _address(url.removeprefix("http://"))
    percent = round(100 * settings.tracing.share, 4)  # of the precision that Envoy has
    return _Receiver(url, percent, _discovery(address.host), address)


def _address(text: str) -> _RenderedAddress:
    return _RenderedAddress(*host_port(text))


def _discovery(*hosts: str) -> str:
    return "STATIC" if all(map(_is_address, hosts)) else "STRICT_DNS"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
