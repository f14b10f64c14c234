"""The objects for Istio and Envoy Gateway, and what of the settings they cannot express."""

import re

import pytest
import yaml

from extproc.cli import main
from extproc.config.errors import UserError
from extproc.config.settings import Settings
from extproc.envoy.envoy_gateway import NOT_DECIDED, render_envoy_gateway
from extproc.envoy.istio import render_istio
from extproc.envoy.render import RenderError

SERVICE = "dualpool.llm.svc.cluster.local"
MUTUAL_TLS = {"tls_cert": "/tls.crt", "tls_key": "/tls.key", "tls_client_ca": "/ca.crt"}
ADS = {"ads": {}, "resource_api_version": "V3"}
RENDERERS = {"istio": render_istio, "gateway": render_envoy_gateway}


def pool(number, **more):
    address = {"address": f"p{number}.models.svc.cluster.local:8000"}
    return {"name": f"p{number}", "max_model_len": 1000 << number} | address | more


def objects(render, gateway="gate/way", count=2, *, pools=None, envoy=None, **settings):
    """Return the objects by kind."""
    document = {
        "pools": pools or [pool(n) for n in range(count)],
        "envoy": {"service": SERVICE} | (envoy or {}),
        **settings,
    }
    found = {}
    for each in yaml.safe_load_all(render(Settings.model_validate(document), gateway)):
        found.setdefault(each["kind"], []).append(each)
    return found


def patches(**settings):
    [filter_] = objects(render_istio, **settings)["EnvoyFilter"]
    return filter_["spec"]["configPatches"]


def values(kind, operation, **settings):
    return [
        each["patch"]["value"]
        for each in patches(**settings)
        if (each["applyTo"], each["patch"]["operation"]) == (kind, operation)
    ]


def rules(**settings):
    """Return the rules of both HTTPRoutes by name."""
    routes = objects(render_envoy_gateway, **settings)["HTTPRoute"]
    return {rule["name"]: rule for route in routes for rule in route["spec"]["rules"]}


both = pytest.mark.parametrize("render", RENDERERS.values(), ids=RENDERERS)


@both
def test_the_gateway_is_the_one_that_is_named(render):
    [gateway] = objects(render, "front/door")["Gateway"]
    assert gateway["metadata"]["namespace"] == "front"
    assert "door" in str(gateway)


@both
@pytest.mark.parametrize("gateway", ["way", "gate/", "Gate/way", "gate/way/x", "gate/way\n"])
def test_a_gateway_is_a_namespace_and_a_name(render, gateway):
    with pytest.raises(UserError, match=r"--gateway: .* is not allowed: NAMESPACE/NAME"):
        objects(render, gateway)


@both
def test_only_the_gateway_reaches_the_service(render):
    [policy] = objects(render, "front/door")["NetworkPolicy"]
    assert policy["metadata"]["namespace"] == "llm"
    assert "door" in str(policy["spec"]["ingress"])


@both
@pytest.mark.parametrize("host", ["127.0.0.1", "dualpool", "dualpool.llm"])
def test_the_service_is_one_of_kubernetes(render, host):
    with pytest.raises(RenderError, match=r"envoy\.service: .* set NAME\.NAMESPACE\.svc"):
        objects(render, envoy={"service": host})


@both
def test_a_pool_is_named_with_its_namespace(render):
    pools = [pool(0, address="p0:8000"), pool(1)]
    with pytest.raises(RenderError, match=r"set p0\.NAMESPACE\.svc\.cluster\.local:8000"):
        objects(render, pools=pools)


@both
def test_tls_to_a_pool_is_refused_and_not_forgotten(render):
    with pytest.raises(RenderError, match=r"pools\[1\]\.tls_ca"):
        objects(render, pools=[pool(0), pool(1, tls_ca="/ca.pem")])


@both
def test_an_envoy_that_is_too_old_is_refused(render):
    with pytest.raises(RenderError, match=r"envoy\.version: 1\.36"):
        objects(render, envoy={"version": "1.36"})


@both
def test_the_form_trailers_is_refused(render):
    with pytest.raises(RenderError, match=r"envoy\.form: trailers"):
        objects(render, envoy={"form": "trailers"})


@both
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 2}, "workers: 2 listen on as many ports"),
        ({"listen": {"grpc": "unix:/run/dualpool"}}, "listen.grpc: a gateway cannot reach"),
    ],
)
def test_the_service_is_reached_at_one_port(render, settings, message):
    with pytest.raises(RenderError, match=re.escape(message)):
        objects(render, **settings)


