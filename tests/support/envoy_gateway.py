"""Translate our Kubernetes objects to an Envoy bootstrap as Envoy Gateway 1.9 does.

It follows the packages internal/gatewayapi and internal/xds/translator and their golden files
(sort.go, extproc.go, lua.go, request_buffer.go, httpfilters.go, listener.go, cluster.go, route.go,
translator.go). An unknown field fails the test, so that no part of our objects is ignored.
"""

from tests.support.manifests import only

_TYPES = "type.googleapis.com/envoy.extensions"
_MODES = {"Buffered": "BUFFERED", "Streamed": "STREAMED"}
_BUFFER = "envoy.filters.http.buffer"


def bootstrap(objects, listener, admin):
    """Return the configuration of the gateway's Envoy, whose clusters have the hosts' names."""
    rules = _rules(objects)
    return {
        "admin": {"address": _socket("127.0.0.1", admin)},
        "static_resources": {
            "listeners": [_listener(objects, rules, listener)],
            "clusters": [
                *_pool_clusters(objects, rules),
                *(
                    _service_cluster(objects, *item)
                    for item in enumerate(_extension(objects)["extProc"])
                ),
            ],
        },
    }


def cluster_name(rule):
    """Return the name of a rule's cluster."""
    return f"pools/{rule}"


def _rules(objects):
    """Return each HTTPRoute's name and each of its rules, a rule for each match, sorted."""
    found = [
        (route["metadata"]["name"], rule | {"match": match})
        for route in only(objects, "HTTPRoute")
        for rule in route["spec"]["rules"]
        for match in rule.get("matches", [{}])
    ]
    return sorted(found, key=lambda each: _rank(each[1]["match"]), reverse=True)


def _rank(match):
    # sort.go: a regular expression before a prefix, the longer one, more headers, more exact ones.
    path = match.get("path", {}).get("value", "")
    headers = _headers(match)
    exact = [each for each in headers if "exact" in each["string_match"]]
    return (bool(path), len(path), len(headers), len(exact))


def _extension(objects):
    [policy] = only(objects, "EnvoyExtensionPolicy")
    return policy["spec"]


def _listener(objects, rules, port):
    client = dict(only(objects, "ClientTrafficPolicy")[0]["spec"])
    del client["targetRefs"]
    assert set(client) == {"connection", "http1", "http2", "headers", "path", "timeout"}
    connection, http2 = client["connection"], client["http2"]
    headers, times = client["headers"], client["timeout"]["http"]
    assert (client["http1"], set(client["timeout"])) == ({"http10": {}}, {"http"})
    assert set(headers) == {"withUnderscoresAction", "requestID", "earlyRequestHeaders"}
    assert headers["requestID"] == "PreserveOrGenerate"
    assert client["path"] == {"escapedSlashesAction": "UnescapeAndForward"}
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD",
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "http_protocol_options": {"accept_http_10": True},
        "common_http_protocol_options": {
            "headers_with_underscores_action": {"Allow": "ALLOW"}[headers["withUnderscoresAction"]],
            "idle_timeout": times["idleTimeout"],
        },
        "http2_protocol_options": {
            "initial_stream_window_size": http2["initialStreamWindowSize"],
            "initial_connection_window_size": http2["initialConnectionWindowSize"],
            "max_concurrent_streams": http2["maxConcurrentStreams"],
        },
        "request_headers_timeout": times["requestHeadersReceivedTimeout"],
        "request_timeout": times["requestReceivedTimeout"],
        "stream_idle_timeout": times["streamIdleTimeout"],
        "early_header_mutation_extensions": [_early(headers["earlyRequestHeaders"])],
        "http_filters": [_buffer(), *_filters(_extension(objects)), _router()],
        "route_config": {
            "name": "llm-gateway/llm-gateway/http",
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [_route(objects, *each) for each in rules],
                },
            ],
        },
    }
    limit = {
        "@type": f"{_TYPES}.filters.network.connection_limit.v3.ConnectionLimit",
        "stat_prefix": "http",
        "max_connections": connection["connectionLimit"]["value"],
    }
    return {
        "name": "llm-gateway/llm-gateway/http",
        "address": _socket("127.0.0.1", port),
        "per_connection_buffer_limit_bytes": connection["bufferLimit"],
        "filter_chains": [
            {
                "filters": [
                    {"name": "envoy.filters.network.connection_limit", "typed_config": limit},
                    {"name": "http_connection_manager", "typed_config": manager},
                ]
            }
        ],
    }


