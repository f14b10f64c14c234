"""The objects that put the service behind an Istio ingress gateway.

What Istio has no field for is an EnvoyFilter. It is made of the parts of Envoy's whole
configuration, so that a gateway does what an Envoy of our own does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from extproc.config.addresses import host_port
from extproc.config.keys import Fault
from extproc.config.settings import Settings
from extproc.envoy.document import Part
from extproc.envoy.fragment import connection_manager, dump, fragment_parts, whole_configuration
from extproc.envoy.kubernetes import ObjectName, client_secret, gateway_faults, gateway_settings
from extproc.envoy.render import refuse, render_template

_SERVICE = "dualpool"
_HCM = "envoy.filters.network.http_connection_manager"
_EXTENSIONS = "type.googleapis.com/envoy.extensions"
# What the gateway gets of our own connection manager, beside the removal of x-llm-*.
_MANAGER_KEYS = (
    "merge_slashes",
    "preserve_external_request_id",
    "path_with_escaped_slashes_action",
    "common_http_protocol_options",
    "max_request_headers_kb",
    "http_protocol_options",
    "http2_protocol_options",
    "request_headers_timeout",
    "request_timeout",
)
# What a pool's cluster gets that a DestinationRule has no field for.
_CLUSTER_KEYS = (
    "per_connection_buffer_limit_bytes",
    "common_lb_config",
    "health_checks",
    "upstream_bind_config",
)


@dataclass(frozen=True, slots=True)
class _Pool:
    """A pool, its Service, and its cluster in the whole configuration."""

    name: str
    host: str
    port: int
    cluster: Part

    @property
    def cluster_name(self) -> str:
        """The name that istiod gives the cluster."""
        return f"outbound|{self.port}||{self.host}"


def render_istio(settings: Settings, gateway: str) -> str:
    """Return the objects as YAML, for a gateway NAMESPACE/LABEL.

    Raises RenderError with every fault, or UserError for the gateway.
    """
    refuse((*gateway_faults(settings), *_service_faults(settings)))
    secret = client_secret(settings)
    settings = gateway_settings(settings).routed
    document = whole_configuration(settings)
    parts = fragment_parts(document, "/")
    largest = settings.unnamed_row.pools[-1].name
    # The largest last: it gets what the routes before it do not match.
    pools = sorted(_pools(settings, document), key=lambda pool: pool.name == largest)
    names = _cluster_names(pools, parts["clusters"])
    first_route = f"dualpool-{pools[0].name}"
    socket = _mutual_tls(secret, settings.envoy.service) if secret else {}
    groups = {
        "cluster_patches": [_added(each, names, socket) for each in _own(parts["clusters"], pools)],
        "pool_patches": [_pool_patch(pool) for pool in pools],
        "manager_patches": [_manager_patch(document, parts)],
        "filter_patches": [_filter_patch(each) for each in parts["http_filters"]],
        "route_patches": [
            _route_patch(each, first_route) for each in _routes(parts["routes"], names)
        ],
    }
    return render_template(
        "istio/routing.yaml.j2",
        settings,
        gateway=ObjectName.of_gateway(gateway),
        dualpool=ObjectName.of_service(settings),
        services=pools,
        secret=secret,
        **{key: dump(each, is_shared=key == "route_patches") for key, each in groups.items()},
    )


def _service_faults(settings: Settings) -> Iterator[Fault]:
    for place, pool in settings.placed_pools():
        if (count := len(pool.addresses)) > 1:
            text = f"{count} addresses; set the one of a Service, whose servers Istio knows"
            yield (*place, "address"), text


def _pools(settings: Settings, document: Part) -> Iterator[_Pool]:
    clusters = {
        each.at("name").text: each for each in document.at("static_resources", "clusters").items()
    }
    for pool in settings.pools:
        yield _Pool(pool.name, *host_port(pool.address), clusters[pool.name])


def _cluster_names(pools: list[_Pool], clusters: list[Any]) -> Mapping[str, str]:
    """Return what the clusters of the whole configuration are called in the gateway."""
    added = {each["name"]: f"{_SERVICE}_{each['name']}" for each in clusters}
    return added | {_SERVICE: _SERVICE} | {pool.name: pool.cluster_name for pool in pools}


def _own(clusters: list[Any], pools: list[_Pool]) -> list[Any]:
    known = {pool.name for pool in pools}
    return [each for each in clusters if each["name"] not in known]


def _added(
    cluster: dict[str, Any], names: Mapping[str, str], service_socket: dict[str, Any]
) -> dict[str, Any]:
    value = cluster | {"name": names[cluster["name"]]}
    if cluster["name"] == _SERVICE:
        value |= service_socket
    if kind := cluster.get("cluster_type"):
        config = kind["typed_config"]
        members = [names[name] for name in config["clusters"]]
        value["cluster_type"] = kind | {"typed_config": config | {"clusters": members}}
    return _patch("CLUSTER", "ADD", value)


def _mutual_tls(secret: str, name: str) -> dict[str, Any]:
    """Return the socket to a service of that name: what istiod writes for a `credentialName`."""
    istiod = {"ads": {}, "resource_api_version": "V3"}
    san = {"san_type": "DNS", "matcher": {"exact": name}}
    context = {
        "alpn_protocols": ["h2"],
        "tls_certificate_sds_secret_configs": [
            {"name": f"kubernetes://{secret}", "sds_config": istiod}
        ],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": [san]},
            # The Secret's ca.crt.
            "validation_context_sds_secret_config": {
                "name": f"kubernetes://{secret}-cacert",
                "sds_config": istiod,
            },
        },
    }
    config = {
        "@type": f"{_EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": name,
        "common_tls_context": context,
    }
    socket = {"name": "envoy.transport_sockets.tls", "typed_config": config}
    return {"transport_socket": socket}


def _pool_patch(pool: _Pool) -> dict[str, Any]:
    value = {key: pool.cluster.at(key).value for key in _CLUSTER_KEYS}
    longest = pool.cluster.at("outlier_detection", "max_ejection_time").value
    return _patch(
        "CLUSTER",
        "MERGE",
        {
            **{key: each for key, each in value.items() if each is not None},
            # A pod that Kubernetes takes out gets no more requests, though it still answers checks.
            "ignore_health_on_host_removal": True,
            "outlier_detection": {"max_ejection_time": longest},
        },
        cluster={"service": pool.host, "portNumber": pool.port},
    )


def _manager_patch(document: Part, parts: Mapping[str, list[Any]]) -> dict[str, Any]:
    manager = connection_manager(document)
    config = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "early_header_mutation_extensions": parts["early_header_mutation_extensions"],
        **{key: manager.at(key).value for key in _MANAGER_KEYS},
        # Other applications keep the shape of their errors: only the status is ours.
        "local_reply_config": {"mappers": manager.at("local_reply_config", "mappers").value},
    }
    listener = {"filterChain": {"filter": {"name": _HCM}}}
    return _patch("NETWORK_FILTER", "MERGE", {"typed_config": config}, listener=listener)


def _filter_patch(each: dict[str, Any]) -> dict[str, Any]:
    router = {"name": _HCM, "subFilter": {"name": "envoy.filters.http.router"}}
    place = {"filterChain": {"filter": router}}
    return _patch("HTTP_FILTER", "INSERT_BEFORE", each, listener=place)


def _routes(routes: list[Any], names: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the routes for the gateway's clusters, that of WebSockets first."""
    undecided = undecided_route(routes)
    # istiod allows WebSockets and has no filters of their own for them: a body would be waited for.
    upgrade = {"name": "upgrade", "string_match": {"exact": "websocket", "ignore_case": True}}
    action = {key: undecided["route"][key] for key in ("cluster", "timeout", "idle_timeout")}
    match = {"prefix": "/", "headers": [upgrade]}
    for route in ({"name": "llm_websocket", "match": match, "route": action}, *routes):
        yield _for_gateway(route, names)


