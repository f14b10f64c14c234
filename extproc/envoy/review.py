"""Compare an Envoy file with the settings.

Any bootstrap is accepted. Fields that it leaves out have Envoy's defaults; resources that it gets
by xDS are not checked.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from extproc.config.settings import MESSAGE_OVERHEAD, Settings, host_port, worker_addresses
from extproc.envoy.document import Finding, Part
from extproc.names import POOL_HEADER, USAGE_METADATA

# Envoy's defaults.
_BUFFER_BYTES = 1 << 20
_MAX_REQUESTS = 1024
_MAX_RETRIES = 3
_MESSAGE_TIMEOUT_S = 0.2

_TIMEOUT_S = (0.05, 10.0)
_ROUTING_MODES = ("BUFFERED", "FULL_DUPLEX_STREAMED")


def review(settings: Settings, document: Part) -> tuple[Finding, ...]:
    """Return all findings, each once."""
    clusters = _clusters(document)
    gateways = [
        _ManagedListener(listener, manager)
        for listener in document.at("static_resources", "listeners").items() or [document]
        for manager in listener.typed("HttpConnectionManager")
    ]
    routing = [each for each in gateways if any(not _observes(f) for f in each.processors())]
    if not routing:
        return (
            Finding(
                "",
                "no ext_proc filter calls the service: add one, see `dualpool config envoy`",
            ),
        )
    found = chain(
        *(_gateway_findings(gateway, settings) for gateway in routing),
        *(_filter_findings(each, settings) for g in gateways for each in g.processors()),
        _service_findings(gateways, clusters, settings) if clusters else (),
        _pool_findings(clusters, settings) if clusters else (),
        *(_retry_findings(gateway, clusters) for gateway in routing),
    )
    # Aliases, and filters that share a cluster, repeat findings.
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class _ManagedListener:
    """A listener and one of its HTTP connection managers."""

    listener: Part
    manager: Part

    def processors(self) -> list[Part]:
        """Return its ext_proc filters."""
        return list(self.manager.at("http_filters").typed("ExternalProcessor"))

    def hosts(self) -> list[Part]:
        return self.manager.at("route_config", "virtual_hosts").items()

    def routes(self) -> list[Part]:
        return [route for host in self.hosts() for route in host.at("routes").items()]


def _clusters(document: Part) -> dict[str, Part]:
    return {
        part.at("name").text: part for part in document.at("static_resources", "clusters").items()
    }


def _observes(processor: Part) -> bool:
    return processor.at("observability_mode").value is True


def _gateway_findings(gateway: _ManagedListener, settings: Settings) -> Iterator[Finding]:
    if not _strips(gateway.manager):
        yield Finding(
            gateway.manager.at("early_header_mutation_extensions").path,
            "clients can choose their pool: remove x-llm-* before routes are matched",
        )
    for host in gateway.hosts():
        yield from _body_findings(gateway, host, settings)
        yield from _route_findings(host, settings)


def _strips(manager: Part) -> bool:
    internal = manager.at("route_config", "internal_only_headers").items()
    if any(header.text.lower() == POOL_HEADER for header in internal):
        return True
    for extension in manager.at("early_header_mutation_extensions").items():
        for mutation in extension.at("typed_config", "mutations").items():
            prefix = mutation.at("remove_on_match", "key_matcher", "prefix").text
            exact = mutation.at("remove").text
            if (prefix and POOL_HEADER.startswith(prefix)) or exact == POOL_HEADER:
                return True
    return False


def _body_findings(gateway: _ManagedListener, host: Part, settings: Settings) -> Iterator[Finding]:
    connection = gateway.listener.at("per_connection_buffer_limit_bytes").number
    lifted = host.at("request_body_buffer_limit")
    limits = {lifted.path: max(connection or _BUFFER_BYTES, lifted.number or 0)}
    for cap in gateway.manager.at("http_filters").typed("BodySizeLimit"):
        size = cap.at("max_request_bytes")
        if size.number is not None:
            limits[size.path] = size.number
    wanted, message = settings.requests.max_body_bytes, settings.listen.max_message_bytes
    for path, limit in limits.items():
        if limit < wanted:
            yield Finding(path, f"a body above {limit} bytes gets 413: set {wanted}")
    largest = min(limits.values())
    if largest + MESSAGE_OVERHEAD > message:
        yield Finding(
            min(limits, key=lambda path: limits[path]),
            f"a body of {largest} bytes exceeds listen.max_message_bytes, {message}: set {wanted}",
        )


def _route_findings(host: Part, settings: Settings) -> Iterator[Finding]:
    routes = host.at("routes").items()
    yield from _default_findings(host, routes, settings.pools[-1].name)
    for route in routes:
        timeout = route.at("route", "timeout")
        if route.at("route").present and timeout.seconds != 0:
            yield Finding(
                timeout.path, f"long answers are cut off after {timeout.text or '15s'}: set 0s"
            )
    if any(route.at("route", "cluster_header").text == POOL_HEADER for route in routes):
        return
    named = {_matched_pool(route) for route in routes}
    for pool in settings.pools[:-1]:
        if pool.name not in named:
            path = host.at("routes").path
            yield Finding(path, f"no route matches x-llm-pool: {pool.name}: add one")


def _default_findings(host: Part, routes: list[Part], largest: str) -> Iterator[Finding]:
    last = [route for route in routes if _takes_all(route)]
    if not last:
        yield Finding(
            host.at("routes").path,
            f"no route matches requests without x-llm-pool: add a last one to {largest}",
        )
    elif (cluster := last[-1].at("route", "cluster")).text != largest:
        yield Finding(
            cluster.path,
            f"requests without x-llm-pool go to {cluster.text or 'nothing'!r}: "
            f"set {largest!r}, the largest pool",
        )


def _takes_all(route: Part) -> bool:
    match = route.at("match")
    conditions = ("headers", "query_parameters", "dynamic_metadata")
    return match.at("prefix").text == "/" and not any(match.at(c).present for c in conditions)


def _matched_pool(route: Part) -> str:
    for header in route.at("match", "headers").items():
        if header.at("name").text == POOL_HEADER:
            return header.at("string_match", "exact").text or header.at("exact_match").text
    return ""


def _filter_findings(processor: Part, settings: Settings) -> Iterator[Finding]:
    if processor.at("failure_mode_allow").value is not True:
        path = processor.at("failure_mode_allow").path
        yield Finding(path, "requests fail while the service is down: set true")
    if _observes(processor):
        yield from _observer_findings(processor)
    else:
        yield from _router_findings(processor, settings)


def _observer_findings(processor: Part) -> Iterator[Finding]:
    yield from _namespace_findings(processor, "forwarding_namespaces", "untyped", "llm")
    modes = processor.at("processing_mode")
    if modes.at("response_body_mode").text in ("", "NONE"):
        yield from _namespace_findings(processor, "forwarding_namespaces", "typed", USAGE_METADATA)
        if modes.at("response_trailer_mode").text != "SEND":
            path = modes.at("response_trailer_mode").path
            yield Finding(path, "the service does not get the usage: set SEND")


def _router_findings(processor: Part, settings: Settings) -> Iterator[Finding]:
    yield from _namespace_findings(processor, "receiving_namespaces", "untyped", "llm")
    modes = processor.at("processing_mode")
    if (head := modes.at("request_header_mode")).text == "SKIP":
        yield Finding(head.path, "the headers are sent on before the body is read: set SEND")
    body = modes.at("request_body_mode")
    if body.text not in _ROUTING_MODES:
        yield Finding(body.path, f"{body.text or 'NONE'} cannot change the route: set BUFFERED")
    timeout = processor.at("message_timeout")
    wanted = settings.envoy.message_timeout_ms / 1000
    seconds = _MESSAGE_TIMEOUT_S if timeout.seconds is None else timeout.seconds
    if not _TIMEOUT_S[0] <= seconds <= _TIMEOUT_S[1]:
        yield Finding(timeout.path, f"{seconds:g}s is not between 0.05s and 10s: set {wanted:g}s")
    elif seconds != wanted:
        yield Finding(
            timeout.path, f"{seconds:g}s differs from envoy.message_timeout_ms: set {wanted:g}s"
        )


def _namespace_findings(processor: Part, direction: str, kind: str, name: str) -> Iterator[Finding]:
    names = processor.at("metadata_options", direction, kind)
    if all(each.text != name for each in names.items()):
        yield Finding(names.path, f"the routing decision or the usage is lost: add {name}")


def _service_findings(
    gateways: list[_ManagedListener], clusters: Mapping[str, Part], settings: Settings
) -> Iterator[Finding]:
    for processor in chain(*(gateway.processors() for gateway in gateways)):
        name = processor.at("grpc_service", "envoy_grpc", "cluster_name")
        if name.present and name.text not in clusters:
            yield Finding(name.path, f"no cluster is named {name.text!r}{_near(name, clusters)}")
        elif name.present:
            yield from _service_cluster_findings(clusters[name.text], settings)


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
    found = {_endpoint_address(endpoint) for endpoint in _endpoints(cluster)} - {""}
    if not found or wanted in ({"0"}, found):
        return
    listed = ", ".join(sorted(wanted))
    path = cluster.at("load_assignment", "endpoints").path
    yield Finding(path, f"{', '.join(sorted(found))} differs from listen.grpc: set {listed}")


def _port_or_path(grpc: str) -> str:
    path = grpc.removeprefix("unix:")
    return path if path != grpc else str(host_port(grpc)[1])


def _endpoints(cluster: Part) -> Iterator[Part]:
    for group in cluster.at("load_assignment", "endpoints").items():
        yield from group.at("lb_endpoints").items()


def _endpoint_address(endpoint: Part) -> str:
    address = endpoint.at("endpoint", "address")
    port = address.at("socket_address", "port_value").number
    return address.at("pipe", "path").text if port is None else str(port)


def _pool_findings(clusters: Mapping[str, Part], settings: Settings) -> Iterator[Finding]:
    for pool in settings.pools:
        if pool.name not in clusters:
            name = Part("static_resources.clusters", pool.name)
            yield Finding(name.path, f"no cluster is named {pool.name!r}{_near(name, clusters)}")
            continue
        for endpoint in _endpoints(clusters[pool.name]):
            stated = endpoint.at("metadata", "filter_metadata", "llm")
            for key, wanted in (("pool", pool.name), ("max_model_len", pool.max_model_len)):
                if stated.present and stated.at(key).value != wanted:
                    yield Finding(
                        stated.at(key).path,
                        f"{stated.at(key).value!r} differs from the settings: set {wanted}",
                    )


def _retry_findings(gateway: _ManagedListener, clusters: Mapping[str, Part]) -> Iterator[Finding]:
    for route in gateway.routes():
        cluster = clusters.get(route.at("route", "cluster").text)
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
