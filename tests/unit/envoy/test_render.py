"""Envoy's configuration as rendered for the settings."""

import subprocess

import pytest
import yaml

from extproc.config.load import load
from extproc.config.settings import EnvoySettings, Form, Settings
from extproc.envoy.render import RenderError, choose_form, render_envoy
from extproc.names import NAMESPACE, NOTE
from tests.support.envoys import FORMS, VERSIONS, binary
from tests.support.paths import ROOT

FOLDER = ROOT / "envoy"


def document(**settings):
    return yaml.safe_load(render_envoy(Settings.model_validate(settings)))


def manager(**settings):
    [listener] = document(**settings)["static_resources"]["listeners"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


def filters(**settings):
    return {each["name"]: each["typed_config"] for each in manager(**settings)["http_filters"]}


def routes(**settings):
    return {each["name"]: each for each in hosts(**settings)["routes"]}


def hosts(**settings):
    [host] = manager(**settings)["route_config"]["virtual_hosts"]
    return host


def clusters(**settings):
    return {each["name"]: each for each in document(**settings)["static_resources"]["clusters"]}


def pools(count):
    return [{"name": f"p{n}", "max_model_len": 1000 << n} for n in range(count)]


def endpoints(cluster):
    [group] = cluster["load_assignment"]["endpoints"]
    return [each["endpoint"]["address"] for each in group["lb_endpoints"]]


def validate(version, text):
    command = [binary(version), "--mode", "validate", "--config-yaml", text]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_file_in_the_repository_is_the_rendering_of_its_settings():
    rendered = render_envoy(load(FOLDER / "dualpool.yaml"))
    assert (FOLDER / "envoy.yaml").read_text() == rendered


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("version", "form"), FORMS)
def test_each_envoy_accepts_each_form_that_it_has(version, form, count):
    envoy = {"version": version, "form": form}
    text = render_envoy(Settings.model_validate({"envoy": envoy, "pools": pools(count)}))
    done = validate(version, text)
    assert done.returncode == 0, done.stderr


def test_each_form_has_its_filters_in_the_order_that_shows_the_service_the_usage():
    def names(form):
        return [
            each["name"].rpartition(".")[2]
            for each in manager(envoy={"form": form})["http_filters"]
        ]

    front = ["body_size_limit", "lua", "ext_proc"]
    assert names("trailers") == [*front, "observer", "ai_protocol_manager", "router"]
    assert names("observed") == [*front, "observer", "router"]
    assert names("single") == [*front, "router"]


@pytest.mark.parametrize("version", ["1.36", "1.39"])
def test_the_newest_form_is_chosen_where_envoy_has_it(version):
    assert choose_form(EnvoySettings()) is Form.TRAILERS
    assert choose_form(EnvoySettings(version=version)) is Form.OBSERVED


def test_a_pool_that_is_not_the_largest_falls_back_on_it():
    found = clusters(pools=pools(3))
    chains = {
        name: cluster["cluster_type"]["typed_config"]["clusters"]
        for name, cluster in found.items()
        if "cluster_type" in cluster
    }
    assert chains == {
        "p0_then_p2": ["p0", "p2"],
        "p1_then_p2": ["p1", "p2"],
        # The largest falls back on the one before it.
        "p2_then_p1": ["p2", "p1"],
    }


def test_one_pool_falls_back_on_nothing():
    assert list(clusters(pools=pools(1))) == ["dualpool", "p0"]
    assert set(routes(pools=pools(1), envoy={"form": "observed"})) == {"large", "p0", "undecided"}


def test_only_a_flagged_request_is_sent_again_for_a_400():
    found = routes(envoy={"form": "observed"})
    again = [
        name
        for name, each in found.items()
        if 400 in each["route"]["retry_policy"].get("retriable_status_codes", [])
    ]
    assert again == ["short_retryable", "short_by_size"]


def test_no_request_that_a_pool_may_have_died_of_is_sent_again():
    for each in routes().values():
        conditions = set(each["route"]["retry_policy"]["retry_on"].split(","))
        assert not conditions & {"reset", "5xx", "gateway-error"}


def test_the_last_route_takes_all_and_leads_to_the_largest_pool():
    last = hosts(pools=pools(3))["routes"][-1]
    assert last["match"] == {"prefix": "/"}
    assert last["route"]["cluster"] == "p2"


def test_limits_are_those_of_the_settings():
    limit = {"requests": {"max_body_bytes": 5000}}
    assert hosts(**limit)["request_body_buffer_limit"] == 5000
    assert filters(**limit)["envoy.filters.http.body_size_limit"]["max_request_bytes"] == 5000
    router = filters(envoy={"message_timeout_ms": 250})["envoy.filters.http.ext_proc"]
    assert router["message_timeout"] == "0.250s"


def ranges(**settings):
    """Return the range of content-length that each pool is given without a decision."""
    return {
        name: header["range_match"]
        for name, route in routes(envoy={"form": "observed"} | settings, pools=pools(3)).items()
        for header in route["match"].get("headers", [])
        if name.endswith("_by_size") and "range_match" in header
    }


