"""Operators' own Envoy files compared with the settings: nothing else is judged than our routes."""

import pytest

from extproc.config.settings import Settings
from extproc.envoy.document import Part
from extproc.envoy.review import review
from tests.support.operator_files import FAULTS, NAMES, broken, cluster, hosts, load, routes


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


def test_each_file_has_several_faults():
    planted = [file for file, _, _ in FAULTS.values()]
    assert all(planted.count(name) >= 2 for name in NAMES)
