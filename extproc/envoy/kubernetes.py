"""What the objects for Istio and for Envoy Gateway have in common: names, and which Envoy."""

import re
from dataclasses import dataclass
from typing import Self

from extproc.config.addresses import host_port
from extproc.config.settings import PoolSettings, Settings
from extproc.envoy.render import RenderError

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
        """Read NAMESPACE/NAME; raises RenderError."""
        if (found := _NAME.fullmatch(text)) is None:
            raise RenderError(f"--gateway: {text!r} is not allowed: NAMESPACE/NAME")
        return cls(found[1], found[3])

    @classmethod
    def of_service(cls, settings: Settings) -> Self:
        """Return the Service of this service; raises RenderError."""
        host = settings.envoy.service
        if (found := _SERVICE.fullmatch(host)) is None:
            raise RenderError(
                f"envoy.service: {host} is no Service of Kubernetes: set "
                "NAME.NAMESPACE.svc.cluster.local"
            )
        return cls(found[3], found[1])


def client_secret(settings: Settings) -> str:
    """Return the Secret that Envoy has its certificate of; empty if the service asks for none."""
    return _CLIENT_SECRET if settings.listen.tls_client_ca else ""


def gateway_settings(settings: Settings) -> Settings:
    """Return the settings for an Envoy that a control plane configures; raises RenderError.

    They are without files of certificates: such an Envoy has them of `client_secret`.
    """
    listen, envoy = settings.listen, settings.envoy
    if listen.tls_cert and not listen.tls_client_ca:
        raise RenderError(
            "listen.tls_client_ca: empty, though listen.tls_cert is set; set the CA of the "
            f"certificate in the gateway's Secret {_CLIENT_SECRET}"
        )
    if settings.listen.grpc.startswith("unix:"):
        raise RenderError("listen.grpc: a gateway cannot reach a Unix socket; set host:port")
    if settings.workers > 1:
        raise RenderError(
            f"workers: {settings.workers} listen on as many ports, and a Service has one; set 1 "
            "and add replicas"
        )
    if envoy.version < _OLDEST:
        raise RenderError(
            f"envoy.version: {envoy.version} answers 413 to bodies over 1 MiB behind a control "
            f"plane; {_OLDEST} or newer is needed"
        )
    no_files = {"tls_cert": "", "tls_key": ""}
    version = min(envoy.version, _NEWEST)
    return settings.model_copy(
        update={
            "listen": listen.model_copy(update=no_files | {"tls_client_ca": ""}),
            "envoy": envoy.model_copy(update=no_files | {"tls_ca": "", "version": version}),
        }
    )


def pool_hosts(settings: Settings) -> dict[str, tuple[tuple[str, int], ...]]:
    """Return hosts and ports of each pool; raises RenderError unless other namespaces know them."""
    return {pool.name: tuple(_known(pool)) for pool in settings.pools}


def _known(pool: PoolSettings) -> list[tuple[str, int]]:
    if pool.tls_ca:
        raise RenderError(
            f"pools.{pool.name}.tls_ca: TLS to a pool is not written for a gateway of Kubernetes; "
            "leave it out and add it to the objects"
        )
    hosts = [host_port(address) for address in pool.addresses]
    for host, port in hosts:
        if "." not in host and ":" not in host:
            raise RenderError(
                f"pools.{pool.name}.address: {host}:{port} names no namespace: set "
                f"{host}.NAMESPACE.svc.cluster.local:{port}"
            )
    return hosts
