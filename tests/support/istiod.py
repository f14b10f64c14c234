"""Translate our Istio objects to an Envoy bootstrap as istiod 1.30 does.

The base is a gateway's configuration as istiod generates it, reduced to what the patches change.
They are applied as the package pilot/pkg/networking/core/envoyfilter does: in their order, a MERGE
as protobuf merges (scalars replaced, lists appended).
"""

import copy

from tests.support.manifests import only

_HCM = "envoy.filters.network.http_connection_manager"
_TYPES = "type.googleapis.com/envoy.extensions"


def bootstrap(objects, listener, admin):
    """Return the configuration of the gateway's Envoy, whose clusters have the hosts' names."""
    config = {
        "admin": {"address": _socket("127.0.0.1", admin)},
        "static_resources": {
            "listeners": [_listener(objects, listener)],
            "clusters": [_cluster(objects, host, port) for host, port in _destinations(objects)],
        },
    }
    for filter_ in only(objects, "EnvoyFilter"):
        for patch in filter_["spec"]["configPatches"]:
            apply(config["static_resources"], patch)
    return config


def apply(resources, patch):
    """Apply one patch as istiod does; a patch without a match fails the test."""
    operation, value = patch["patch"]["operation"], copy.deepcopy(patch["patch"]["value"])
    assert patch["match"]["context"] == "GATEWAY"
    [listener] = resources["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]
    match patch["applyTo"], operation:
        case "CLUSTER", "ADD":
            resources["clusters"].append(value)
        case "CLUSTER", "MERGE":
            given = patch["match"]["cluster"]
            named = _name(given["service"], given["portNumber"])
            [cluster] = [each for each in resources["clusters"] if each["name"] == named]
            merge(cluster, value)
        case "NETWORK_FILTER", "MERGE":
            assert patch["match"]["listener"]["filterChain"]["filter"]["name"] == manager["name"]
            merge(manager, value)
        case "HTTP_FILTER", "INSERT_BEFORE":
            filters = manager["typed_config"]["http_filters"]
            sub = patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"]
            filters.insert([f["name"] for f in filters].index(sub), value)
        case "VIRTUAL_HOST", "MERGE":
            [host] = manager["typed_config"]["route_config"]["virtual_hosts"]
            merge(host, value)
        case "HTTP_ROUTE", "INSERT_BEFORE":
            named = patch["match"]["routeConfiguration"]["vhost"]["route"]["name"]
            [host] = manager["typed_config"]["route_config"]["virtual_hosts"]
            routes = host["routes"]
            routes.insert([each["name"] for each in routes].index(named), value)
        case other:
            raise AssertionError(f"istiod's rule for {other} is not written here")


def merge(into, value):
    """Merge as protobuf does."""
    for key, new in value.items():
        old = into.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            merge(old, new)
        elif isinstance(old, list) and isinstance(new, list):
            old.extend(new)
        else:
            into[key] = new


def _listener(objects, port):
    [service] = only(objects, "VirtualService")
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": f"outbound_0.0.0.0_{port}",
        "use_remote_address": True,
        "normalize_path": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [_filter("cors"), _filter("fault", "HTTPFault"), _filter("router")],
        "route_config": {
            "name": f"http.{port}",
            "virtual_hosts": [
                {
                    "name": f"*:{port}",
                    "domains": service["spec"]["hosts"],
                    "include_request_attempt_count": True,
                    "routes": [_route(rule) for rule in service["spec"]["http"]],
                }
            ],
        },
    }
    return {
        "name": f"0.0.0.0_{port}",
        "address": _socket("127.0.0.1", port),
        "filter_chains": [{"filters": [{"name": _HCM, "typed_config": manager}]}],
    }


def _filter(name, message=None):
    config = f"{_TYPES}.filters.http.{name}.v3.{message or name.title()}"
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": config}}


def _route(rule):
    headers = rule.get("match", [{}])[0].get("headers", {})
    matchers = [{"name": name, "string_match": value} for name, value in headers.items()]
    [destination] = [route["destination"] for route in rule["route"]]
    assert rule["retries"] == {"attempts": 0}
    return {
        "name": rule["name"],
        "match": {"prefix": "/", "headers": matchers},
        "route": {"cluster": _name(destination["host"], destination["port"]["number"])},
    }


def _destinations(objects):
    [service] = only(objects, "VirtualService")
    found = [route["destination"] for rule in service["spec"]["http"] for route in rule["route"]]
    return sorted({(one["host"], one["port"]["number"]) for one in found})


def _name(host, port):
    return f"outbound|{port}||{host}"


def _cluster(objects, host, port):
    # applyConnectionPool, applyOutlierDetection, applyTCPKeepalive.
    [rule] = [r for r in only(objects, "DestinationRule") if r["spec"]["host"] == host]
    policy = rule["spec"]["trafficPolicy"]
    assert set(policy) == {"loadBalancer", "connectionPool", "outlierDetection"}
    tcp, http = policy["connectionPool"]["tcp"], policy["connectionPool"]["http"]
    alive, outliers = tcp["tcpKeepalive"], policy["outlierDetection"]
    return {
        "name": _name(host, port),
        "type": "STRICT_DNS",  # in place of EDS: the endpoints of the Service
        "connect_timeout": tcp["connectTimeout"],
        "lb_policy": policy["loadBalancer"]["simple"],
        "load_assignment": {
            "cluster_name": _name(host, port),
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(host, port)}}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": http["idleTimeout"]},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": tcp["maxConnections"],
                    "max_pending_requests": http["http1MaxPendingRequests"],
                    "max_requests": http["http2MaxRequests"],
                    "max_retries": http["maxRetries"],
                }
            ]
        },
        "upstream_connection_options": {
            "tcp_keepalive": {
                "keepalive_time": int(alive["time"].removesuffix("s")),
                "keepalive_interval": int(alive["interval"].removesuffix("s")),
                "keepalive_probes": alive["probes"],
            }
        },
        "common_lb_config": {"healthy_panic_threshold": {"value": outliers["minHealthPercent"]}},
        "outlier_detection": {
            "consecutive_gateway_failure": outliers["consecutiveGatewayErrors"],
            "enforcing_consecutive_gateway_failure": 100,
            "consecutive_5xx": outliers["consecutive5xxErrors"],
            "enforcing_consecutive_5xx": 100 if outliers["consecutive5xxErrors"] else 0,
            "interval": outliers["interval"],
            "base_ejection_time": outliers["baseEjectionTime"],
            "max_ejection_percent": outliers["maxEjectionPercent"],
            "enforcing_success_rate": 0,
        },
    }


def _socket(host, port):
    return {"socket_address": {"address": host, "port_value": port}}