def _early(given):
    # buildHeaderMutationRules: what is set first, then what is removed.
    assert all(match["type"] == "RegularExpression" for match in given["removeOnMatch"])
    mutations = [
        *(
            {"append": {"header": _key(each), "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
            for each in given["set"]
        ),
        *({"remove": name} for name in given["remove"]),
        *(
            {"remove_on_match": {"key_matcher": {"safe_regex": {"regex": match["value"]}}}}
            for match in given["removeOnMatch"]
        ),
    ]
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{_TYPES}.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": mutations,
        },
    }


def _key(header):
    return {"key": header["name"], "value": header["value"]}


def _buffer():
    # Ordered before Lua; off but for the rules whose policy has a requestBuffer.
    config = {"@type": f"{_TYPES}.filters.http.buffer.v3.Buffer", "max_request_bytes": 1024}
    return {"name": _BUFFER, "disabled": True, "typed_config": config}


def _filters(extension):
    """Yield the filters, Lua before ext_proc; each is disabled and enabled by routes."""
    for index, script in enumerate(extension.get("lua", [])):
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


def _route(objects, route, rule):
    match, changes = rule["match"], {each["type"]: each for each in rule["filters"]}
    config = {"name": f"{route}/{rule['name']}", "match": _match(match)}
    if reference := changes.pop("ExtensionRef", None):
        assert changes == {}
        return config | {"direct_response": _direct_response(objects, reference)}
    request = changes.pop("RequestHeaderModifier")["requestHeaderModifier"]
    answer = changes.pop("ResponseHeaderModifier", None)
    assert changes == {}
    policy = _traffic(objects, route, rule)
    # buildUpgradeConfig: none beside a requestBuffer.
    upgrades = [] if "requestBuffer" in policy else [{"upgrade_type": "websocket"}]
    return config | {
        "route": {
            "cluster": cluster_name(rule["name"]),
            "upgrade_configs": upgrades,
            **_policy(policy),
        },
        "request_headers_to_remove": request["remove"],
        "request_headers_to_add": [_set(each) for each in request.get("set", [])],
        "response_headers_to_add": [
            _set(each) for each in (answer["responseHeaderModifier"]["set"] if answer else [])
        ],
        "typed_per_filter_config": _enabled(objects, route) | _held(policy),
    }


def _match(match):
    assert set(match) <= {"path", "headers", "method"}
    if path := match.get("path"):
        assert path["type"] == "RegularExpression"
    place = {"safe_regex": {"regex": path["value"]}} if path else {"prefix": "/"}
    return place | {"headers": _headers(match)}


def _headers(match):
    given = [
        {
            "name": each["name"],
            "string_match": {"safe_regex": {"regex": each["value"]}}
            if each.get("type") == "RegularExpression"
            else {"exact": each["value"]},
        }
        for each in match.get("headers", [])
    ]
    method = match.get("method")
    return [*given, *([{"name": ":method", "string_match": {"exact": method}}] if method else [])]


def _set(header):
    return {"header": _key(header), "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _direct_response(objects, reference):
    named = reference["extensionRef"]["name"]
    [found] = [
        each["spec"]["directResponse"]
        for each in only(objects, "HTTPRouteFilter")
        if each["metadata"]["name"] == named
    ]
    return {"status": found["statusCode"], "body": {"inline_string": found["body"]["inline"]}}


def _enabled(objects, route):
    extension = _extension(objects)
    [reference] = extension["targetRefs"]
    if (reference["kind"], reference["name"]) != ("HTTPRoute", route):
        return {}
    on = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}}
    return {
        **{f"envoy.filters.http.lua/{n}": on for n in range(len(extension.get("lua", [])))},
        **{f"envoy.filters.http.ext_proc/{n}": on for n in range(len(extension["extProc"]))},
    }


