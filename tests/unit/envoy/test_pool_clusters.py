"""Which clusters lead to which pools."""

import pytest

from extproc.config.settings import Settings
from extproc.envoy.document import Part
from extproc.envoy.pool_clusters import pool_clusters


def server(name, host, port=8000):
    address = {"socket_address": {"address": host, "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {"name": name, "load_assignment": {"endpoints": endpoints}}


def group(name, *members):
    return {"name": name, "cluster_type": {"typed_config": {"clusters": list(members)}}}


FOUND = pool_clusters(
    Part(
        "",
        {
            "static_resources": {
                "clusters": [
                    server("short", "10.0.0.1"),
                    server("long", "10.0.0.2"),
                    group("both", "short", "long"),
                    group("composite", {"name": "long"}, {"name": "short"}),
                    group("itself", "itself"),
                    server("vllm", "10.0.0.1"),
                    server("by-settings", "long"),
                    server("web", "10.0.0.3"),
                ]
            }
        },
    ),
    Settings(),
)


@pytest.mark.parametrize(
    ("name", "pools"),
    [
        ("short", ("short",)),
        ("both", ("short", "long")),
        ("composite", ("long", "short")),
        ("itself", ()),
        ("vllm", ("short",)),
        ("by-settings", ("long",)),
        ("web", ()),
        ("unknown", ()),
    ],
)
def test_a_cluster_leads_to_pools_by_name_by_members_or_by_address(name, pools):
    assert FOUND.leads_to(name) == pools


@pytest.mark.parametrize(
    ("action", "serves", "prefers"),
    [
        ({"cluster": "both"}, True, True),
        ({"cluster": "long"}, True, False),
        ({"cluster": "web"}, False, False),
        ({"cluster_header": "X-LLM-Pool"}, True, False),
        ({"weighted_clusters": {"clusters": [{"name": "short"}, {"name": "vllm"}]}}, True, True),
        ({"weighted_clusters": {"clusters": [{"name": "short"}, {"name": "web"}]}}, True, False),
        ({"weighted_clusters": {"clusters": [{"name": "short", "weight": 0}]}}, False, False),
    ],
)
def test_a_route_serves_a_pool_and_may_prefer_it(action, serves, prefers):
    route = Part("", {"route": action})
    assert (FOUND.serves(route), FOUND.prefers(route, "short")) == (serves, prefers)
