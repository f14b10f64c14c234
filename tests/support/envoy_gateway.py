"""Translate our Kubernetes objects to an Envoy bootstrap as Envoy Gateway 1.9 does.

It follows the package internal/xds/translator and its golden files (extproc.go, lua.go,
httpfilters.go, cluster.go, translator.go, testdata/out/xds-ir). An unknown field fails the test, so
that no part of our objects is ignored.
"""

import itertools

from tests.support.manifests import only

_TYPES = "type.googleapis.com/envoy.extensions"
_UNITS = {"Mi": 1 << 20, "Ki": 1 << 10}
_MODES = {"Buffered": "BUFFERED", "Streamed": "STREAMED"}


def bootstrap(objects, listener, admin):
    """Return the configuration of the gateway's Envoy, whose clusters have the hosts' names."""
    [route] = only(objects, "HTTPRoute")
    return {
        "admin": {"address": _socket("127.0.0.1", admin)},
        "static_resources": {
            "listeners": [_listener(objects, route, listener)],
            "clusters": [
                *(_pool_cluster(objects, rule) for rule in route["spec"]["rules"]),
                *(
                    _service_cluster(objects, *item)
                    for item in enumerate(_extension(objects)["extProc"])
                ),
            ],
        },
    }


def _extension(objects):
    [policy] = only(objects, "EnvoyExtensionPolicy")
    return policy["spec"]


def _listener(objects, route, port):
    # ClientTrafficPolicy.connection.bufferLimit -> per_connection_buffer_limit_bytes (32 KiB).
    client = dict(only(objects, "ClientTrafficPolicy")[0]["spec"])
    del client["targetRefs"]
    assert set(client) == {"connection", "http2", "headers", "timeout"}
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": f"http-{port}",
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "common_http_protocol_options": {
            "headers_with_underscores_action": {"RejectRequest": "REJECT_REQUEST"}[
                client["headers"]["withUnderscoresAction"]
            ]
        },
        "http2_protocol_options": {
            "initial_stream_window_size": _bytes(client["http2"]["initialStreamWindowSize"]),
            "initial_connection_window_size": _bytes(
                client["http2"]["initialConnectionWindowSize"]
            ),
            "max_concurrent_streams": 100,
        },
        "stream_idle_timeout": client["timeout"]["http"]["streamIdleTimeout"],
        "early_header_mutation_extensions": [
            _early(client["headers"]["earlyRequestHeaders"]["removeOnMatch"])
        ],
        "http_filters": [*_filters(_extension(objects)), _router()],
        "route_config": {
            "name": "llm-gateway/llm-gateway/http",
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": list(_routes(objects, route))},
            ],
        },
    }
    return {
        "name": "llm-gateway/llm-gateway/http",
        "address": _socket("127.0.0.1", port),
        "per_connection_buffer_limit_bytes": _bytes(client["connection"]["bufferLimit"]),
        "filter_chains": [
            {"filters": [{"name": "http_connection_manager", "typed_config": manager}]}
        ],
    }


def _early(matches):
    # headers.earlyRequestHeaders.removeOnMatch -> early_header_mutation_extensions.
    assert all(match["type"] == "Prefix" for match in matches)
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{_TYPES}.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [
                {"remove_on_match": {"key_matcher": {"prefix": match["value"]}}}
                for match in matches
            ],
        },
    }


def _filters(extension):
    """Yield the filters, Lua before ext_proc; each is disabled and enabled by routes."""
    for index, script in enumerate(extension["lua"]):
        assert script["type"] == "Inline"
        source = {"inline_string": script["inline"]}
        yield {
            "name": f"envoy.filters.http.lua/{index}",
            "disabled": True,
            "typed_config": {
                "@type": f"{_TYPES}.filters.http.lua.v3.Lua",
                "default_source_code": source,
            },
        }
    for index, processor in enumerate(extension["extProc"]):
        yield {
            "name": f"envoy.filters.http.ext_proc/{index}",
            "disabled": True,
            "typed_config": _ext_proc(index, processor),
        }


