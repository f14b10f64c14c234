"""The Helm chart deploy/helm/dualpool: rendered and validated, never installed.

Not here: the CRDs of the Prometheus operator. The rules of its objects are read by promtool.
"""

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from textwrap import dedent

import pytest
import yaml
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

import extproc
from extproc.config.load import load as load_settings
from extproc.config.settings import Settings
from extproc.local.ports import free_ports
from extproc.service.redis_store import RedisStore
from extproc.service.shared_state import StoreAddress, Stored, StoreError
from tests.support.helm import CHART, helm, refused, rendered
from tests.support.manifests import FOLDERS, commands, crds, faults, load, only
from tests.support.paths import ROOT
from tests.support.redis_server import BINARY, needs_redis
from tests.support.running_service import serving

__all__ = ["crds"]  # a fixture

OPERATOR = "monitoring.coreos.com/v1"
ALL_ON = """
image: {digest: "sha256:%s", pullSecrets: [registry]}
replicas: 3
autoscaling: {enabled: true}
networkPolicy: {gateway: {namespace: edge, podLabels: {app: envoy}}}
monitoring:
  serviceMonitor: {enabled: true, labels: {release: prometheus}}
  prometheusRule: {enabled: true, labels: {release: prometheus}}
  dashboards: {enabled: true}
secrets: {dualpool-http: /etc/dualpool-http, dualpool-tenants: /etc/dualpool-tenants}
pod:
  labels: {team: llm}
  annotations: {note: "1"}
  nodeSelector: {kubernetes.io/arch: amd64}
  tolerations: [{key: llm, operator: Exists}]
  priorityClassName: system-cluster-critical
  volumes: [{name: models, persistentVolumeClaim: {claimName: models}}]
  volumeMounts: [{name: models, mountPath: /models}]
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: Exists}]}]
settings:
  listen:
    grpc: 0.0.0.0:50061
    drain_s: 90
    http_token_file: /etc/dualpool-http/token
  requests: {max_body_bytes: 33554432}
  tenants: {header: x-tenant, key_file: /etc/dualpool-tenants/key}
  pools:
  - {name: short, max_model_len: 8192, address: "a.llm.svc.cluster.local:8000"}
  - {name: long, max_model_len: 1048576, address: "b.llm.svc.cluster.local:8000"}
""" % ("0" * 64)
PLAIN = """
secrets: {dualpool-tls: null}
networkPolicy: {enabled: false}
settings: {listen: {tls_cert: null, tls_key: null, tls_client_ca: null}}
"""
VALKEY = """
replicas: 3
valkey:
  enabled: true
  image: {digest: "sha256:%s"}
  storage: {size: 2Gi, className: fast}
networkPolicy: {egress: [{ports: [{port: 8000}]}]}
""" % ("0" * 64)
STORE = """
replicas: 3
secrets: {llm-store: /etc/llm-store}
settings:
  state: rediss://dualpool@redis.data.svc.cluster.local:6379
  state_password_file: /etc/llm-store/password
  state_ca_file: /etc/llm-store/ca.crt
"""
FILE = "{replicas: 1, persistence: {enabled: true, className: fast}}"
VALUES = {
    "defaults": "{}",
    "all on": ALL_ON,
    "without certificates": PLAIN,
    "a Valkey": VALKEY,
    "a store of one's own": STORE,
    "a volume": FILE,
}


@pytest.fixture(params=VALUES)
def objects(request, tmp_path):
    return rendered("--values", values(tmp_path, VALUES[request.param]))


def values(folder, text):
    (folder / "values.yaml").write_text(text)
    return folder / "values.yaml"


def test_helm_finds_nothing_to_complain_about():
    done = helm("lint", "--strict", CHART, "--namespace", "dualpool")
    assert "1 chart(s) linted, 0 chart(s) failed" in done.stdout


def test_the_api_server_takes_every_object(objects, crds):
    own = [thing for thing in objects if thing["apiVersion"] != OPERATOR]
    assert [fault for thing in own for fault in faults(thing, crds)] == []


