"""Validate the objects of envoy/{kubernetes,istio,gateway}; nothing is applied to a cluster.

Not tested: references between objects, CRD rules that need functions of the API server, and
admission webhooks.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from extproc.config.load import load as load_settings
from extproc.config.settings import Settings
from extproc.envoy.render import render_envoy
from tests.support.gateways import BOTH, SETTINGS
from tests.support.manifests import (
    FOLDERS,
    LUA,
    commands,
    crds,
    faults,
    issue_certificates,
    load,
    names,
    only,
    refusal,
    with_secrets,
)
from tests.support.paths import ROOT

__all__ = ["crds"]  # a fixture

EXAMPLES = ("HorizontalPodAutoscaler", "ClusterIssuer", "Certificate")
"""Kinds that are applied by themselves, outside the kustomizations."""
CERT_MANAGER = ("ClusterIssuer", "Certificate")
OBJECTS = [
    pytest.param(thing, id=f"{folder}-{thing['kind']}-{thing['metadata']['name']}")
    for folder in ("kubernetes", "istio", "gateway")
    for thing in load(FOLDERS / folder)
    if thing["kind"] not in CERT_MANAGER  # whose CRDs are not here
]
POOLS = ("vllm-short.llm.svc.cluster.local", "vllm-long.llm.svc.cluster.local")
OLD_NAMES = {
    "istio": ("istio-ingress", "namespace: dualpool", "dualpool.dualpool.svc", *POOLS),
    "gateway": ("llm-gateway", "namespace: dualpool", "dualpool.dualpool.svc", *POOLS),
}


@pytest.mark.parametrize("thing", OBJECTS)
def test_the_api_server_takes_every_object(thing, crds):
    assert faults(thing, crds) == []


def test_an_unknown_field_is_found(crds):
    [policy] = only(load(FOLDERS / "gateway"), "ClientTrafficPolicy")
    policy["spec"]["bufferLimit"] = "32Mi"
    assert "bufferLimit" in faults(policy, crds)[0]


def test_the_settings_are_valid():
    settings = load_settings(SETTINGS)
    assert [pool.name for pool in settings.pools] == ["short", "long"]


def test_a_pod_may_stay_until_it_has_drained():
    listen = load_settings(SETTINGS).listen
    grace = pod()["terminationGracePeriodSeconds"]
    assert grace > listen.notice_s + listen.drain_s


def test_a_slow_start_is_not_taken_for_a_dead_process():
    [container] = pod()["containers"]
    startup, liveness = container["startupProbe"], container["livenessProbe"]
    assert startup["httpGet"] == liveness["httpGet"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 60


def test_the_autoscaler_scales_the_deployment():
    [scaler] = only(load(FOLDERS / "kubernetes"), "HorizontalPodAutoscaler")
    [deployment] = only(load(FOLDERS / "kubernetes"), "Deployment")
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert scaler["spec"]["minReplicas"] == deployment["spec"]["replicas"]


def test_the_service_answers_nobody_without_a_certificate():
    """The files are those of the Secret that is mounted, which the pod's group may read."""
    listen = load_settings(SETTINGS).listen
    [container] = pod()["containers"]
    paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    [secret] = [volume["secret"] for volume in pod()["volumes"] if "secret" in volume]
    assert secret == {"secretName": "dualpool-tls", "defaultMode": 0o440}
    assert pod()["securityContext"]["fsGroup"] == pod()["securityContext"]["runAsGroup"]
    files = ("tls_cert", "tls.crt"), ("tls_key", "tls.key"), ("tls_client_ca", "ca.crt")
    assert [getattr(listen, key) for key, _ in files] == [f"{paths['tls']}/{n}" for _, n in files]