def _ext_proc(index, given):
    # buildProcessingMode: request/response present -> headers SEND; body -> its mode.
    known = {"backendRefs", "backendSettings", "failOpen", "messageTimeout", "metadata"}
    assert set(given) <= known | {"processingMode", "shadowMode"}
    mode, metadata = given["processingMode"], given["metadata"]
    config = {
        "@type": f"{_TYPES}.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": f"service/{index}"}, "timeout": "10s"},
        "failure_mode_allow": given.get("failOpen", False),
        "observability_mode": given.get("shadowMode", False),
        "processing_mode": {"request_trailer_mode": "SKIP", "response_trailer_mode": "SKIP"},
        "metadata_options": {
            "forwarding_namespaces": {"untyped": metadata.get("accessibleNamespaces", [])},
            "receiving_namespaces": {"untyped": metadata.get("writableNamespaces", [])},
        },
    }
    for side in ("request", "response"):
        sent = {True: "SEND", False: "SKIP"}[side in mode]
        body = _MODES[mode[side]["body"]] if "body" in mode.get(side, {}) else "NONE"
        config["processing_mode"] |= {f"{side}_header_mode": sent, f"{side}_body_mode": body}
        config[f"{side}_attributes"] = mode.get(side, {}).get("attributes", [])
    if "messageTimeout" in given:
        config["message_timeout"] = _seconds(given["messageTimeout"])
    return config


def _router():
    config = {"@type": f"{_TYPES}.filters.http.router.v3.Router", "suppress_envoy_headers": True}
    return {"name": "envoy.filters.http.router", "typed_config": config}


def _routes(objects, route):
    extension = _extension(objects)
    [reference] = extension["targetRefs"]
    assert (reference["kind"], reference["name"]) == ("HTTPRoute", route["metadata"]["name"])
    on = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}
    # Gateway API: of two rules that match, the one with more header matches comes first.
    rules = sorted(route["spec"]["rules"], key=lambda rule: -len(_headers(rule)))
    for rule in rules:
        changes = {filter_["type"]: filter_ for filter_ in rule["filters"]}
        set_ = changes["ResponseHeaderModifier"]["responseHeaderModifier"]["set"]
        remove = changes["RequestHeaderModifier"]["requestHeaderModifier"]["remove"]
        yield {
            "name": f"httproute/{rule['name']}",
            "match": {"prefix": "/", "headers": _headers(rule)},
            "route": {"cluster": f"pools/{rule['name']}", **_policy(objects, rule)},
            "request_headers_to_remove": remove,
            "response_headers_to_add": [
                {
                    "header": {"key": header["name"], "value": header["value"]},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
                for header in set_
            ],
            "typed_per_filter_config": {
                **{f"envoy.filters.http.lua/{n}": on for n in range(len(extension["lua"]))},
                **{
                    f"envoy.filters.http.ext_proc/{n}": on for n in range(len(extension["extProc"]))
                },
            },
        }


def _headers(rule):
    given = itertools.chain(*(match["headers"] for match in rule.get("matches", [])))
    return [{"name": h["name"], "string_match": {"exact": h["value"]}} for h in given]


def _traffic(objects, rule):
    [policy] = [
        policy["spec"]
        for policy in only(objects, "BackendTrafficPolicy")
        if policy["spec"]["targetRefs"][0]["sectionName"] == rule["name"]
    ]
    known = {"targetRefs", "retry", "circuitBreaker", "healthCheck", "timeout"}
    assert set(policy) <= known
    return policy


def _policy(objects, rule):
    # BackendTrafficPolicy.retry -> retry_policy; timeout.http.requestTimeout -> timeout.
    policy = _traffic(objects, rule)
    retry = policy["retry"]
    back_off = retry["perRetry"]["backOff"]
    config = {
        "retry_on": ",".join(retry["retryOn"]["triggers"]),
        "retriable_status_codes": retry["retryOn"].get("httpStatusCodes", [503]),
        "num_retries": retry["numRetries"],
        "retry_back_off": {
            "base_interval": _seconds(back_off["baseInterval"]),
            "max_interval": _seconds(back_off["maxInterval"]),
        },
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": f"{_TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 5,
    }
    if frequency := retry.get("numAttemptsPerPriority"):
        kind = f"{_TYPES}.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
        config["retry_priority"] = {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {"@type": kind, "update_frequency": frequency},
        }
    return {"retry_policy": config, "timeout": policy["timeout"]["http"]["requestTimeout"]}


def _backends(objects):
    return {thing["metadata"]["name"]: thing["spec"] for thing in only(objects, "Backend")}


def _pool_cluster(objects, rule):
    """Return a rule's cluster; each Backend is a locality of it, `fallback` -> priority 1."""
    backends = _backends(objects)
    policy = _traffic(objects, rule)
    localities = []
    for index, reference in enumerate(rule["backendRefs"]):
        backend = backends[reference["name"]]
        [endpoint] = [endpoint["fqdn"] for endpoint in backend["endpoints"]]
        address = _socket(endpoint["hostname"], endpoint["port"])
        localities.append(
            {
                "locality": {"region": f"backend/{index}"},
                "lb_endpoints": [{"endpoint": {"address": address}, "load_balancing_weight": 1}],
                "load_balancing_weight": 1,
                "priority": int(backend.get("fallback", False)),
            }
        )
    passive = policy.get("healthCheck", {}).get("passive")
    name = f"pools/{rule['name']}"
    return {
        "name": name,
        "type": "STRICT_DNS",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {"locality_weighted_lb_config": {}},
        "connect_timeout": policy["timeout"]["tcp"]["connectTimeout"],
        "per_connection_buffer_limit_bytes": 32768,
        "circuit_breakers": _breakers(policy["circuitBreaker"]),
        "load_assignment": {"cluster_name": name, "endpoints": localities},
        **({"outlier_detection": _outliers(passive)} if passive else {}),
        **_protocol(
            {"http_protocol_options": {}}, policy["timeout"]["http"]["connectionIdleTimeout"]
        ),
    }


def _service_cluster(objects, index, processor):
    # backendSettings: as a BackendTrafficPolicy; panicThreshold -> healthy_panic_threshold.
    [reference], settings = processor["backendRefs"], processor["backendSettings"]
    assert set(settings) == {"circuitBreaker", "healthCheck", "timeout"}
    active = settings["healthCheck"]["active"]
    backend = _backends(objects)[reference["name"]]
    [endpoint] = [endpoint["fqdn"] for endpoint in backend["endpoints"]]
    name = f"service/{index}"
    return {
        "name": name,
        "type": "STRICT_DNS",
        "lb_policy": "LEAST_REQUEST",
        "connect_timeout": _seconds(settings["timeout"]["tcp"]["connectTimeout"]),
        "per_connection_buffer_limit_bytes": 32768,
        "circuit_breakers": _breakers(settings["circuitBreaker"]),
        "common_lb_config": {
            "healthy_panic_threshold": {"value": settings["healthCheck"]["panicThreshold"]}
        },
        "health_checks": [
            {
                "interval": active["interval"],
                "timeout": _seconds(active["timeout"]),
                "unhealthy_threshold": active["unhealthyThreshold"],
                "healthy_threshold": active["healthyThreshold"],
                "grpc_health_check": {"service_name": active["grpc"]["service"]},
            }
        ],
        "transport_socket": _upstream_tls(backend["tls"]),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": _socket(endpoint["hostname"], endpoint["port"])}}
                    ]
                }
            ],
        },
        **_protocol({"http2_protocol_options": {"initial_stream_window_size": 65536}}),
    }


