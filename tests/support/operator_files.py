"""Envoy files as operators have them, each joined to the service rightly, and faults to plant.

A fault is a change of a file that Envoy accepts, and the finding that it causes.
"""

import copy

import yaml

from tests.support.paths import DATA

FOLDER = DATA / "envoy_files" / "operators"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
EXT_PROC = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3"


def load(name):
    """Return the document of a file."""
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def broken(name):
    """Return the document of a file with a fault planted."""
    file, change, _ = FAULTS[name]
    document = load(file)
    change(document)
    return document


def manager(document, listener=0):
    found = document["static_resources"]["listeners"][listener]
    return found["filter_chains"][0]["filters"][0]["typed_config"]


def hosts(document, listener=0):
    return manager(document, listener)["route_config"]["virtual_hosts"]


def routes(document, host=0, listener=0):
    return hosts(document, listener)[host]["routes"]


def http_filter(document, name, listener=0):
    [found] = [f for f in manager(document, listener)["http_filters"] if f["name"] == name]
    return found


def move(document, name, position, listener=0):
    """Move a filter to a position of the chain."""
    chain = manager(document, listener)["http_filters"]
    found = http_filter(document, name, listener)
    chain.remove(found)
    chain.insert(position, found)


def cluster(document, name):
    [found] = [c for c in document["static_resources"]["clusters"] if c["name"] == name]
    return found


def again(document, listener, name, port):
    """Add a listener like another one, without the service's filters."""
    found = copy.deepcopy(document["static_resources"]["listeners"][listener])
    found |= {
        "name": name,
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
    }
    document["static_resources"]["listeners"].append(found)
    chain = manager(document, -1)["http_filters"]
    chain[:] = [f for f in chain if not f["name"].startswith("dualpool.")]
    for route in routes(document, listener=-1):
        route.pop("typed_per_filter_config", None)


def tcp_proxy(document, cluster_name):
    kind = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    proxy = {"@type": kind, "stat_prefix": "raw", "cluster": cluster_name}
    address = {"socket_address": {"address": "0.0.0.0", "port_value": 9999}}
    chain = {"filters": [{"name": "tcp", "typed_config": proxy}]}
    listener = {"name": "raw", "address": address, "filter_chains": [chain]}
    document["static_resources"]["listeners"].append(listener)


def other_name(document, pool):
    """Add a cluster of the pool's servers under another name, and a route to it."""
    found = copy.deepcopy(cluster(document, pool)) | {"name": "vllm"}
    document["static_resources"]["clusters"].append(found)
    route = {"match": {"prefix": "/direct/"}, "route": {"cluster": "vllm", "timeout": "0s"}}
    routes(document).insert(0, route)


def per_route(route, name):
    return route["typed_per_filter_config"][name]


