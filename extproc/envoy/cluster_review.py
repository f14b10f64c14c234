"""Compare the clusters of the service and of the pools with the settings."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from extproc.config.addresses import host_port, worker_addresses
from extproc.config.settings import PoolSettings, Settings
from extproc.envoy.document import Finding, Part
from extproc.envoy.gateway import takes_decision, targets
from extproc.envoy.pool_clusters import PoolClusters, endpoints, socket_addresses
from extproc.envoy.pool_gateway import PoolGateway

# Envoy's defaults.
_MAX_REQUESTS = 1024
_MAX_RETRIES = 3


def service_findings(gateway: PoolGateway) -> Iterator[Finding]:
    """Yield what is wrong with the clusters that the service's filters call."""
    clusters = gateway.fleet.clusters
    for processor in chain(*(each.typed("ExternalProcessor") for each in gateway.ours)):
        name = processor.at("grpc_service", "envoy_grpc", "cluster_name")
        if name.present and name.text not in clusters:
            yield Finding(name.path, f"no cluster is named {name.text!r}{_near(name, clusters)}")
        elif name.present:
            yield from _service_cluster_findings(clusters[name.text], gateway.settings)


def _service_cluster_findings(cluster: Part, settings: Settings) -> Iterator[Finding]:
    options = next(cluster.typed("HttpProtocolOptions"), cluster)
    http2 = options.at("explicit_http_config", "http2_protocol_options")
    if not http2.present and not cluster.at("http2_protocol_options").present:
        yield Finding(cluster.path, "gRPC needs HTTP/2: set http2_protocol_options")
    tls = bool(settings.listen.tls_cert or settings.envoy.tls_ca)
    if tls != cluster.at("transport_socket").present:
        fix = "set one" if tls else "remove it, or set listen.tls_cert"
        yield Finding(
            cluster.at("transport_socket").path,
            f"the service {'uses' if tls else 'does not use'} TLS: {fix}",
        )
    yield from _breaker_findings(cluster, "max_requests", _MAX_REQUESTS, "concurrent streams")
    yield from _address_findings(cluster, settings)


def _address_findings(cluster: Part, settings: Settings) -> Iterator[Finding]:
    wanted = {
        _port_or_path(text) for text in worker_addresses(settings.listen.grpc, settings.workers)
    }
    found = {_endpoint_address(endpoint) for endpoint in endpoints(cluster)} - {""}
    if not found or wanted in ({"0"}, found):
        return
    listed = ", ".join(sorted(wanted))
    path = cluster.at("load_assignment", "endpoints").path
    yield Finding(path, f"{', '.join(sorted(found))} differs from listen.grpc: set {listed}")


def _port_or_path(grpc: str) -> str:
    path = grpc.removeprefix("unix:")
    return path if path != grpc else str(host_port(grpc)[1])


def _endpoint_address(endpoint: Part) -> str:
    address = endpoint.at("endpoint", "address")
    port = address.at("socket_address", "port_value").number
    return address.at("pipe", "path").text if port is None else str(port)


def pool_findings(
    gateways: Sequence[PoolGateway], document: Part, settings: Settings
) -> Iterator[Finding]:
    """Yield the pools without a cluster, and endpoints that state another window."""
    fleet = gateways[0].fleet
    by_name = any(takes_decision(each.route) for g in gateways for each in g.part.routes)
    by_xds = document.at("dynamic_resources", "cds_config").present
    for pool in settings.pools:
        if pool.name in fleet.clusters:
            yield from _window_findings(fleet.clusters[pool.name], pool)
            yield from _pool_address_findings(fleet.clusters[pool.name], pool)
        elif not by_xds and (by_name or not fleet.has_other_name(pool.name)):
            name = Part("static_resources.clusters", pool.name)
            text = f"no cluster is named {pool.name!r}{_near(name, fleet.clusters)}"
            yield Finding(name.path, text)


def _window_findings(cluster: Part, pool: PoolSettings) -> Iterator[Finding]:
    for endpoint in endpoints(cluster):
        stated = endpoint.at("metadata", "filter_metadata", "llm")
        for key, what, wanted in (
            ("pool", "pool", pool.name),
            ("max_model_len", "window", pool.max_model_len),
        ):
            given = stated.at(key)
            if stated.present and given.value != wanted:
                yield Finding(
                    given.path,
                    f"the {what} of cluster {cluster.at('name').text} is {given.value!r}, which "
                    f"differs from the settings: set {wanted}",
                )


def _pool_address_findings(cluster: Part, pool: PoolSettings) -> Iterator[Finding]:
    """Compare the addresses, if the settings state any and the cluster lists its servers."""
    found = {*socket_addresses(cluster)}
    wanted = {host_port(text) for text in pool.addresses}
    if "address" in pool.stated and found and found != wanted:
        path = cluster.at("load_assignment", "endpoints").path
        listed = ", ".join(f"{host}:{port}" for host, port in sorted(found))
        yield Finding(path, f"{listed} differs from pools.{pool.name}.address: set {pool.address}")


def retry_findings(route: Part, fleet: PoolClusters) -> Iterator[Finding]:
    """Yield the clusters of a route that allow too few retries."""
    for name in targets(route.at("route")):
        cluster = fleet.clusters.get(name.text)
        if cluster is not None and route.at("route", "retry_policy").present:
            yield from _breaker_findings(cluster, "max_retries", _MAX_RETRIES, "concurrent retries")


def _breaker_findings(cluster: Part, key: str, default: int, what: str) -> Iterator[Finding]:
    thresholds = cluster.at("circuit_breakers", "thresholds").items()
    limits = [
        each.at(key).number for each in thresholds if each.at("priority").text in ("", "DEFAULT")
    ]
    limit = next((limit for limit in limits if limit is not None), default)
    if limit <= default:
        path = cluster.at("circuit_breakers").path
        yield Finding(path, f"at most {limit} {what}: raise {key}")


def _near(name: Part, clusters: Mapping[str, Part]) -> str:
    near = difflib.get_close_matches(name.text.lower()[:80], list(clusters), n=1)
    return f": did you mean {near[0]!r}?" if near else ": add it"