def test_an_envoy_of_ones_own_shows_its_certificate_to_the_service():
    rendered = render_envoy(load_settings(SETTINGS))
    clusters = yaml.safe_load(rendered)["static_resources"]["clusters"]
    [cluster] = [cluster for cluster in clusters if cluster["name"] == "dualpool"]
    context = cluster["transport_socket"]["typed_config"]["common_tls_context"]
    assert context["tls_certificates"] != []
    [name] = context["validation_context"]["match_typed_subject_alt_names"]
    assert name["matcher"] == {"exact": "dualpool.dualpool.svc.cluster.local"}


@pytest.mark.parametrize("folder", BOTH)
def test_cert_manager_issues_the_secrets_of_both_sides_by_one_authority(folder):
    things = load(FOLDERS / "kubernetes") + load(FOLDERS / folder)
    issued = {
        (thing["metadata"]["namespace"], thing["spec"]["secretName"]): thing["spec"]
        for thing in only(things, "Certificate")
    }
    [deployment] = only(things, "Deployment")
    service = issued.pop((deployment["metadata"]["namespace"], "dualpool-tls"))
    authority = issued.pop(("cert-manager", "dualpool-ca"))
    [(client_namespace, client_name)], [client] = issued, issued.values()
    assert service["usages"] == ["digital signature", "server auth"]
    assert client["usages"] == ["digital signature", "client auth"]
    assert client["issuerRef"] == service["issuerRef"]
    issuers = {t["metadata"]["name"]: t["spec"] for t in only(things, "ClusterIssuer")}
    assert issuers[service["issuerRef"]["name"]]["ca"]["secretName"] == authority["secretName"]
    kinds = ("EnvoyFilter", "Backend")
    readers = [thing for thing in things if thing["kind"] in kinds and client_name in str(thing)]
    assert [thing["metadata"]["namespace"] for thing in readers] == [client_namespace]