FAULTS = {
    "the router before JWT": (
        "jwt_and_cors",
        lambda d: move(d, "dualpool.router", 1),
        "dualpool.router gets requests that envoy.filters.http.jwt_authn has not accepted yet: "
        "move it after envoy.filters.http.jwt_authn",
    ),
    "the observer before JWT": (
        "jwt_and_cors",
        lambda d: move(d, "dualpool.observer", 1),
        "dualpool.observer gets requests that envoy.filters.http.jwt_authn has not accepted yet",
    ),
    "a route that comes too late": (
        "jwt_and_cors",
        lambda d: routes(d).insert(1, routes(d).pop(0)),
        "this route hides that for x-llm-pool: short: move it behind that one",
    ),
    "the filters of the default route": (
        "jwt_and_cors",
        lambda d: routes(d)[1].pop("typed_per_filter_config"),
        "requests reach a pool without the service: enable dualpool.router on this route",
    ),
    "no default route": (
        "jwt_and_cors",
        lambda d: routes(d).pop(1),
        "no route matches requests without x-llm-pool: add a last one to long",
    ),
    "a limit of the listener": (
        "jwt_and_cors",
        lambda d: routes(d)[1].pop("request_body_buffer_limit"),
        "a body above 1048576 bytes gets 413: set 33554432",
    ),
    "the filters on for all": (
        "jwt_and_cors",
        lambda d: http_filter(d, "dualpool.router").pop("disabled"),
        "disabled: dualpool.router also runs for requests to 'app', which is no pool",
    ),
    "the router before authorization": (
        "ext_authz_and_ratelimit",
        lambda d: move(d, "envoy.filters.http.ext_authz", 2),
        "dualpool.router gets requests that envoy.filters.http.ext_authz has not accepted yet",
    ),
    "the router before the rate limit": (
        "ext_authz_and_ratelimit",
        lambda d: move(d, "envoy.filters.http.ratelimit", 2),
        "dualpool.router gets requests that envoy.filters.http.ratelimit has not accepted yet",
    ),
    "authorization of whole bodies": (
        "ext_authz_and_ratelimit",
        lambda d: http_filter(d, "envoy.filters.http.ext_authz")["typed_config"][
            "with_request_body"
        ].pop("allow_partial_message"),
        "with_request_body.max_request_bytes: a body above 8192 bytes gets 413: set 33554432",
    ),
    "the observer left off": (
        "ext_authz_and_ratelimit",
        lambda d: hosts(d)[0]["typed_per_filter_config"].pop("dualpool.observer"),
        "the service learns nothing from these answers: enable dualpool.observer on this route",
    ),
    "a default route to the short pool": (
        "ext_authz_and_ratelimit",
        lambda d: routes(d)[1]["route"].update(cluster="short"),
        "requests without x-llm-pool go to 'short': set 'long', the largest pool",
    ),
    "fail-closed on a route": (
        "ext_authz_and_ratelimit",
        lambda d: per_route(hosts(d)[0], "dualpool.router").update(
            overrides={"failure_mode_allow": False}
        ),
        "requests fail while the service is down: set true",
    ),
    "a third listener round the service": (
        "two_listeners",
        lambda d: again(d, 0, "batch", 8090),
        "requests reach a pool without the service: add the service's filters to this listener",
    ),
    "a TCP proxy": (
        "two_listeners",
        lambda d: tcp_proxy(d, "short"),
        "requests reach a pool without the service: a TCP proxy cannot call it",
    ),
    "a listener whose pools clients choose": (
        "two_listeners",
        lambda d: manager(d, 1).pop("early_header_mutation_extensions"),
        "clients can choose their pool: remove x-llm-* before routes are matched",
    ),
    "a filter that one route disables": (
        "two_listeners",
        lambda d: routes(d, listener=1)[-1].update(
            typed_per_filter_config={
                "dualpool.router": {"@type": f"{EXT_PROC}.ExtProcPerRoute", "disabled": True}
            }
        ),
        "requests reach a pool without the service: enable dualpool.router on this route",
    ),
    "the largest pool under another name": (
        "two_listeners",
        lambda d: other_name(d, "short"),
        "requests without x-llm-pool go to 'vllm': set 'long', the largest pool",
    ),
    "a pool that no route takes": (
        "virtual_hosts",
        lambda d: routes(d, host=2).pop(1),
        "no route matches x-llm-pool: short: add one",
    ),
    "a route to the wrong pool": (
        "virtual_hosts",
        lambda d: routes(d, host=2)[1]["route"].update(cluster="long"),
        "requests with x-llm-pool: short go to another cluster: set 'short'",
    ),
    "a way in from another host": (
        "virtual_hosts",
        lambda d: routes(d, host=1).insert(
            0, {"match": {"prefix": "/llm/"}, "route": {"cluster": "long", "timeout": "0s"}}
        ),
        "requests reach a pool without the service: enable dualpool.router on this route",
    ),
    "a default that is another application's": (
        "virtual_hosts",
        lambda d: routes(d, host=2)[2].update(
            typed_per_filter_config={}, route={"cluster": "embedder"}
        ),
        "no route matches requests without x-llm-pool: add a last one to long",
    ),
    "answers of fifteen seconds": (
        "virtual_hosts",
        lambda d: routes(d, host=2)[1]["route"].pop("timeout"),
        "long answers are cut off after 15s: set 0s",
    ),
    "headers alone": (
        "virtual_hosts",
        lambda d: per_route(routes(d, host=2)[2], "dualpool.router").update(
            overrides={"processing_mode": {"request_header_mode": "SEND"}}
        ),
        "NONE cannot change the route: set BUFFERED",
    ),
    "the router before the local rate limit": (
        "edge_tls_http2",
        lambda d: move(d, "envoy.filters.http.local_ratelimit", 2),
        "gets requests that envoy.filters.http.local_ratelimit has not accepted yet",
    ),
    "the edge's age of a stream": (
        "edge_tls_http2",
        lambda d: routes(d)[1]["route"].pop("max_stream_duration"),
        "max_stream_duration: long answers are cut off after 120s: set 0s",
    ),
    "the edge's silence": (
        "edge_tls_http2",
        lambda d: routes(d)[2]["route"].pop("idle_timeout"),
        "idle_timeout: an answer that is silent for 60s is cut off: set 600s or 0s",
    ),
    "the edge's buffer": (
        "edge_tls_http2",
        lambda d: routes(d)[2].pop("request_body_buffer_limit"),
        "a body above 32768 bytes gets 413: set 33554432",
    ),
    "compressed answers": (
        "lua_and_compressor",
        lambda d: move(d, "envoy.filters.http.compressor", 5),
        "answers are compressed before dualpool.observer reads them: "
        "move envoy.filters.http.compressor before dualpool.observer",
    ),
    "a buffer for all": (
        "lua_and_compressor",
        lambda d: http_filter(d, "envoy.filters.http.buffer").pop("disabled"),
        "max_request_bytes: a body above 1048576 bytes gets 413: set 33554432",
    ),
    "few retries": (
        "lua_and_compressor",
        lambda d: cluster(d, "short_then_long").pop("circuit_breakers"),
        "circuit_breakers: at most 3 concurrent retries: raise max_retries",
    ),
    "an aggregate the other way round": (
        "lua_and_compressor",
        lambda d: cluster(d, "short_then_long")["cluster_type"]["typed_config"].update(
            clusters=["long", "short"]
        ),
        "requests with x-llm-pool: short go to another cluster: set 'short'",
    ),
    "usage that nobody reads": (
        "lua_and_compressor",
        lambda d: http_filter(d, "dualpool.observer")["typed_config"].update(
            processing_mode={"response_header_mode": "SEND", "response_trailer_mode": "SEND"},
            metadata_options={
                "forwarding_namespaces": {"untyped": ["llm"], "typed": ["envoy.ai.token_usage"]}
            },
        ),
        "no filter after this one reads the usage of answers: "
        "add envoy.filters.http.ai_protocol_manager there",
    ),
    "a cluster that only a header names": (
        "cluster_header",
        lambda d: routes(d)[0].update(match={"prefix": "/"}),
        "no route matches requests without x-llm-pool: add a last one to long",
    ),
    "no service for the filters": (
        "cluster_header",
        lambda d: http_filter(d, "dualpool.router")["typed_config"]["grpc_service"].update(
            envoy_grpc={"cluster_name": "dualpol"}
        ),
        "no cluster is named 'dualpol': did you mean 'dualpool'?",
    ),
}
