"""Envoy as two gateways run it for the objects of `dualpool config inference-pools`.

istio: as istiod 1.30 does. One filter stands for all pickers, and each route names its pool's;
the pool's cluster follows the metadata envoy.lb (override_host).
ai_gateway: as Envoy AI Gateway's extension server does. A filter for each pool stands right before
Envoy's router, and each route turns the others off; the pool's cluster follows the header.
"""

from tests.support.endpoint_picker import DESTINATION
from tests.support.istiod import apply
from tests.support.manifests import only

_TYPES = "type.googleapis.com/envoy.extensions"
_EXT_PROC = "envoy.filters.http.ext_proc"
_PICKER_MODE = {
    "request_header_mode": "SEND",
    "request_body_mode": "FULL_DUPLEX_STREAMED",
    "request_trailer_mode": "SEND",
    "response_header_mode": "SEND",
    "response_body_mode": "FULL_DUPLEX_STREAMED",
    "response_trailer_mode": "SEND",
}


def istio(objects, listener, admin, pools):
    """Return Envoy's configuration; pools: by InferencePool the picker's port and the servers."""
    routes = [
        route | {"typed_per_filter_config": {_EXT_PROC: _per_route(overrides=_asks(pool))}}
        for pool, route in _routes(objects)
    ]
    filters = [_filter(_EXT_PROC, {"processing_mode": {}, **_grpc("nobody")})]
    config = _bootstrap(listener, admin, routes, filters, pools)
    for pool, (_, servers) in pools.items():
        config["static_resources"]["clusters"].append(_override_host(pool, servers))
    for patch in _patches(objects):
        apply(config["static_resources"], patch)
    return config


def ai_gateway(objects, listener, admin, pools):
    """Return Envoy's configuration; pools: by InferencePool the picker's port and the servers."""
    names = {pool: f"{_EXT_PROC}/endpointpicker/{pool}" for pool in pools}
    off = {name: _per_route(disabled=True) for name in names.values()}
    routes = [
        route | {"typed_per_filter_config": {n: v for n, v in off.items() if n != names[pool]}}
        for pool, route in _routes(objects)
    ]
    filters = [_filter(name, _asks(pool)) for pool, name in names.items()]
    config = _bootstrap(listener, admin, routes, filters, pools)
    config["static_resources"]["clusters"] += map(_original_destination, pools)
    for patch in _patches(objects):
        if patch["applyTo"] == "HTTP_FILTER":
            place = patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]
            place["name"] = filters[0]["name"]
        apply(config["static_resources"], patch)
    return config


def _patches(objects):
    [filters] = only(objects, "EnvoyFilter")
    return filters["spec"]["configPatches"]


def _routes(objects):
    """Yield the InferencePool and Envoy's route of each rule, those with headers first."""
    [route] = only(objects, "HTTPRoute")
    for rule in sorted(route["spec"]["rules"], key=lambda rule: "headers" not in str(rule)):
        [backend], [match] = rule["backendRefs"], rule["matches"]
        [modifier] = rule["filters"]
        headers = [
            {"name": each["name"], "string_match": {"exact": each["value"]}}
            for each in match.get("headers", ())
        ]
        yield (
            backend["name"],
            {
                "name": rule["name"],
                "match": {"prefix": "/", "headers": headers},
                "route": {"cluster": backend["name"], "timeout": "0s"},
                "request_headers_to_remove": modifier["requestHeaderModifier"]["remove"],
            },
        )


def _grpc(cluster):
    return {"grpc_service": {"envoy_grpc": {"cluster_name": cluster}}}


def _asks(pool):
    # As with `failureMode: FailOpen`.
    return {"processing_mode": _PICKER_MODE, "failure_mode_allow": True, **_grpc(f"{pool}-epp")}


def _filter(name, config):
    kind = {"@type": f"{_TYPES}.filters.http.ext_proc.v3.ExternalProcessor"}
    mutable = {"metadata_options": {"receiving_namespaces": {"untyped": ["envoy.lb"]}}}
    return {"name": name, "typed_config": kind | config | mutable}


def _per_route(**fields):
    return {"@type": f"{_TYPES}.filters.http.ext_proc.v3.ExtProcPerRoute", **fields}


def _bootstrap(listener, admin, routes, filters, pools):
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "llm",
        "http_filters": [
            *filters,
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
            },
        ],
        "route_config": {
            "virtual_hosts": [{"name": "llm", "domains": ["*"], "routes": routes}],
        },
    }
    hcm = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "admin": {"address": _socket(f"127.0.0.1:{admin}")},
        "static_resources": {
            "listeners": [
                {
                    "name": "llm",
                    "address": _socket(f"127.0.0.1:{listener}"),
                    "filter_chains": [{"filters": [hcm]}],
                }
            ],
            "clusters": [_picker(pool, port) for pool, (port, _) in pools.items()],
        },
    }


def _picker(pool, port):
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"explicit_http_config": {"http2_protocol_options": {}}}
    return _static(f"{pool}-epp", [f"127.0.0.1:{port}"]) | {
        "typed_extension_protocol_options": {
            options: {"@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions", **http2}
        }
    }


def _override_host(pool, servers):
    fallback = {
        "name": "envoy.load_balancing_policies.round_robin",
        "typed_config": {"@type": f"{_TYPES}.load_balancing_policies.round_robin.v3.RoundRobin"},
    }
    source = {"metadata": {"key": "envoy.lb", "path": [{"key": DESTINATION}]}}
    policy = {
        "@type": f"{_TYPES}.load_balancing_policies.override_host.v3.OverrideHost",
        "override_host_sources": [source],
        "fallback_policy": {"policies": [{"typed_extension_config": fallback}]},
    }
    name = "envoy.load_balancing_policies.override_host"
    chosen = {"typed_extension_config": {"name": name, "typed_config": policy}}
    return _static(pool, servers) | {"load_balancing_policy": {"policies": [chosen]}}


def _original_destination(pool):
    return {
        "name": pool,
        "type": "ORIGINAL_DST",
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": DESTINATION},
    }


def _static(name, addresses):
    endpoints = [{"endpoint": {"address": _socket(address)}} for address in addresses]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _socket(address):
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