def test_an_undecided_request_goes_to_the_smallest_pool_that_its_size_fits():
    assert ranges(fail_open_bytes_per_token=3.0) == {
        "p0_by_size": {"start": 1, "end": 3000},
        "p1_by_size": {"start": 3000, "end": 6000},
    }
    assert ranges(fail_open="largest") == {}


def test_a_large_body_is_not_shown_to_the_service():
    large = routes(envoy={"large_body_bytes": 5000})["large"]
    assert large["match"]["headers"][1]["range_match"]["start"] == 5001
    off = {each["disabled"] for each in large["typed_per_filter_config"].values()}
    assert (set(large["typed_per_filter_config"]), off) == (
        {"envoy.filters.http.ext_proc"},
        {True},
    )


@pytest.mark.parametrize("size", [0, 1 << 25])
def test_no_body_is_large_where_the_limit_is_off_or_above_what_is_accepted(size):
    assert "large" not in routes(envoy={"large_body_bytes": size})


@pytest.mark.parametrize(
    ("version", "held", "connection"),
    [("1.36", 10_000, 5000), ("1.37", 10_000, 5000), ("1.38", 5000, 5000), ("1.40", 5000, 5000)],
)
def test_a_body_of_the_limit_is_held_and_can_be_sent_again(version, held, connection):
    settings = {"requests": {"max_body_bytes": 5000}, "envoy": {"version": version}}
    assert hosts(**settings)["request_body_buffer_limit"] == held
    [listener] = document(**settings)["static_resources"]["listeners"]
    assert listener["per_connection_buffer_limit_bytes"] == connection


def test_only_envoy_1_36_needs_a_connection_that_holds_a_body():
    def connection(version):
        [found] = document(envoy={"version": version})["static_resources"]["listeners"]
        return found["per_connection_buffer_limit_bytes"]

    assert [connection(v) for v in ("1.36", "1.37", "1.40")] == [1 << 25, 32768, 32768]


OFF = {
    "max_streams": 0,
    "max_connections": 0,
    "max_pool_requests": 0,
    "max_heap_mib": 0,
    "large_body_bytes": 0,
    "request_headers_timeout_s": 0,
    "request_timeout_s": 0,
    "stream_idle_timeout_s": 0,
    "connection_idle_timeout_s": 0,
    "pool_idle_timeout_s": 0,
    "pool_silence_s": 0,
    "pool_health": "none",
}


@pytest.mark.parametrize("version", VERSIONS)
def test_each_limit_can_be_taken_away(version):
    settings = {"envoy": {"version": version, **OFF}}
    done = validate(version, render_envoy(Settings.model_validate(settings)))
    assert done.returncode == 0, done.stderr
    found = document(**settings)
    assert "overload_manager" not in found
    for pool in ("short", "long"):
        assert not clusters(**settings)[pool].keys() & {"health_checks", "upstream_bind_config"}
    http = manager(**settings)
    times = ("request_headers_timeout", "request_timeout", "stream_idle_timeout")
    assert {http[key] for key in times} == {"0s"}


def health(**envoy):
    [check] = clusters(envoy=envoy)["short"]["health_checks"]
    return {key: value for key, value in check.items() if key.endswith("_health_check")}


def test_a_server_is_healthy_if_it_can_be_connected_to_or_its_path_says_so():
    assert health() == {"tcp_health_check": {}}
    assert health(pool_health="/health") == {"http_health_check": {"path": "/health"}}


def test_the_largest_pool_is_never_given_up_as_a_whole():
    long = clusters()["long"]
    assert "health_checks" not in long
    assert long["outlier_detection"]["max_ejection_percent"] == 50


def test_where_nothing_is_asked_nothing_is_hidden():
    assert "envoy.filters.http.lua" in filters()
    assert "envoy.filters.http.lua" not in filters(requests={"ask_usage": False})


def test_every_worker_is_an_endpoint():
    found = clusters(listen={"grpc": "0.0.0.0:6000"}, workers=2, envoy={"service": "dualpool"})
    assert found["dualpool"]["type"] == "STRICT_DNS"
    ports = [each["socket_address"]["port_value"] for each in endpoints(found["dualpool"])]
    assert ports == [6000, 6001]


def test_a_unix_socket_is_a_pipe():
    found = clusters(listen={"grpc": "unix:/run/dualpool.sock"})["dualpool"]
    assert found["type"] == "STATIC"
    assert endpoints(found) == [{"pipe": {"path": "/run/dualpool.sock"}}]


def test_a_port_that_nobody_knows_yet_is_refused():
    with pytest.raises(RenderError, match=r"listen\.grpc: .* set one"):
        document(listen={"grpc": "127.0.0.1:0"})


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("10.0.0.1:80", "STATIC"),
        ("[::1]:80", "STATIC"),
        ("a.b:80", "STRICT_DNS"),
        ("10.0.0.1:80, a.b:80", "STRICT_DNS"),
    ],
)
def test_names_are_looked_up_and_addresses_are_not(address, kind):
    pool = {"name": "long", "max_model_len": 8192, "address": address}
    assert clusters(pools=[pool])["long"]["type"] == kind


