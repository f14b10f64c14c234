"""What an HTTP filter does on a route."""

import pytest

from extproc.envoy.document import Part
from extproc.envoy.gateway import GatewayFilter, Processor, RouteLevels

EXT_PROC = "x.ExtProcPerRoute"
FILTER_CONFIG = "type.googleapis.com/envoy.config.route.v3.FilterConfig"


def levels(route=None, host=None):
    parts = [{"typed_per_filter_config": {"ours": each}} if each else {} for each in (route, host)]
    return RouteLevels(*(Part("", each) for each in (*parts, {})))


@pytest.mark.parametrize(
    ("disabled", "route", "host", "is_on"),
    [
        (False, None, None, True),
        (True, None, None, False),
        (True, {"@type": EXT_PROC, "overrides": {}}, None, True),
        (True, None, {"@type": EXT_PROC, "overrides": {}}, True),
        (False, {"@type": EXT_PROC, "disabled": True}, None, False),
        (False, {"@type": EXT_PROC, "overrides": {}}, {"@type": EXT_PROC, "disabled": True}, True),
        (True, {"@type": FILTER_CONFIG, "config": {}}, None, True),
        (False, {"@type": FILTER_CONFIG, "disabled": True}, None, False),
        (
            True,
            {"@type": FILTER_CONFIG, "config": {"@type": EXT_PROC, "disabled": True}},
            None,
            False,
        ),
    ],
)
def test_the_most_specific_level_says_whether_a_filter_runs(disabled, route, host, is_on):
    part = Part("", {"name": "ours", **({"disabled": True} if disabled else {})})
    assert GatewayFilter(part, 0).is_on(levels(route, host)) is is_on


def test_a_route_overrides_fields_of_an_ext_proc_filter():
    config = {"@type": "x.ExternalProcessor", "failure_mode_allow": True, "message_timeout": "1s"}
    filtered = GatewayFilter(Part("", {"name": "ours", "typed_config": config}), 0)
    override = {"@type": FILTER_CONFIG, "config": {"overrides": {"failure_mode_allow": False}}}
    [found] = filtered.processors(levels(override))
    assert (found.at("failure_mode_allow").value, found.at("message_timeout").text) == (False, "1s")


@pytest.mark.parametrize(
    ("config", "calls"),
    [
        ({"grpc_service": {"envoy_grpc": {"cluster_name": "dualpool"}}}, True),
        ({"grpc_service": {"envoy_grpc": {"cluster_name": "guard"}}}, False),
        ({"metadata_options": {"forwarding_namespaces": {"untyped": ["llm"]}}}, True),
        ({"metadata_options": {"receiving_namespaces": {"untyped": ["guard"]}}}, False),
    ],
)
def test_a_filter_calls_the_service_by_its_cluster_or_its_metadata(config, calls):
    assert Processor(Part("", config)).calls({"dualpool"}) is calls
