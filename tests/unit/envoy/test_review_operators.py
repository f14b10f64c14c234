"""Operators' own Envoy files compared with the settings: nothing else is judged than our routes."""

import copy

import pytest

from extproc.config.settings import Settings
from extproc.envoy.document import Part
from extproc.envoy.review import review
from tests.support.operator_files import (
    FAULTS,
    NAMES,
    broken,
    cluster,
    hosts,
    http_filter,
    load,
    manager,
    move,
    routes,
)


def findings(document):
    return [str(each) for each in review(Settings(), Part("", document))]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_joins_the_service_rightly_has_no_finding(name):
    assert findings(load(name)) == []


def test_a_pools_cluster_may_have_any_name_where_routes_name_it():
    document = load("virtual_hosts")
    for name in ("short", "long"):
        cluster(document, name)["name"] = f"vllm-{name}"
        for route in routes(document, host=2):
            if route.get("route", {}).get("cluster") == name:
                route["route"]["cluster"] = f"vllm-{name}"
    assert findings(document) == []


def test_a_pools_cluster_has_its_name_where_the_header_names_it():
    document = load("cluster_header")
    cluster(document, "short")["name"] = "vllm-short"
    [finding] = findings(document)
    assert "no cluster is named 'short'" in finding


def test_routes_that_a_matcher_chooses_are_not_judged():
    document = load("ext_authz_and_ratelimit")
    host = hosts(document)[0]
    del host["routes"]
    host["matcher"] = {}
    assert [each for each in findings(document) if "no route" in each] == []


def test_a_decision_may_lead_to_servers_that_the_file_does_not_list():
    document = load("lua_and_compressor")
    picked = {"name": "picked", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"}
    document["static_resources"]["clusters"].append(picked)
    config = cluster(document, "short_then_long")["cluster_type"]["typed_config"]
    config["clusters"] = [{"name": "picked"}, {"name": "long"}]
    assert findings(document) == []


def test_a_large_body_may_go_to_the_largest_pool_by_its_head_alone():
    document = load("virtual_hosts")
    large = copy.deepcopy(routes(document, host=2)[2])
    size = {"name": "content-length", "range_match": {"start": (1 << 22) + 1, "end": 1 << 40}}
    large["match"]["headers"] = [size]
    head = {"processing_mode": {"request_header_mode": "SEND", "request_body_mode": "NONE"}}
    large["typed_per_filter_config"]["dualpool.router"]["overrides"] = head
    routes(document, host=2).insert(1, large)
    assert findings(document) == []


def test_an_answer_may_take_an_hour():
    document = load("virtual_hosts")
    for route in routes(document, host=2)[1:3]:
        route["route"]["timeout"] = "3600s"
    assert findings(document) == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_nothing_else(name):
    found = findings(broken(name))
    assert found
    assert all(FAULTS[name][2] in each for each in found), found


BUFFER = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute"
AUTHZ = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"


def test_a_buffer_of_a_route_is_judged_by_its_own_limit():
    document = load("lua_and_compressor")
    http_filter(document, "envoy.filters.http.buffer").pop("disabled")
    for route, size in zip(routes(document)[1:3], (1 << 25, 4096), strict=True):
        own = {"@type": BUFFER, "buffer": {"max_request_bytes": size}}
        route["typed_per_filter_config"]["envoy.filters.http.buffer"] = own
    [finding] = findings(document)
    assert "routes[2]" in finding
    assert "a body above 4096 bytes gets 413: set 33554432" in finding


def test_authorization_that_does_not_buffer_a_route_does_not_limit_it():
    document = load("ext_authz_and_ratelimit")
    authz = http_filter(document, "envoy.filters.http.ext_authz")["typed_config"]
    authz["with_request_body"].pop("allow_partial_message")
    own = {"@type": AUTHZ, "check_settings": {"disable_request_body_buffering": True}}
    hosts(document)[0]["typed_per_filter_config"]["envoy.filters.http.ext_authz"] = own
    assert findings(document) == []


def test_a_filter_that_refuses_nothing_on_the_route_may_come_later():
    document = load("jwt_and_cors")
    jwt = http_filter(document, "envoy.filters.http.jwt_authn")["typed_config"]
    jwt["rules"] = [{"match": {"prefix": "/admin/"}, "requires": {"provider_name": "sso"}}]
    move(document, "dualpool.router", 1)
    assert findings(document) == []


def test_a_compressor_of_requests_alone_may_come_later():
    document = load("lua_and_compressor")
    off = {"common_config": {"enabled": {"default_value": False, "runtime_key": "x"}}}
    compressor = http_filter(document, "envoy.filters.http.compressor")["typed_config"]
    compressor["response_direction_config"] = off
    move(document, "envoy.filters.http.compressor", 5)
    assert findings(document) == []


def test_headers_may_be_removed_as_internal_ones():
    document = load("jwt_and_cors")
    manager(document).pop("early_header_mutation_extensions")
    manager(document)["route_config"]["internal_only_headers"] = ["x-llm-pool"]
    assert findings(document) == []


def test_a_filter_of_an_unknown_cluster_is_taken_for_the_services_if_there_is_no_other():
    document = load("cluster_header")
    cluster(document, "dualpool")["name"] = "decisions"
    cluster(document, "decisions")["load_assignment"]["endpoints"][0]["lb_endpoints"][0][
        "endpoint"
    ]["address"]["socket_address"]["address"] = "elsewhere"
    for name in ("dualpool.router", "dualpool.observer"):
        config = http_filter(document, name)["typed_config"]
        config["grpc_service"]["envoy_grpc"]["cluster_name"] = "decisions"
        del config["metadata_options"]
    found = findings(document)
    assert found
    assert all("the routing decision or the usage is lost: add llm" in each for each in found)


def test_a_filter_is_known_by_the_address_of_its_cluster():
    document = load("lua_and_compressor")
    cluster(document, "dualpool")["name"] = "decisions"
    for name in ("dualpool.router", "dualpool.observer"):
        config = http_filter(document, name)["typed_config"]
        config["grpc_service"]["envoy_grpc"]["cluster_name"] = "decisions"
        del config["metadata_options"]
    assert all("is lost: add llm" in each for each in findings(document))
    assert len(findings(document)) == 2


def test_filters_before_routes_by_rds_are_judged_by_themselves():
    document = load("cluster_header")
    found = manager(document)
    del found["route_config"]
    found["rds"] = {"route_config_name": "llm"}
    http_filter(document, "dualpool.router")["typed_config"].pop("failure_mode_allow")
    [finding] = findings(document)
    assert finding.endswith("failure_mode_allow: requests fail while the service is down: set true")


def test_a_listener_without_routes_to_a_pool_needs_one():
    document = load("cluster_header")
    routes(document).clear()
    assert findings(document)[0].endswith("no route leads to a pool: add routes to long")


def test_each_file_has_several_faults():
    planted = [file for file, _, _ in FAULTS.values()]
    assert all(planted.count(name) >= 2 for name in NAMES)