def test_a_pool_may_have_several_servers():
    pool = {"name": "long", "max_model_len": 8192, "address": "10.0.0.1:80, 10.0.0.2:81"}
    found = [each["socket_address"] for each in endpoints(clusters(pools=[pool])["long"])]
    assert [(each["address"], each["port_value"]) for each in found] == [
        ("10.0.0.1", 80),
        ("10.0.0.2", 81),
    ]


@pytest.mark.parametrize(
    ("tls_name", "name", "kind"),
    [("", "10.0.0.1", "IP_ADDRESS"), ("pools.example", "pools.example", "DNS")],
)
def test_a_pool_may_use_tls(tls_name, name, kind):
    pool = {"name": "long", "max_model_len": 8192, "address": "10.0.0.1:443, 10.0.0.2:443"}
    tls = {"tls_ca": "/etc/ca.pem", "tls_name": tls_name}
    config = clusters(pools=[pool | tls])["long"]["transport_socket"]["typed_config"]
    assert config["sni"] == name
    assert config["common_tls_context"]["validation_context"] == {
        "trusted_ca": {"filename": "/etc/ca.pem"},
        "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": name}}],
    }


def test_without_an_authority_a_pool_uses_no_tls():
    assert "transport_socket" not in clusters()["short"]


def test_an_endpoint_says_whose_it_is():
    [group] = clusters()["short"]["load_assignment"]["endpoints"]
    assert group["lb_endpoints"][0]["metadata"] == {
        "filter_metadata": {"llm": {"pool": "short", "max_model_len": 8192}}
    }


def test_tls_names_the_service_and_shows_the_clients_certificate():
    files = {"tls_ca": "/ca.pem", "tls_cert": '/it\'s "a".pem', "tls_key": "/key.pem"}
    socket = clusters(envoy=files | {"service": "dualpool"})["dualpool"]["transport_socket"]
    context = socket["typed_config"]["common_tls_context"]
    assert context["tls_certificates"][0]["certificate_chain"]["filename"] == files["tls_cert"]
    [name] = context["validation_context"]["match_typed_subject_alt_names"]
    assert name == {"san_type": "DNS", "matcher": {"exact": "dualpool"}}


@pytest.mark.parametrize(
    ("listen", "envoy", "key"),
    [
        ({"tls_cert": "/c", "tls_key": "/k"}, {}, "tls_ca"),
        ({"tls_cert": "/c", "tls_key": "/k", "tls_client_ca": "/a"}, {"tls_ca": "/a"}, "tls_cert"),
    ],
)
def test_tls_that_the_service_asks_for_is_not_forgotten(listen, envoy, key):
    with pytest.raises(RenderError, match=rf"envoy\.{key}: empty, though"):
        document(listen=listen, envoy=envoy)


def test_without_tls_none_is_asked_for():
    assert "transport_socket" not in clusters()["dualpool"]


def test_credentials_are_not_shown_to_the_service():
    patterns = filters()["envoy.filters.http.ext_proc"]["forward_rules"]["disallowed_headers"]
    assert {pattern["exact"] for pattern in patterns["patterns"]} == {
        "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key"
    }  # fmt: skip


def observed(given):
    """Return the configuration of the filter that a matcher wraps."""
    return given["extension_config"]["typed_config"]


def test_the_observer_gets_no_headers_of_a_request_and_three_of_an_answer():
    config = observed(filters()["llm.observer"])
    assert config["processing_mode"]["request_header_mode"] == "SKIP"
    patterns = config["forward_rules"]["allowed_headers"]["patterns"]
    assert [each["exact"] for each in patterns] == [":status", "content-type", "content-encoding"]


@pytest.mark.parametrize("name", ["llm.observer", "envoy.filters.http.ai_protocol_manager"])
def test_filters_of_answers_are_skipped_for_requests_without_a_note(name):
    [matcher] = filters()[name]["xds_matcher"]["matcher_list"]["matchers"]
    predicate = matcher["predicate"]["not_matcher"]["single_predicate"]
    source = predicate["input"]["typed_config"]
    assert (source["filter"], source["path"]) == (NAMESPACE, [{"key": NOTE}])
    assert predicate["custom_match"]["typed_config"]["value"] == {"present_match": True}
    assert matcher["on_match"]["action"]["typed_config"]["@type"].endswith(".SkipFilter")


def test_a_credential_that_names_tenants_is_shown_to_the_router():
    given = filters(tenants={"header": "authorization"})["envoy.filters.http.ext_proc"]
    patterns = given["forward_rules"]["disallowed_headers"]["patterns"]
    assert "authorization" not in {each["exact"] for each in patterns}
