"""Render Envoy's configuration for the settings from envoy/envoy.yaml.j2.

The template decides what Envoy does; this module computes its variables: addresses, limits, and
what the version of Envoy supports.
"""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from extproc.config.errors import UserError
from extproc.config.settings import (
    EnvoySettings,
    Form,
    PoolSettings,
    Settings,
    host_port,
    worker_addresses,
)

_PACKAGE = Path(__file__).parents[1]
# A wheel has the folder envoy/ inside the package, a clone beside it.
_TEMPLATES = (_PACKAGE / "envoy_config", _PACKAGE.parent / "envoy")
_NEWEST = "1.40"


class RenderError(UserError):
    """Envoy cannot be configured for these settings; the text names the key and the fix."""


@dataclass(frozen=True, slots=True)
class _RenderedAddress:
    """A host and a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""


@dataclass(frozen=True, slots=True)
class _ServiceCluster:
    """The cluster of this service, with one endpoint for each worker."""

    discovery: str
    addresses: tuple[_RenderedAddress, ...]


@dataclass(frozen=True, slots=True)
class _PoolCluster:
    """A pool's cluster, and `route_to`, the cluster that falls back on the largest pool."""

    name: str
    route_to: str
    max_model_len: int
    discovery: str
    address: _RenderedAddress


@dataclass(frozen=True, slots=True)
class _ServiceTls:
    """TLS to the service: files, and the name that its certificate must have."""

    ca: str
    cert: str
    key: str
    name: str
    san_type: str


def render_envoy(settings: Settings) -> str:
    """Return Envoy's configuration as YAML; raises RenderError."""
    pools = [_pool(pool, settings.pools[-1]) for pool in settings.pools]
    return (
        _environment()
        .get_template("envoy.yaml.j2")
        .render(
            version=settings.envoy.version,
            form=str(choose_form(settings.envoy)),
            has_body_size_limit=settings.envoy.version == _NEWEST,
            listener=_address(settings.envoy.listen),
            admin=_address(settings.envoy.admin),
            metrics=_address(settings.envoy.metrics)
            if settings.envoy.metrics
            else _RenderedAddress(),
            max_body_bytes=settings.requests.max_body_bytes,
            message_timeout=f"{settings.envoy.message_timeout_ms / 1000:.3f}s",
            service=_service(settings),
            tls=_tls(settings),
            pools=pools,
            largest=pools[-1],
        )
    )


def choose_form(envoy: EnvoySettings) -> Form:
    """Return the form to render; raises RenderError if this version of Envoy lacks it."""
    newest = envoy.version == _NEWEST
    match envoy.form:
        case Form.AUTO:
            return Form.TRAILERS if newest else Form.OBSERVED
        case Form.TRAILERS if not newest:
            raise RenderError(
                f"envoy.form: trailers needs envoy.version {_NEWEST}, not {envoy.version}; "
                "set observed or auto"
            )
        case form:
            return form


def _environment() -> Environment:
    # The output is YAML: the template escapes strings with tojson.
    return Environment(  # noqa: S701
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _pool(pool: PoolSettings, largest: PoolSettings) -> _PoolCluster:
    address = _address(pool.address)
    # Never a pool's own name: those have no underscores.
    route_to = f"{pool.name}_then_{largest.name}"
    return _PoolCluster(pool.name, route_to, pool.max_model_len, _discovery(address.host), address)


def _service(settings: Settings) -> _ServiceCluster:
    texts = worker_addresses(settings.listen.grpc, settings.workers)
    if settings.listen.grpc.startswith("unix:"):
        paths = tuple(_RenderedAddress(path=text.removeprefix("unix:")) for text in texts)
        return _ServiceCluster("STATIC", paths)
    ports = [host_port(text)[1] for text in texts]
    if 0 in ports:
        raise RenderError("listen.grpc: port 0 is not known before the service starts; set one")
    host = settings.envoy.service
    return _ServiceCluster(_discovery(host), tuple(_RenderedAddress(host, port) for port in ports))


def _tls(settings: Settings) -> _ServiceTls | None:
    listen, envoy = settings.listen, settings.envoy
    if not envoy.tls_ca:
        if listen.tls_cert:
            raise RenderError(
                "envoy.tls_ca: empty, though listen.tls_cert is set; set the CA of the service's "
                "certificate"
            )
        return None
    if listen.tls_client_ca and not envoy.tls_cert:
        raise RenderError(
            "envoy.tls_cert: empty, though listen.tls_client_ca requires one; set Envoy's"
        )
    san_type = "IP_ADDRESS" if _is_address(envoy.service) else "DNS"
    return _ServiceTls(envoy.tls_ca, envoy.tls_cert, envoy.tls_key, envoy.service, san_type)


def _address(text: str) -> _RenderedAddress:
    return _RenderedAddress(*host_port(text))


def _discovery(host: str) -> str:
    return "STATIC" if _is_address(host) else "STRICT_DNS"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
