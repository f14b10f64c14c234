"""What the objects for Istio and for Envoy Gateway have in common: names, and which Envoy."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from extproc.config.addresses import host_port
from extproc.config.errors import UserError
from extproc.config.keys import Fault, Place
from extproc.config.settings import NEWEST_ENVOY, Form, PoolSettings, Settings
from extproc.envoy.render import render_faults

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"({_LABEL})/({_LABEL})")
_SERVICE = re.compile(rf"({_LABEL})\.({_LABEL})\.svc(\..+)?")
# Neither has the fields of Envoy 1.40 that the form trailers needs, or its body_size_limit.
_NEWEST = "1.39"
_OLDEST = "1.37"
# The Secret of the gateway's namespace: its certificate, and the authority of the service's.
_CLIENT_SECRET = "dualpool-client"  # noqa: S105


@dataclass(frozen=True, slots=True)
class ObjectName:
    """The namespace and the name of an object of Kubernetes."""

    namespace: str
    name: str

    @classmethod
    def of_gateway(cls, text: str) -> Self:
        """Read NAMESPACE/NAME; raises UserError."""
        if (found := _NAME.fullmatch(text)) is None:
            raise UserError(f"--gateway: {text!r} is not allowed: NAMESPACE/NAME")
        return cls(found[1], found[3])

    @classmethod
    def of_service(cls, settings: Settings) -> Self:
        """Return the Service of this service, of settings without `gateway_faults`."""
        name, namespace, _ = settings.envoy.service.split(".", 2)
        return cls(namespace, name)


def client_secret(settings: Settings) -> str:
    """Return the Secret that Envoy has its certificate of; empty if the service asks for none."""
    return _CLIENT_SECRET if settings.listen.tls_client_ca else ""


def gateway_faults(settings: Settings) -> Iterator[Fault]:
    """Yield what an Envoy that a control plane configures cannot do."""
    listen, envoy = settings.listen, settings.envoy
    if listen.tls_cert and not listen.tls_client_ca:
        yield (
            ("listen", "tls_client_ca"),
            "empty, though listen.tls_cert is set; set the CA of the certificate in the "
            f"gateway's Secret {_CLIENT_SECRET}",
        )
    if listen.grpc.startswith("unix:"):
        yield ("listen", "grpc"), "a gateway cannot reach a Unix socket; set host:port"
    if settings.workers > 1:
        yield (
            ("workers",),
            f"{settings.workers} listen on as many ports, and a Service has one; set 1 and add "
            "replicas",
        )
    if envoy.version < _OLDEST:
        yield (
            ("envoy", "version"),
            f"{envoy.version} answers 413 to bodies over 1 MiB behind a control plane; {_OLDEST} "
            "or newer is needed",
        )
    if envoy.form is Form.TRAILERS:
        text = f"trailers needs Envoy {NEWEST_ENVOY}, and no gateway has it; set observed or auto"
        yield ("envoy", "form"), text
    if not _SERVICE.fullmatch(envoy.service):
        text = f"{envoy.service} is no Service of Kubernetes: set NAME.NAMESPACE.svc.cluster.local"
        yield ("envoy", "service"), text
    for place, pool in settings.placed_pools():
        yield from _pool_faults(place, pool)
    yield from render_faults(gateway_settings(settings))


def _pool_faults(place: Place, pool: PoolSettings) -> Iterator[Fault]:
    if pool.tls_ca:
        yield (
            (*place, "tls_ca"),
            "TLS to a pool is not written for a gateway of Kubernetes; leave it out and add it "
            "to the objects",
        )
    # Other namespaces must know the name.
    for host, port in map(host_port, pool.addresses):
        if "." not in host and ":" not in host:
            wanted = f"{host}.NAMESPACE.svc.cluster.local:{port}"
            yield (*place, "address"), f"{host}:{port} names no namespace: set {wanted}"


def gateway_settings(settings: Settings) -> Settings:
    """Return the settings for an Envoy that a control plane configures.

    They are without files of certificates: such an Envoy has them of `client_secret`.
    """
    listen, envoy = settings.listen, settings.envoy
    no_files = {"tls_cert": "", "tls_key": ""}
    version = min(envoy.version, _NEWEST)
    return settings.model_copy(
        update={
            "listen": listen.model_copy(update=no_files | {"tls_client_ca": ""}),
            "envoy": envoy.model_copy(update=no_files | {"tls_ca": "", "version": version}),
        }
    )
