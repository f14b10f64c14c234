"""Envoy's configuration as rendered for the settings."""

import subprocess

import pytest
import yaml

from extproc.config.load import load
from extproc.config.settings import EnvoySettings, Form, Settings
from extproc.envoy.render import RenderError, choose_form, render_envoy
from tests.support.envoys import FORMS, binary
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
    with pytest.raises(RenderError, match=r"envoy\.form: trailers needs .* set observed"):
        choose_form(EnvoySettings(version=version, form=Form.TRAILERS))


def test_a_pool_that_is_not_the_largest_falls_back_on_it():
    found = clusters(pools=pools(3))
    assert list(found) == ["dualpool", "p0_then_p2", "p1_then_p2", "p0", "p1", "p2"]
    chain = found["p1_then_p2"]["cluster_type"]["typed_config"]["clusters"]
    assert chain == ["p1", "p2"]


def test_only_a_flagged_request_is_sent_again_for_a_400():
    found = routes(envoy={"form": "observed"})
    assert list(found) == ["short_retryable", "short", "long"]
    codes = [each["route"]["retry_policy"].get("retriable_status_codes") for each in found.values()]
    assert codes == [[400, 413], None, None]


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
    [("10.0.0.1:80", "STATIC"), ("[::1]:80", "STATIC"), ("a.b:80", "STRICT_DNS")],
)
def test_names_are_looked_up_and_addresses_are_not(address, kind):
    pool = {"name": "long", "max_model_len": 8192, "address": address}
    assert clusters(pools=[pool])["long"]["type"] == kind


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
    for name in ("envoy.filters.http.ext_proc", "llm.observer"):
        patterns = filters()[name]["forward_rules"]["disallowed_headers"]["patterns"]
        assert {pattern["exact"] for pattern in patterns} == {
            "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key"
        }  # fmt: skip