def test_a_pod_has_no_rights():
    [container] = pod()["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["securityContext"]["runAsNonRoot"]
    assert pod()["automountServiceAccountToken"] is False


@pytest.mark.parametrize("form", BOTH.values(), ids=BOTH)
def test_the_folder_has_what_the_command_prints_for_the_settings(form):
    rendered = form.render(load_settings(SETTINGS), form.gateway)
    assert (FOLDERS / form.folder / "routing.yaml").read_text() == rendered


VARIANTS = {
    "three pools": {},
    "one pool": {"pools": 1},
    "all goes to the largest": {"envoy": {"fail_open": "largest", "large_body_bytes": 0}},
    "without limits": {
        "envoy": dict.fromkeys(
            ("max_streams", "max_pool_requests", "pool_silence_s", "request_timeout_s"), 0
        )
    },
    "health by path": {"envoy": {"pool_health": "/health"}, "requests": {"ask_usage": False}},
    "single": {"envoy": {"form": "single"}},
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    """Return settings with three pools, or as the variant says."""
    changes = dict(VARIANTS[request.param])
    windows = [8192, 32768, 65536][: changes.pop("pools", 3)]
    envoy = {"service": "dualpool.dualpool.svc.cluster.local"} | changes.pop("envoy", {})
    pools = [
        {"name": f"p{n}", "max_model_len": window, "address": f"p{n}.llm.svc.cluster.local:8000"}
        for n, window in enumerate(windows)
    ]
    return Settings.model_validate({"pools": pools, "envoy": envoy, **changes})


@pytest.mark.parametrize("form", BOTH.values(), ids=BOTH)
def test_the_api_server_takes_the_objects_of_other_settings(form, variant, crds):
    things = yaml.safe_load_all(form.render(variant, form.gateway))
    assert [fault for thing in things for fault in faults(thing, crds)] == []


@pytest.mark.parametrize("form", BOTH.values(), ids=BOTH)
def test_envoy_takes_the_objects_of_other_settings(form, variant):
    things = list(yaml.safe_load_all(form.render(variant, form.gateway)))
    assert refusal(form.bootstrap(things, 10000, 9901)) == ""


def test_istio_carries_the_script_of_the_template():
    [filter_] = only(load(FOLDERS / "istio"), "EnvoyFilter")
    values = [patch["patch"]["value"] for patch in filter_["spec"]["configPatches"]]
    [script] = [value for value in values if value.get("name") == "llm.lua"]
    assert script["typed_config"]["default_source_code"]["inline_string"] == LUA


def test_envoy_gateway_carries_the_script_of_the_template():
    [policy] = only(load(FOLDERS / "gateway"), "EnvoyExtensionPolicy")
    assert [script["inline"] for script in policy["spec"]["lua"]] == [LUA]


@pytest.mark.parametrize("folder", BOTH)
def test_the_readme_says_what_was_not_tried(folder):
    text = (FOLDERS / folder / "README.md").read_text()
    assert "was not applied to a cluster" in " ".join(text.split())


@pytest.mark.parametrize("folder", BOTH)
def test_kustomize_builds_all_of_it(folder):
    built = kustomized(FOLDERS / folder)
    [settings] = only(built, "ConfigMap")
    own = load(FOLDERS / folder) + load(FOLDERS / "kubernetes")
    own = [thing for thing in own if thing["kind"] not in EXAMPLES]
    assert names(built) - names([settings]) == names(own)
    assert yaml.safe_load(settings["data"]["settings.yaml"])["pools"]


@pytest.fixture(params=BOTH)
def renamed(request, tmp_path):
    """Return a copy of the folder in which the README's three commands have made it the user's."""
    for folder in (request.param, "kubernetes"):
        shutil.copytree(FOLDERS / folder, tmp_path / folder)
    folder = tmp_path / request.param
    found = commands(folder / "README.md", ("sed ", "dualpool config "))
    assert len(found) == 3
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    for command in found:
        subprocess.run(["bash", "-c", command], cwd=folder, check=True, env=environment)
    return folder


def test_with_three_changes_nothing_old_is_left(renamed):
    folders = (renamed, renamed.parent / "kubernetes")
    text = "".join(file.read_text() for folder in folders for file in folder.glob("*.yaml"))
    assert [name for name in OLD_NAMES[renamed.name] if name in text] == []


def test_with_three_changes_the_api_server_takes_every_object(renamed, crds):
    things = load(renamed) + load(renamed.parent / "kubernetes")
    things = [thing for thing in things if thing["kind"] not in CERT_MANAGER]
    assert [fault for thing in things for fault in faults(thing, crds)] == []


def test_with_three_changes_envoy_takes_it(renamed, tmp_path):
    certificates = issue_certificates(tmp_path / "certificates", "a.example")
    config = BOTH[renamed.name].bootstrap(load(renamed), 10000, 9901)
    assert refusal(with_secrets(config, certificates / "envoy")) == ""
    assert "dualpool.my-llm.svc.cluster.local" in str(config)


def test_with_three_changes_the_service_is_where_the_gateway_looks(renamed):
    built = kustomized(renamed)
    [deployment] = only(built, "Deployment")
    namespace = deployment["metadata"]["namespace"]
    assert namespace != "dualpool"
    assert {thing["metadata"]["name"] for thing in only(built, "Namespace")} == {namespace}
    assert {t["metadata"]["namespace"] for t in only(built, "NetworkPolicy")} == {namespace}


def test_a_gateway_and_its_namespace_may_have_names_of_their_own():
    text = BOTH["gateway"].render(load_settings(SETTINGS), "edge/inference")
    things = list(yaml.safe_load_all(text))
    [gateway] = only(things, "Gateway")
    assert gateway["metadata"] == {"name": "inference", "namespace": "edge"}
    namespaces = {thing["metadata"]["namespace"] for thing in things}
    assert namespaces == {"edge", "dualpool"}
    parents = [
        parent for route in only(things, "HTTPRoute") for parent in route["spec"]["parentRefs"]
    ]
    assert {parent["name"] for parent in parents} == {"inference"}


def pod():
    [deployment] = only(load(FOLDERS / "kubernetes"), "Deployment")
    return deployment["spec"]["template"]["spec"]


def kustomized(folder):
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, check=True)
    return list(yaml.safe_load_all(done.stdout))