def test_the_settings_arrive_to_the_letter(objects, tmp_path):
    """`dualpool check` takes them, and they say what the values say."""
    file = tmp_path / "settings.yaml"
    file.write_text(settings_of(objects))
    given = yaml.safe_load((CHART / "values.yaml").read_text())["settings"]
    values = yaml.safe_load((tmp_path / "values.yaml").read_text())
    given = merged(given, values.get("settings"))
    if values.get("valkey") or values.get("persistence"):  # which set the state
        given |= {k: v for k, v in yaml.safe_load(file.read_text()).items() if "state" in k}
    assert load_settings(file) == Settings.model_validate(given)


def merged(into, new):
    """Merge as Helm does: mappings by key, null removes, all else is replaced."""
    if not isinstance(into, dict) or not isinstance(new, dict):
        return into if new is None else new
    found = into | {key: merged(into.get(key), value) for key, value in new.items()}
    return {key: value for key, value in found.items() if new.get(key, 0) is not None}


def test_a_pod_may_stay_until_it_has_drained(objects, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(settings_of(objects))
    listen = load_settings(file).listen
    assert pod(objects)["terminationGracePeriodSeconds"] >= listen.notice_s + listen.drain_s + 10


def test_ports_are_those_of_the_settings(objects):
    [service] = [s for s in only(objects, "Service") if s["metadata"]["name"] == "dualpool"]
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    text = yaml.safe_load(settings_of(objects))["listen"]
    assert ports == {name: int(text[name].rpartition(":")[2]) for name in ("grpc", "http")}
    [container] = pod(objects)["containers"]
    assert ports == {port["name"]: port["containerPort"] for port in container["ports"]}


def test_the_readmes_tokenizer_is_where_the_settings_name_it(tmp_path):
    blocks = re.findall(r"^  ```yaml\n(.*?)^  ```", (CHART / "README.md").read_text(), re.S | re.M)
    [text] = [dedent(block) for block in blocks if "tokenizer" in block]
    objects = rendered("--values", values(tmp_path, text))
    [model] = yaml.safe_load(settings_of(objects))["models"]
    mounts = {m["name"]: m["mountPath"] for m in pod(objects)["containers"][0]["volumeMounts"]}
    assert model["tokenizer"].startswith(f"{mounts['models']}/")
    assert "models" in [volume["name"] for volume in pod(objects)["volumes"]]


def test_a_setting_rolls_the_pods():
    def checksum(*arguments):
        [deployment] = only(rendered(*arguments), "Deployment")
        return deployment["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]

    assert checksum() == checksum()
    assert checksum() != checksum("--set", "settings.budget.target=0.01")


def test_the_pods_reach_what_the_values_permit():
    rule = {"ports": [{"port": 8000}]}
    objects = rendered("--set-json", f"networkPolicy.egress={json.dumps([rule])}")
    assert only(objects, "NetworkPolicy")[0]["spec"]["egress"] == [rule]


def test_with_its_defaults_it_is_what_the_kustomize_folder_is():
    """Names, labels of Helm, the image and the checksum apart."""
    ours, theirs = rendered(), load(FOLDERS / "kubernetes")
    assert without_names(pod(ours)) == without_names(pod(theirs))
    for kind in ("Service", "PodDisruptionBudget"):
        assert without_names(only(ours, kind)[0]["spec"]) == without_names(
            only(theirs, kind)[0]["spec"]
        )
    policy, other = (only(things, "NetworkPolicy")[0]["spec"] for things in (ours, theirs))
    assert policy["ingress"][0] == other["ingress"][0]
    assert policy["egress"] == other["egress"] == []
    scaled = only(rendered("--set", "autoscaling.enabled=true"), "HorizontalPodAutoscaler")
    assert scaled[0]["spec"] == only(theirs, "HorizontalPodAutoscaler")[0]["spec"]
    settings = yaml.safe_load(settings_of(ours))
    kustomized = yaml.safe_load((FOLDERS / "kubernetes" / "settings.yaml").read_text())
    # What is for an Envoy of one's own alone.
    own = {"tls_ca", "tls_cert", "tls_key"}
    kustomized["envoy"] = {k: v for k, v in kustomized["envoy"].items() if k not in own}
    assert settings == kustomized


def without_names(spec):
    text = json.dumps(spec).replace('"secret-dualpool-tls"', '"tls"')
    text = text.replace(', "app.kubernetes.io/instance": "dualpool"', "")
    found = json.loads(text)
    for container in found.get("containers", ()):
        del container["image"]
        container.pop("imagePullPolicy", None)
    return found


@pytest.mark.parametrize("folder", ["rules", "alerts"])
def test_promtool_takes_the_rules_and_they_are_the_repositorys(folder, tmp_path):
    [rule] = only(rendered("--set", "monitoring.prometheusRule.enabled=true"), "PrometheusRule")
    own = yaml.safe_load((ROOT / "deploy" / "prometheus" / f"{folder}.yml").read_text())
    names = [group["name"] for group in own["groups"]]
    groups = [group for group in rule["spec"]["groups"] if group["name"] in names]
    assert groups == own["groups"]
    if shutil.which("promtool") is None:
        pytest.skip("no promtool: Debian's package prometheus has it")
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rule["spec"]))
    subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yml"], check=True)


