"""Load and validate the Kubernetes objects of envoy/, and run Envoy without a control plane."""

import copy
import importlib.util
import re
import signal
import subprocess
from contextlib import contextmanager

import kubernetes_validate
import pytest
import yaml

from extproc.local.envoy import find_envoy
from tests.support.local_stack import answers, wait_for
from tests.support.paths import ROOT

FOLDERS = ROOT / "envoy"
LUA = (FOLDERS / "hide_usage.lua").read_text()
_NO_OBJECTS = ("kustomization", "settings")
_CRDVAL = ROOT.parent / "shared" / "tools" / "crdval.py"


def load(folder):
    """Return a folder's objects, without the files of kustomize and of the service."""
    files = [f for f in sorted(folder.glob("*.yaml")) if f.stem not in _NO_OBJECTS]
    return [doc for file in files for doc in yaml.safe_load_all(file.read_text()) if doc]


def only(objects, kind):
    return [thing for thing in objects if thing["kind"] == kind]


def names(things):
    """Return (kind, namespace, name) of each object."""
    return {
        (thing["kind"], thing["metadata"].get("namespace", ""), thing["metadata"]["name"])
        for thing in things
    }


@pytest.fixture(scope="session")
def crds():
    """Return crdval, which validates objects against CRDs, and the real CRDs."""
    if not _CRDVAL.exists():
        pytest.skip("no ../shared/tools/crdval.py, which has the real CRDs")
    pytest.importorskip("cel", reason="pip install common-expression-language")
    spec = importlib.util.spec_from_file_location("crdval", _CRDVAL)
    crdval = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(crdval)
    return crdval, crdval.load(_CRDVAL.with_name("crds.tgz"))


def issue_certificates(folder, *hosts):
    """Run the command that the README gives; return the folder."""
    script = ROOT / "deploy" / "certificates.sh"
    subprocess.run(["bash", script, folder, *hosts], check=True, capture_output=True, timeout=60)
    return folder


def faults(thing, crds):
    """Validate an object against its CRD or Kubernetes' own schema; return the faults."""
    crdval, kinds = crds
    key = thing["apiVersion"], thing["kind"]
    if key in kinds:
        return list(crdval.findings(thing, kinds[key]))
    try:
        kubernetes_validate.validate(thing, "1.37", strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error)]
    return []


def commands(readme, start):
    """Return the lines of the README's shell blocks that begin with `start`, or one of them."""
    blocks = re.findall(r"^```sh\n(.*?)^```", readme.read_text(), re.S | re.M)
    return [line for block in blocks for line in block.splitlines() if line.startswith(start)]


def addressed(document, addresses):
    """Return a copy in which each HOST:PORT of `addresses` is 127.0.0.1 and the given port."""
    document = copy.deepcopy(document)
    for address in _socket_addresses(document):
        port = addresses.get(f"{address['address']}:{address['port_value']}")
        if port is not None:
            address.update(address="127.0.0.1", port_value=port)
    return document


def _socket_addresses(document):
    return (node["socket_address"] for node in _nodes(document) if "socket_address" in node)


def with_secrets(document, folder):
    """Return a copy in which the secrets that a control plane sends are files of `folder`."""
    document = copy.deepcopy(document)
    secrets = {}
    for node in _nodes(document):
        for certificate in node.get("tls_certificate_sds_secret_configs", ()):
            del certificate["sds_config"]
            pair = {"certificate_chain": _file(folder, "tls.crt")}
            pair["private_key"] = _file(folder, "tls.key")
            secrets[certificate["name"]] = {"tls_certificate": pair}
        if authority := node.get("validation_context_sds_secret_config"):
            del authority["sds_config"]
            trusted = {"trusted_ca": _file(folder, "ca.crt")}
            secrets[authority["name"]] = {"validation_context": trusted}
    document["static_resources"]["secrets"] = [{"name": n} | s for n, s in secrets.items()]
    return document


def _file(folder, name):
    return {"filename": str(folder / name)}


def _nodes(node):
    """Yield every mapping of a document."""
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from _nodes(child)
    elif isinstance(node, list):
        for child in node:
            yield from _nodes(child)


def envoy(*arguments, config, binary=None):
    return [
        str(binary or find_envoy()),
        *("--config-yaml", yaml.safe_dump(config), "--disable-hot-restart", "--concurrency", "2"),
        *("--log-level", "warning", *arguments),
    ]


def refusal(config, binary=None):
    """Return Envoy's error for a configuration; empty if it is valid."""
    command = envoy("--mode", "validate", config=config, binary=binary)
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return "" if done.returncode == 0 else done.stderr


@contextmanager
def serving(config, admin, binary=None):
    """Run Envoy until the block ends."""
    process = subprocess.Popen(
        envoy(config=config, binary=binary), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: _ready(process, admin))
        yield
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(60)


def _ready(process, admin):
    assert process.poll() is None, "Envoy has exited"
    return answers(f"http://127.0.0.1:{admin}/ready")