def undecided_route(routes: list[Any]) -> dict[str, Any]:
    """Return the route of what nobody has chosen a pool for."""
    return dict(next(each for each in routes if each["name"] == "llm_undecided"))


def _for_gateway(route: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    changed = dict(route)
    if action := route.get("route"):
        changed["route"] = action | {"cluster": names[action["cluster"]]}
    if headers := route.get("response_headers_to_add"):
        changed["response_headers_to_add"] = [*map(_asked, headers), _ATTEMPTS]
    return changed


_ATTEMPTS = {
    "header": {"key": "x-envoy-attempt-count", "value": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"},
    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
}


def _asked(addition: dict[str, Any]) -> dict[str, Any]:
    """Name the pool that was asked first: istiod's endpoints do not carry our names."""
    header = addition["header"]
    return addition | {"header": header | {"value": f"%REQ({header['key']})%"}}


def _route_patch(route: dict[str, Any], first: str) -> dict[str, Any]:
    place = {"vhost": {"route": {"name": first}}}
    return _patch("HTTP_ROUTE", "INSERT_BEFORE", route, routeConfiguration=place)


def _patch(
    kind: str, operation: str, value: dict[str, Any], **match: dict[str, Any]
) -> dict[str, Any]:
    return {
        "applyTo": kind,
        "match": {"context": "GATEWAY", **match},
        "patch": {"operation": operation, "value": value},
    }
