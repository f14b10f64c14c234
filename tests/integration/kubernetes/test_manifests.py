"""Validate the objects of envoy/{kubernetes,istio,gateway}; nothing is applied to a cluster.

Not tested: references between objects, CRD rules that need functions of the API server, and
admission webhooks.
"""

import shutil
import subprocess

import pytest
import yaml

from extproc.config.load import load as load_settings
from tests.support import envoy_gateway, istiod
from tests.support.manifests import FOLDERS, LUA, commands, crds, faults, load, names, only, refusal

__all__ = ["crds"]  # a fixture

OBJECTS = [
    pytest.param(thing, id=f"{folder}-{thing['kind']}-{thing['metadata']['name']}")
    for folder in ("kubernetes", "istio", "gateway")
    for thing in load(FOLDERS / folder)
]
GATEWAYS = {"istio": istiod.bootstrap, "gateway": envoy_gateway.bootstrap}
POOLS = ("vllm-short.llm.svc.cluster.local", "vllm-long.llm.svc.cluster.local")
OLD_NAMES = {
    "istio": ("istio-ingress", "namespace: dualpool", "dualpool.dualpool.svc", *POOLS),
    "gateway": ("llm-gateway", "namespace: dualpool", *POOLS),
}


@pytest.mark.parametrize("thing", OBJECTS)
def test_the_api_server_takes_every_object(thing, crds):
    assert faults(thing, crds) == []


def test_an_unknown_field_is_found(crds):
    [policy] = only(load(FOLDERS / "gateway"), "ClientTrafficPolicy")
    policy["spec"]["bufferLimit"] = "32Mi"
    assert "bufferLimit" in faults(policy, crds)[0]


def test_the_settings_are_valid():
    settings = load_settings(FOLDERS / "kubernetes" / "settings.yaml")
    assert [pool.name for pool in settings.pools] == ["short", "long"]


def test_a_pod_may_stay_until_it_has_drained():
    listen = load_settings(FOLDERS / "kubernetes" / "settings.yaml").listen
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


def test_a_pod_has_no_rights():
    [container] = pod()["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["securityContext"]["runAsNonRoot"]
    assert pod()["automountServiceAccountToken"] is False


def test_istio_carries_the_script_of_the_template():
    [filter_] = only(load(FOLDERS / "istio"), "EnvoyFilter")
    values = [patch["patch"]["value"] for patch in filter_["spec"]["configPatches"]]
    [script] = [value for value in values if value.get("name") == "dualpool.hide_usage"]
    assert script["typed_config"]["default_source_code"]["inline_string"] == LUA


def test_envoy_gateway_carries_the_script_of_the_template():
    [policy] = only(load(FOLDERS / "gateway"), "EnvoyExtensionPolicy")
    assert [script["inline"] for script in policy["spec"]["lua"]] == [LUA]


@pytest.mark.parametrize("folder", GATEWAYS)
def test_the_readme_says_what_was_not_tried(folder):
    text = (FOLDERS / folder / "README.md").read_text()
    assert "was not applied to a cluster" in " ".join(text.split())


@pytest.mark.parametrize("folder", GATEWAYS)
def test_kustomize_builds_all_of_it(folder):
    built = kustomized(FOLDERS / folder)
    [settings] = only(built, "ConfigMap")
    own = load(FOLDERS / folder) + load(FOLDERS / "kubernetes")
    # The autoscaler is an example, which is applied by itself.
    own = [thing for thing in own if thing["kind"] != "HorizontalPodAutoscaler"]
    assert names(built) - names([settings]) == names(own)
    assert yaml.safe_load(settings["data"]["settings.yaml"])["pools"]


@pytest.fixture(params=GATEWAYS)
def renamed(request, tmp_path):
    """Return a copy of the folder in which the README's commands have changed three names."""
    for folder in (request.param, "kubernetes"):
        shutil.copytree(FOLDERS / folder, tmp_path / folder)
    folder = tmp_path / request.param
    found = commands(folder / "README.md", "sed ")
    assert len(found) == 3
    for command in found:
        subprocess.run(["bash", "-c", command], cwd=folder, check=True)
    return folder


def test_with_three_names_changed_nothing_old_is_left(renamed):
    text = "".join(file.read_text() for file in renamed.glob("*.yaml"))
    assert [name for name in OLD_NAMES[renamed.name] if name in text] == []


def test_with_three_names_changed_the_api_server_takes_every_object(renamed, crds):
    things = load(renamed) + load(renamed.parent / "kubernetes")
    assert [fault for thing in things for fault in faults(thing, crds)] == []


def test_with_three_names_changed_envoy_takes_it(renamed):
    config = GATEWAYS[renamed.name](load(renamed), 10000, 9901)
    assert refusal(config) == ""
    assert "dualpool.my-llm.svc.cluster.local" in str(config)


def test_with_three_names_changed_the_service_is_where_the_gateway_looks(renamed):
    built = kustomized(renamed)
    [deployment] = only(built, "Deployment")
    namespace = deployment["metadata"]["namespace"]
    assert namespace != "dualpool"
    assert {thing["metadata"]["name"] for thing in only(built, "Namespace")} == {namespace}
    assert {t["metadata"]["namespace"] for t in only(built, "NetworkPolicy")} == {namespace}


def pod():
    [deployment] = only(load(FOLDERS / "kubernetes"), "Deployment")
    return deployment["spec"]["template"]["spec"]


def kustomized(folder):
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl")
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, check=True)
    return list(yaml.safe_load_all(done.stdout))