def _held(policy):
    if (buffer := policy.get("requestBuffer")) is None:
        return {}
    config = {
        "@type": f"{_TYPES}.filters.http.buffer.v3.BufferPerRoute",
        "buffer": {"max_request_bytes": buffer["limit"]},
    }
    return {_BUFFER: config}


def _traffic(objects, route, rule):
    [policy] = [
        policy["spec"]
        for policy in only(objects, "BackendTrafficPolicy")
        for target in policy["spec"]["targetRefs"]
        if (target["name"], target["sectionName"]) == (route, rule["name"])
    ]
    known = {"targetRefs", "retry", "circuitBreaker", "healthCheck", "timeout"}
    assert set(policy) <= known | {"requestBuffer", "connection", "tcpKeepalive"}
    return policy


def _policy(policy):
    # BackendTrafficPolicy.retry -> retry_policy; timeout.http.requestTimeout -> timeout.
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


def _pool_clusters(objects, rules):
    # A rule has one cluster, however many matches.
    named = {rule["name"]: (route, rule) for route, rule in rules if "backendRefs" in rule}
    return [_pool_cluster(objects, *each) for each in named.values()]


def _pool_cluster(objects, route, rule):
    """Return a rule's cluster; each Backend is a locality of it, `fallback` -> priority 1."""
    backends = _backends(objects)
    policy = _traffic(objects, route, rule)
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
                "priority": int(backend["fallback"]),
            }
        )
    name, health, alive = cluster_name(rule["name"]), policy["healthCheck"], policy["tcpKeepalive"]
    return {
        "name": name,
        "type": "STRICT_DNS",
        "lb_policy": "LEAST_REQUEST",
        "ignore_health_on_host_removal": True,
        "common_lb_config": {"locality_weighted_lb_config": {}},
        "connect_timeout": _seconds(policy["timeout"]["tcp"]["connectTimeout"]),
        "per_connection_buffer_limit_bytes": policy["connection"]["bufferLimit"],
        "circuit_breakers": _breakers(policy["circuitBreaker"]),
        "upstream_connection_options": {
            "tcp_keepalive": {
                "keepalive_probes": alive["probes"],
                "keepalive_time": int(alive["idleTime"].removesuffix("s")),
                "keepalive_interval": int(alive["interval"].removesuffix("s")),
            }
        },
        "load_assignment": {"cluster_name": name, "endpoints": localities},
        "outlier_detection": _outliers(health["passive"]),
        **({"health_checks": [_check(health["active"])]} if "active" in health else {}),
        **_protocol(
            {"http_protocol_options": {}}, policy["timeout"]["http"]["connectionIdleTimeout"]
        ),
    }


def _check(active):
    kind = {
        "GRPC": lambda: {"grpc_health_check": {}},
        "TCP": lambda: {"tcp_health_check": {}},
        "HTTP": lambda: {"http_health_check": {"host": "*", "path": active["http"]["path"]}},
    }[active["type"]]()
    return {
        "interval": active["interval"],
        "timeout": _seconds(active["timeout"]),
        "unhealthy_threshold": active["unhealthyThreshold"],
        "healthy_threshold": active["healthyThreshold"],
        **kind,
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
        "health_checks": [_check(active)],
        **({"transport_socket": _upstream_tls(backend["tls"])} if "tls" in backend else {}),
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
        "max_retries": given["maxParallelRetries"],
    }
    return {"thresholds": [limits]}


def _outliers(passive):
    return {
        "consecutive_5xx": passive["consecutive5XxErrors"],
        "consecutive_gateway_failure": passive["consecutiveGatewayErrors"],
        "enforcing_consecutive_gateway_failure": 100,
        "base_ejection_time": _seconds(passive["baseEjectionTime"]),
        "max_ejection_percent": passive["maxEjectionPercent"],
        "interval": _seconds(passive["interval"]),
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


def _seconds(duration):
    if duration.endswith("ms"):
        return f"{int(duration[:-2]) / 1000:.3f}s"
    return duration


def _socket(host, port):
    return {"socket_address": {"address": host, "port_value": port}}