@pytest.mark.parametrize("kind", ["istio", "envoy-gateway"])
def test_every_fault_of_a_file_is_told_with_its_line(tmp_path, capsys, kind):
    file = tmp_path / "settings.yaml"
    file.write_text(
        "workers: 2\n"
        "pools:\n"
        "  - {name: short, max_model_len: 8192, address: short:8000}\n"
        "  - {name: long, max_model_len: 65536, tls_ca: /ca.pem}\n"
        "envoy: {\n"
        "  form: trailers}\n"
    )
    assert main(["config", kind, str(file)]) == 2
    places = [line.split(": ")[:2] for line in capsys.readouterr().err.splitlines()]
    assert places == [
        [f"{file}:1", "workers"],
        [f"{file}:3", "pools[0].address"],
        [f"{file}:4", "pools[1].address"],
        [f"{file}:4", "pools[1].tls_ca"],
        [f"{file}:5", "envoy.service"],
        [f"{file}:6", "envoy.form"],
    ]


def test_faults_of_the_defaults_have_no_line(capsys):
    assert main(["config", "istio"]) == 2
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("envoy.service: 127.0.0.1 is no Service of Kubernetes: set")


@both
def test_a_service_that_asks_for_a_certificate_is_shown_the_gateways(render):
    text = str(objects(render, listen=MUTUAL_TLS))
    assert "dualpool-client" in text
    assert SERVICE in text


@both
def test_a_service_that_asks_for_no_certificate_is_shown_none(render):
    text = str(objects(render))
    assert "dualpool-client" not in text
    assert "UpstreamTlsContext" not in text


@both
@pytest.mark.parametrize("listen", [{}, MUTUAL_TLS])
def test_the_files_of_an_envoy_of_ones_own_are_not_the_gateways(render, listen):
    files = {"tls_ca": "/own/ca", "tls_cert": "/own/cert", "tls_key": "/own/key"}
    with_files = objects(render, listen=listen, envoy=files)
    assert with_files == objects(render, listen=listen)


@both
def test_a_service_with_a_certificate_asks_for_the_gateways(render):
    listen = {"tls_cert": "/tls.crt", "tls_key": "/tls.key"}
    with pytest.raises(RenderError, match=r"listen\.tls_client_ca: empty.* dualpool-client"):
        objects(render, listen=listen)


def test_istio_takes_its_certificate_and_the_authority_from_the_gateways_secret():
    [service] = [
        each for each in values("CLUSTER", "ADD", listen=MUTUAL_TLS) if each["name"] == "dualpool"
    ]
    context = service["transport_socket"]["typed_config"]
    assert context["sni"] == SERVICE
    common = context["common_tls_context"]
    [certificate] = common["tls_certificate_sds_secret_configs"]
    validation = common["combined_validation_context"]
    authority = validation["validation_context_sds_secret_config"]
    [name] = validation["default_validation_context"]["match_typed_subject_alt_names"]
    assert certificate["name"] == "kubernetes://dualpool-client"
    assert authority["name"] == "kubernetes://dualpool-client-cacert"
    assert certificate["sds_config"] == authority["sds_config"] == ADS
    assert name == {"san_type": "DNS", "matcher": {"exact": SERVICE}}


def test_envoy_gateway_takes_its_certificate_and_the_authority_from_the_gateways_secret():
    found = objects(render_envoy_gateway, "front/door", listen=MUTUAL_TLS)
    [backend] = [each for each in found["Backend"] if each["metadata"]["name"] == "dualpool"]
    secret = "dualpool-client"
    assert backend["metadata"]["namespace"] == "front"
    assert backend["spec"]["tls"] == {
        "sni": SERVICE,
        "alpnProtocols": ["h2"],
        "caCertificateRefs": [{"group": "", "kind": "Secret", "name": secret}],
        "clientCertificateRef": {"name": secret},
    }


@pytest.mark.parametrize("header", ["x-tenant", "authorization"])
def test_istio_shows_the_service_the_header_that_names_the_tenant(header):
    filters = values("HTTP_FILTER", "INSERT_BEFORE", tenants={"header": header})
    [router] = [each for each in filters if each["name"] == "llm.ext_proc"]
    hidden = router["typed_config"]["forward_rules"]["disallowed_headers"]["patterns"]
    assert {"exact": header} not in hidden
    assert {"exact": "cookie"} in hidden


@pytest.mark.parametrize(
    ("render", "timeout"), [(render_istio, "2.000s"), (render_envoy_gateway, "2000ms")]
)
def test_the_service_may_be_as_late_to_a_check_as_to_a_request(render, timeout):
    found = objects(render, envoy={"message_timeout_ms": 2000})
    assert f"'timeout': '{timeout}'" in str(found)


