"""A gateway's Envoy has the limits, times and retries of our own, but for what is named here."""

import pytest
import yaml

from extproc.config.load import load
from extproc.envoy.kubernetes import gateway_settings
from extproc.envoy.render import render_envoy
from tests.support.envoy_gateway import cluster_name
from tests.support.gateways import BOTH, ENVOY_GATEWAY, ISTIO, SETTINGS

OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
# Our route, and its name and that of its cluster in each gateway.
ROUTES = {
    "short_retryable": ("llm_short_retryable", "short.retryable"),
    "short": ("llm_short", "short"),
    "long_threshold": ("llm_long_threshold", "long.threshold"),
    "long": ("llm_long", "long"),
    "short_by_size": ("llm_short_by_size", "short.by-size"),
    "long_bodiless": ("llm_long_bodiless", "any.bodiless"),
    "undecided": ("llm_undecided", "any.undecided"),
}
# Of Envoy's, which Envoy Gateway has no field for.
MISSING = {
    "istio": set(),
    "gateway": {
        "check_unhealthy_interval",
        "default_host_for_http_10",
        "check_no_traffic_interval",
        "max_ejection_time",
        "max_headers_count",
    },
}


@pytest.fixture(scope="module")
def own():
    return yaml.safe_load(render_envoy(gateway_settings(load(SETTINGS))))


def manager(config):
    listener = config["static_resources"]["listeners"][0]
    return listener["filter_chains"][0]["filters"][-1]["typed_config"]


def routes(config):
    [host] = manager(config)["route_config"]["virtual_hosts"]
    return {each["name"].rpartition("/")[2]: each for each in host["routes"]}


def clusters(config):
    return {each["name"]: each for each in config["static_resources"]["clusters"]}


def in_gateway(form, config, route):
    names = dict(zip(BOTH, ROUTES[route], strict=True))
    return routes(config)[names[form.folder]]


def seconds(value):
    return float(str(value).removesuffix("s"))


def retries(route):
    policy = route["route"]["retry_policy"]
    codes = policy.get("retriable_status_codes", [])
    if "retriable-status-codes" not in policy["retry_on"]:
        codes = []
    keys = ("base_interval", "max_interval")
    back_off = [seconds(policy["retry_back_off"][key]) for key in keys]
    return policy["retry_on"], codes, policy["num_retries"], policy.get("retry_priority"), back_off


def limits(cluster):
    """Return a pool's limits and times by name, times in seconds."""
    outliers = cluster["outlier_detection"]
    times = ("interval", "base_ejection_time", "max_ejection_time")
    return {
        "connect_timeout": seconds(cluster["connect_timeout"]),
        "idle_timeout": seconds(
            cluster["typed_extension_protocol_options"][OPTIONS]["common_http_protocol_options"][
                "idle_timeout"
            ]
        ),
        "breakers": cluster["circuit_breakers"],
        "keepalive": cluster["upstream_connection_options"],
        "buffer": cluster["per_connection_buffer_limit_bytes"],
        "failures": outliers["consecutive_gateway_failure"],
        **{key: seconds(outliers[key]) for key in times if key in outliers},
        **checks(cluster),
    }


def checks(cluster):
    """Return what the health checks of a cluster are told, times in seconds."""
    return {
        f"check_{key}": seconds(value) if isinstance(value, str) else value
        for check in cluster.get("health_checks", [])
        for key, value in check.items()
    }


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("form", BOTH.values(), ids=BOTH)
def test_a_route_retries_as_our_own(form, own, route):
    config = form.config(10000, 9901, (50051, 8101, 8102))
    assert retries(in_gateway(form, config, route)) == retries(routes(own)[route])


@pytest.mark.parametrize(
    ("form", "name"),
    [(ISTIO, ISTIO.clusters["short"]), (ENVOY_GATEWAY, cluster_name("short.retryable"))],
    ids=BOTH,
)
def test_the_short_pool_has_our_own_limits(form, name, own):
    found = limits(clusters(form.config(10000, 9901, (50051, 8101, 8102)))[name])
    expected = limits(clusters(own)["short"])
    assert {key for key in expected if found.get(key) != expected[key]} <= MISSING[form.folder]
    assert not found.keys() - expected.keys()


@pytest.mark.parametrize("form", BOTH.values(), ids=BOTH)
def test_the_long_pool_has_our_own_limits_and_is_not_checked(form, own):
    found = limits(clusters(form.config(10000, 9901, (50051, 8101, 8102)))[form.clusters["long"]])
    expected = limits(clusters(own)["long"])
    assert {key for key in expected if found.get(key) != expected[key]} <= MISSING[form.folder]
    assert not found.keys() - expected.keys()


@pytest.mark.parametrize("form", BOTH.values(), ids=BOTH)
def test_the_service_is_checked_as_by_our_own(form, own):
    config = form.config(10000, 9901, (50051, 8101, 8102))
    found = checks(clusters(config)[form.clusters["dualpool"]])
    expected = checks(clusters(own)["dualpool"])
    assert {key for key in expected if found.get(key) != expected[key]} <= MISSING[form.folder]
    assert not found.keys() - expected.keys()


@pytest.mark.parametrize("form", BOTH.values(), ids=BOTH)
def test_clients_have_our_own_time_limits_and_bounds(form, own):
    config = form.config(10000, 9901, (50051, 8101, 8102))
    keys = (
        "http2_protocol_options",
        "request_headers_timeout",
        "request_timeout",
        "path_with_escaped_slashes_action",
        "preserve_external_request_id",
        "merge_slashes",
    )
    found, expected = manager(config), manager(own)
    assert {key: found[key] for key in keys} == {key: expected[key] for key in keys}
    for part in ("common_http_protocol_options", "http_protocol_options"):
        missing = expected[part].items() - found[part].items()
        assert {key for key, _ in missing} <= MISSING[form.folder]