def _upstream_tls(tls):
    """buildXdsUpstreamTLSSocketWthCert: without named SANs, `sni` is what is validated."""
    assert set(tls) == {"sni", "alpnProtocols", "caCertificateRefs", "clientCertificateRef"}
    [authority] = tls["caCertificateRefs"]
    assert authority["name"] == tls["clientCertificateRef"]["name"]
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": tls["sni"],
            "auto_sni_san_validation": True,
            "common_tls_context": {
                "alpn_protocols": tls["alpnProtocols"],
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_2",
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
                "tls_certificate_sds_secret_configs": [
                    {"name": tls["clientCertificateRef"]["name"], "sds_config": {"ads": {}}}
                ],
                "combined_validation_context": {
                    "default_validation_context": {},
                    "validation_context_sds_secret_config": {
                        "name": f"{authority['name']}-ca",
                        "sds_config": {"ads": {}},
                    },
                },
            },
        },
    }


def _breakers(given):
    limits = {
        "max_connections": given["maxConnections"],
        "max_pending_requests": given["maxPendingRequests"],
        "max_requests": given["maxParallelRequests"],
        "max_retries": given.get("maxParallelRetries", 1024),
    }
    return {"thresholds": [limits]}


def _outliers(passive):
    return {
        "consecutive_5xx": passive["consecutive5XxErrors"],
        "base_ejection_time": passive["baseEjectionTime"],
        "max_ejection_percent": passive["maxEjectionPercent"],
        "interval": passive["interval"],
    }


def _protocol(explicit, idle_timeout=None):
    options = {
        "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": explicit,
    }
    if idle_timeout:
        options["common_http_protocol_options"] = {"idle_timeout": idle_timeout}
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {"typed_extension_protocol_options": {name: options}}


def _bytes(quantity):
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


def _seconds(duration):
    if duration.endswith("ms"):
        return f"{int(duration[:-2]) / 1000:.3f}s"
    return duration


def _socket(host, port):
    return {"socket_address": {"address": host, "port_value": port}}