@both
def test_without_sampled_usage_there_is_no_script(render):
    assert "envoy_on_response" not in str(objects(render, requests={"ask_usage": False}))


@both
def test_the_form_single_has_no_observer(render):
    assert "bserv" not in str(objects(render, envoy={"form": "single"}))


@both
def test_one_pool_alone_is_routed_to(render):
    assert "p0" in str(objects(render, count=1))


def test_istio_names_one_service_for_a_pool():
    two = "a.llm.svc.cluster.local:8000, b.llm.svc.cluster.local:8000"
    with pytest.raises(RenderError, match=r"pools\[0\]\.address: 2 addresses"):
        objects(render_istio, pools=[pool(0, address=two), pool(1)])


def test_istio_routes_to_its_own_clusters():
    routes = values("HTTP_ROUTE", "INSERT_BEFORE", count=3)
    used = {each["route"]["cluster"] for each in routes if "route" in each}
    pools = {f"outbound|8000||p{n}.models.svc.cluster.local" for n in range(3)}
    added = {each["name"] for each in values("CLUSTER", "ADD", count=3)}
    assert used <= pools | added


def test_istio_routes_stand_before_those_of_the_virtual_service():
    [service] = objects(render_istio, count=3)["VirtualService"]
    first = service["spec"]["http"][0]["name"]
    inserted = [each for each in patches(count=3) if each["applyTo"] == "HTTP_ROUTE"]
    places = [each["match"]["routeConfiguration"]["vhost"]["route"]["name"] for each in inserted]
    assert set(places) == {first}


def test_istio_does_not_check_the_largest_pool():
    checked = ["health_checks" in each for each in values("CLUSTER", "MERGE", count=3)]
    assert checked == [True, True, False]


def test_envoy_gateway_takes_four_pools():
    assert len(objects(render_envoy_gateway, count=4)["HTTPRoute"][0]["spec"]["rules"]) == 16
    with pytest.raises(RenderError, match="takes 4 pools"):
        objects(render_envoy_gateway, count=5)


def test_every_rule_that_forwards_has_a_policy():
    found = objects(render_envoy_gateway, count=3)
    targets = [
        target["sectionName"]
        for policy in found["BackendTrafficPolicy"]
        for target in policy["spec"]["targetRefs"]
    ]
    forwarding = [name for name, rule in rules(count=3).items() if "backendRefs" in rule]
    assert sorted(targets) == sorted(forwarding)


def test_every_backend_of_a_rule_is_there():
    found = objects(render_envoy_gateway, count=3)
    names = {each["metadata"]["name"] for each in found["Backend"]}
    used = {ref["name"] for rule in rules(count=3).values() for ref in rule.get("backendRefs", [])}
    [extension] = found["EnvoyExtensionPolicy"]
    used |= {ref["name"] for each in extension["spec"]["extProc"] for ref in each["backendRefs"]}
    assert used == names


def test_no_pool_can_be_called_as_what_nobody_has_decided():
    with pytest.raises(ValueError, match="name"):
        Settings.model_validate({"pools": [pool(0, name=NOT_DECIDED), pool(1)]})


def test_a_pool_of_ip_addresses_has_endpoints_of_that_kind():
    pools = [pool(0, address="10.0.0.1:8000, 10.0.0.2:8000"), pool(1)]
    found = objects(render_envoy_gateway, pools=pools)["Backend"]
    [backend] = [each for each in found if each["metadata"]["name"] == "dualpool-p0"]
    assert backend["spec"]["endpoints"] == [
        {"ip": {"address": f"10.0.0.{n}", "port": 8000}} for n in (1, 2)
    ]


@pytest.mark.parametrize(
    ("envoy", "missing"),
    [
        ({"fail_open": "largest"}, {"p0.by-size", "p0.compressed"}),
        ({"large_body_bytes": 0}, {"any.large"}),
    ],
)
def test_envoy_gateway_has_no_rule_for_what_is_off(envoy, missing):
    assert rules().keys() - rules(envoy=envoy).keys() == missing


@pytest.mark.parametrize(
    ("health", "kind"), [("connect", "TCP"), ("/health", "HTTP"), ("none", None)]
)
def test_the_health_check_is_that_of_the_settings(health, kind):
    found = objects(render_envoy_gateway, envoy={"pool_health": health})
    [policy] = [
        each
        for each in found["BackendTrafficPolicy"]
        if each["metadata"]["name"] == "dualpool-retryable"
    ]
    assert policy["spec"]["healthCheck"].get("active", {}).get("type") == kind