def test_the_dashboards_are_the_repositorys():
    found = only(rendered("--set", "monitoring.dashboards.enabled=true"), "ConfigMap")
    [dashboards] = [thing for thing in found if thing["metadata"]["name"].endswith("-dashboards")]
    files = (ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")
    assert dashboards["data"] == {file.name: file.read_text() for file in files}
    # What the API server stores of one object.
    assert len(json.dumps(dashboards)) < 1 << 20


def test_secrets_are_named_and_never_made(objects):
    assert only(objects, "Secret") == []
    volumes = {v["secret"]["secretName"] for v in pod(objects)["volumes"] if "secret" in v}
    mounts = pod(objects)["containers"][0]["volumeMounts"]
    assert len(volumes) == len([m for m in mounts if m["name"].startswith("secret-")])


def test_only_helms_own_test_reaches_the_service_besides_prometheus():
    [policy] = only(rendered(), "NetworkPolicy")
    [test] = only(rendered(), "Pod")
    allowed = [list(rule["from"][0]) for rule in policy["spec"]["ingress"]]
    assert allowed == [["namespaceSelector", "podSelector"], ["podSelector"]]
    selector = policy["spec"]["ingress"][1]["from"][0]["podSelector"]["matchLabels"]
    assert selector.items() <= test["metadata"]["labels"].items()


@pytest.mark.parametrize("kind", ["Deployment", "Pod", "StatefulSet"])
def test_a_pod_has_no_rights(kind):
    [thing] = only(rendered("--set", "valkey.enabled=true"), kind)
    spec = thing["spec"] if kind == "Pod" else thing["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_pods_share_the_valkey_of_the_chart(tmp_path):
    objects = rendered("--values", values(tmp_path, VALKEY))
    (tmp_path / "settings.yaml").write_text(settings_of(objects))
    settings = load_settings(tmp_path / "settings.yaml")
    [store] = only(objects, "StatefulSet")
    [service] = [s for s in only(objects, "Service") if s["metadata"]["name"] != "dualpool"]
    host = f"{service['metadata']['name']}.dualpool.svc.cluster.local"
    assert settings.state == f"redis://{host}:{service['spec']['ports'][0]['port']}"
    assert service["spec"]["selector"].items() <= labels(store).items()
    mounts = {m["mountPath"]: m["name"] for m in pod(objects)["containers"][0]["volumeMounts"]}
    assert mounts[settings.state_password_file.rpartition("/")[0]] == "secret-dualpool-valkey"


def labels(thing):
    return thing["spec"]["template"]["metadata"]["labels"]


def test_the_service_and_its_valkey_reach_each_other_and_nothing_else_reaches_it(tmp_path):
    objects = rendered("--values", values(tmp_path, VALKEY))
    ours, stores = (policy["spec"] for policy in only(objects, "NetworkPolicy"))
    [deployment], [store] = only(objects, "Deployment"), only(objects, "StatefulSet")
    [rule] = stores["ingress"]
    assert selects(stores, store)
    assert not selects(ours, store)
    assert selects(rule["from"][0], deployment)
    assert rule["ports"] == [{"port": "valkey"}]
    assert stores["egress"] == []
    [given, to_store, to_dns] = ours["egress"]
    assert given == {"ports": [{"port": 8000}]}
    assert selects(to_store["to"][0], store)
    assert to_store["ports"] == [{"port": 6379}]
    assert {port["port"] for port in to_dns["ports"]} == {53}


def selects(peer, thing):
    return peer["podSelector"]["matchLabels"].items() <= labels(thing).items()


@needs_redis
def test_the_valkey_of_the_chart_serves_the_service_alone(tmp_path):
    """Its container's command, run here: with the password, for what the service needs."""
    [store] = only(rendered("--set", "valkey.enabled=true"), "StatefulSet")
    [container] = store["spec"]["template"]["spec"]["containers"]
    (tmp_path / "password").write_text('a "secret" \\ of $any kind\n')
    with server_of(container["command"], tmp_path) as port:
        known = {"password_file": tmp_path / "password"}
        asyncio.run(use_store(port, **known))
        with pytest.raises(StoreError, match="AuthenticationError"):
            asyncio.run(use_store(port))
        asyncio.run(refuse_others(port, (tmp_path / "password").read_text().strip()))


@contextmanager
def server_of(command, folder):
    (folder / "valkey-server").symlink_to(BINARY)
    port = free_ports().http
    script = command[2].replace("dir $DATA", f"dir $DATA\nport {port}\nbind 127.0.0.1")
    environment = os.environ | {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "FOLDER": str(folder),
        "DATA": str(folder),
    }
    with subprocess.Popen([*command[:2], script], env=environment) as process:
        try:
            until_listening(port)
            yield port
        finally:
            process.terminate()
            assert process.wait(60) == 0  # the signal reaches it, as process 1


def until_listening(port):
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("the server does not start")


async def use_store(port, **more):
    store = RedisStore(StoreAddress("127.0.0.1", port, **more), lambda: b"mark")
    try:
        await store.seed(await store.find(), b"marks", b"data")
        found = await store.find()
        await store.exchange([b"entry"], found.stored.position)
        await store.save(Stored("9999999999999-1", b"marks", b"more"))
    finally:
        await store.close()


async def refuse_others(port, password):
    async with Redis(port=port, password=password) as client:
        with pytest.raises(NoPermissionError):
            await client.flushall()
        with pytest.raises(NoPermissionError):
            await client.get("other")


def test_its_user_can_do_what_the_documentation_says_is_needed():
    text = " ".join((ROOT / "docs" / "operate.md").read_text().split())
    [needed] = re.findall(r"needs `(~dualpool.+?)`\.", text)
    template = (CHART / "templates" / "valkey.yaml").read_text()
    [line] = re.findall(r"user default on .*", template)
    given = set(line.split()[3:]) - {"#$hash", "resetkeys", "resetchannels", "-@all"}
    assert given == set(needed.split())


def test_what_one_pod_learns_is_in_a_volume_that_no_other_pod_has(tmp_path):
    objects = rendered("--values", values(tmp_path, FILE))
    [claim], [deployment] = only(objects, "PersistentVolumeClaim"), only(objects, "Deployment")
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    [volume] = [v for v in pod(objects)["volumes"] if v["name"] == "state"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    mounts = {m["name"]: m["mountPath"] for m in pod(objects)["containers"][0]["volumeMounts"]}
    assert yaml.safe_load(settings_of(objects))["state"] == f"file:{mounts['state']}/state"


def test_a_claim_of_ones_own_is_used():
    objects = rendered(
        "--set", "replicas=1,persistence.enabled=true,persistence.existingClaim=mine"
    )
    assert only(objects, "PersistentVolumeClaim") == []
    [volume] = [v for v in pod(objects)["volumes"] if v["name"] == "state"]
    assert volume["persistentVolumeClaim"]["claimName"] == "mine"


FAULTS = {
    "valkey.storage.size=big": "at '/valkey/storage/size': 'big' does not match pattern",
    "valkey.password=a": "at '/valkey': additional properties 'password' not allowed",
    "persistence.enabled=true": "a state's file belongs to one service: set replicas to 1",
    "valkey.enabled=true,settings.state=redis://a:1": "settings.state: leave it out",
    "valkey.enabled=true,persistence.enabled=true": "choose one",
    "replicas=two": "at '/replicas': got string, want integer",
    "repliacs=2": "additional properties 'repliacs' not allowed",
    "settings.listen.grpc=unix:/run/a": "at '/settings/listen/grpc': 'unix:/run/a' does not match",
    "settings.workers=4": "at '/settings/workers': value must be 1",
    "settings.pools=null": "at '/settings': missing property 'pools'",
    "pod.volumes[0].emptyDir.medium=Memory": "at '/pod/volumes/0': missing property 'name'",
    "image.digest=abc": "at '/image/digest': 'abc' does not match pattern",
    "monitoring.serviceMonitor.enabled=yes": "at '/monitoring/serviceMonitor/enabled': got string",
    "settings.envoy.service=a.b.svc": "settings.envoy.service is a.b.svc, but this release's "
    "Service is dualpool.dualpool.svc.cluster.local",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_values_gets_one_message(fault):
    message = refused("--set", fault)
    assert FAULTS[fault] in message
    assert message.count("- at ") <= 1


def test_the_chart_has_the_version_of_the_package():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == extproc.__version__


def test_a_package_carries_the_files_that_are_links_here(tmp_path):
    assert helm("package", CHART, "--destination", tmp_path).returncode == 0
    package = tmp_path / f"dualpool-{extproc.__version__}.tgz"
    done = helm(
        *("template", "dualpool", package, "--namespace", "dualpool"),
        *("--set", "monitoring.dashboards.enabled=true,monitoring.prometheusRule.enabled=true"),
    )
    assert "DualpoolMisroutesOverTarget" in done.stdout
    assert "dualpool.json: " in done.stdout


def test_the_notes_name_the_release_its_pools_and_the_next_steps(tmp_path):
    notes = helm(
        *("install", "dualpool", CHART, "--namespace", "dualpool", "--dry-run=client"),
        *("--values", values(tmp_path, ALL_ON)),
    ).stdout
    assert "dualpool.dualpool.svc, with the pools short (8192 tokens), long (1048576" in notes
    assert "dualpool-http dualpool-tenants dualpool-tls" in notes
    assert "dualpool config istio settings.yaml" in notes


def test_the_test_of_helm_passes_against_a_service_that_is_ready(tmp_path):
    """Its container's command, run here."""
    [test] = only(rendered(), "Pod")
    [container] = test["spec"]["containers"]
    assert container["command"][:2] == ["python", "-c"]
    with serving(tmp_path) as (_, _, url):
        done = run_here(container["command"], url)
    assert done.returncode == 0, done.stderr
    assert run_here(container["command"], "http://127.0.0.1:9").returncode == 1


def run_here(command, url):
    return subprocess.run(
        [sys.executable, *command[1:]],
        env={"SERVICE": url},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_readmes_installation_renders():
    """`helm install` as written, without a cluster: `template`."""
    [command] = commands(CHART / "README.md", ("helm install",))
    release, chart, *options = command.split()[2:]
    assert ROOT / chart == CHART
    [deployment] = only(rendered(*options, release=release), "Deployment")
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry.internal/dualpool:{extproc.__version__}"


def test_the_readmes_valkey_renders():
    [command] = commands(CHART / "README.md", ("helm upgrade",))
    release, chart, *options = command.split()[2:]
    options.remove("--reset-then-reuse-values")  # of an installation
    assert ROOT / chart == CHART
    assert len(only(rendered(*options, release=release), "StatefulSet")) == 1


def test_the_readmes_store_is_that_of_these_tests(tmp_path):
    [text] = re.findall(r"^```yaml\n(.*?)^```", (CHART / "README.md").read_text(), re.S | re.M)
    given, ours = yaml.safe_load(text), yaml.safe_load(STORE)
    assert given["settings"] == ours["settings"]
    assert given["secrets"] == ours["secrets"]
    objects = rendered("--values", values(tmp_path, text))
    [policy] = only(objects, "NetworkPolicy")
    assert policy["spec"]["egress"] == given["networkPolicy"]["egress"]


def test_the_readme_says_what_was_not_tried():
    text = " ".join((CHART / "README.md").read_text().split())
    assert "was not installed on a cluster" in text


def settings_of(objects):
    maps = {thing["metadata"]["name"]: thing["data"] for thing in only(objects, "ConfigMap")}
    return maps["dualpool"]["settings.yaml"]


def pod(objects):
    [deployment] = only(objects, "Deployment")
    return deployment["spec"]["template"]["spec"]
