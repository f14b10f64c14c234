"""Two ext_proc services in one real Envoy: ours chooses the pool, then its picker the server.

The objects are those of `dualpool config inference-pools`; tests/support/picker_gateways.py says
what the gateways make of them. The pickers are a stand-in for llm-d's, which was not run.
"""

import asyncio
import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from extproc.config.load import load as load_settings
from extproc.config.settings import Settings
from extproc.envoy.inference_pools import render_inference_pools
from extproc.envoy.render import RenderError
from extproc.local.ports import free_ports
from tests.support import picker_gateways
from tests.support.endpoint_picker import DESTINATION, PREFILL, Picker, picking
from tests.support.envoys import binary
from tests.support.gateways import NO_TLS, SETTINGS
from tests.support.local_stack import in_background, wait_for
from tests.support.manifests import (
    FOLDERS,
    addressed,
    commands,
    crds,
    faults,
    load,
    only,
    refusal,
    serving,
)
from tests.support.paths import ROOT
from tests.support.puppet_mesh import Puppet
from tests.support.running_service import get
from tests.support.running_service import serving as service_running

__all__ = ["crds"]  # a fixture

GATEWAY = "llm-gateway/llm-gateway"
SERVICE = "dualpool.dualpool.svc.cluster.local:50051"
FORMS = {
    "istio": (picker_gateways.istio, "1.40"),
    "istio, Envoy 1.38": (picker_gateways.istio, "1.38"),
    "ai gateway": (picker_gateways.ai_gateway, "1.40"),
}
POOLS = ("vllm-short", "vllm-long")
REQUESTS = 40
LONG = 9000  # output tokens: more than the short pool's window


def folder_objects():
    text = (FOLDERS / "inference-pools" / "routing.yaml").read_text()
    return list(yaml.safe_load_all(text))


def objects(**changes):
    """Return the objects for the folder's settings, without mutual TLS and for a slow machine."""
    settings = load_settings(SETTINGS)
    update = {
        "listen": settings.listen.model_copy(update=NO_TLS),
        "envoy": settings.envoy.model_copy(update={"message_timeout_ms": 10_000}),
        **changes,
    }
    text = render_inference_pools(settings.model_copy(update=update), GATEWAY)
    return list(yaml.safe_load_all(text))


@dataclass
class Rig:
    """An Envoy in front of two pools of two servers each, with a picker a pool."""

    port: int
    url: str  # of the service
    service: subprocess.Popen
    pickers: dict[str, Picker]
    servers: dict[str, Puppet]
    stop_picker: Callable[[str], None]

    def ask(self, body, headers=None, *, chunked=False):
        """Return the answer, its body, and the server and its pool that got the request."""
        before = {address: len(server.got) for address, server in self.servers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        fields = {"content-type": "application/json"} | (headers or {})
        pieces = iter((body[:100], body[100:])) if chunked else body
        connection.request("POST", "/v1/completions", pieces, fields, encode_chunked=chunked)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        got = [each for each, server in self.servers.items() if len(server.got) > before[each]]
        return answer, text, got

    def picked(self):
        return sum(len(picker.picked) for picker in self.pickers.values())

    def count(self, name):
        lines = get(f"{self.url}/metrics")[1].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@asynccontextmanager
async def pickers_and_servers(ports):
    """Run four servers and two pickers; yield by pool the picker, its port and the servers."""
    servers = {
        f"127.0.0.1:{port}": Puppet(POOLS[number // 2], port) for number, port in enumerate(ports)
    }
    for server in servers.values():
        await server.start()
    pickers = {
        name: Picker([each for each, server in servers.items() if server.name == name])
        for name in POOLS
    }
    async with picking(pickers[POOLS[0]]) as first, picking(pickers[POOLS[1]]) as second:
        yield pickers, dict(zip(POOLS, (first, second), strict=True)), servers
    for server in servers.values():
        await server.stop()


@contextmanager
def rig(form, version, folder):
    own, others = free_ports(), free_ports()
    ports = (*own.pools, *others.pools)
    with in_background() as loop, service_running(folder) as (service, grpc_port, url):
        running = pickers_and_servers(ports)

        def wait(work):
            return asyncio.run_coroutine_threadsafe(work, loop).result(30)

        pickers, grpc_servers, servers = wait(running.__aenter__())
        try:
            pools = {name: (grpc_servers[name].port, pickers[name].servers) for name in POOLS}
            config = form(objects(), own.listener, own.admin, pools)
            config = addressed(config, {SERVICE: grpc_port})
            with serving(config, own.admin, binary(version)):

                def stop_picker(name):
                    wait(grpc_servers[name].stop())

                found = Rig(own.listener, url, service, pickers, servers, stop_picker)
                wait_for(lambda: found.ask(body(1))[0].getheader("x-llm-pool"), seconds=60)
                yield found
        finally:
            wait(running.__aexit__(None, None, None))


@pytest.fixture(scope="module", params=FORMS)
def mesh(request, tmp_path_factory):
    form, version = FORMS[request.param]
    with rig(form, version, tmp_path_factory.mktemp("service")) as found:
        yield found


def body(words, **fields):
    return json.dumps({"model": "m", "prompt": "owls " * words, "max_tokens": 9} | fields).encode()


def test_both_decide_and_nothing_is_lost(mesh):
    decided, picked = mesh.count("dualpool_decisions_total"), mesh.picked()
    for number in range(REQUESTS):
        pool = POOLS[number % 2]
        text = body(number * number, max_tokens=LONG if number % 2 else 9)
        answer, received, got = mesh.ask(text)
        [address] = got
        server = mesh.servers[address]
        assert (answer.status, server.name) == (200, pool)
        assert f"vllm-{answer.getheader('x-llm-pool')}" == pool
        assert mesh.pickers[pool].picked[-1] == server.headers[-1][DESTINATION] == address
        assert server.got[-1] == mesh.pickers[pool].bodies[-1] == text
        assert received == server.sent[-1]
    assert mesh.count("dualpool_decisions_total") - decided == REQUESTS
    assert mesh.picked() - picked == REQUESTS


@pytest.mark.parametrize("size", [9, 20_000, 1_500_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_any_size_arrives_unchanged(mesh, size, chunked):
    text = body(2, pad="x" * size)
    answer, _, [address] = mesh.ask(text, chunked=chunked)
    assert (answer.status, mesh.servers[address].got[-1]) == (200, text)
    assert answer.getheader("x-llm-reason") == "fits"


def test_a_body_that_is_too_large_to_be_read_is_picked_a_server_of_the_largest_pool(mesh):
    text = body(2, pad="x" * 6_000_000)
    answer, _, [address] = mesh.ask(text)
    assert (answer.status, mesh.servers[address].got[-1]) == (200, text)
    assert mesh.servers[address].name == POOLS[1]


def test_answers_teach(mesh):
    before = mesh.count('dualpool_answers_total{outcome="learnt"}')
    mesh.ask(body(50))
    wait_for(lambda: mesh.count('dualpool_answers_total{outcome="learnt"}') > before)


def test_a_stream_arrives_unchanged_and_teaches(mesh):
    before = mesh.count('dualpool_answers_total{outcome="learnt"}')
    asked = body(50, stream=True, stream_options={"include_usage": True})
    _, received, [address] = mesh.ask(asked)
    assert received == mesh.servers[address].sent[-1]
    wait_for(lambda: mesh.count('dualpool_answers_total{outcome="learnt"}') > before)


def test_a_client_cannot_choose_pool_or_server(mesh):
    alike = DESTINATION.replace("-", "_")
    wishes = {"x-llm-pool": "short", DESTINATION: "127.0.0.1:9", alike: "127.0.0.1:9"}
    _, _, [address] = mesh.ask(body(3, max_tokens=LONG), wishes)
    server = mesh.servers[address]
    assert server.name == POOLS[1]
    assert server.headers[-1][DESTINATION] == address
    assert alike not in server.headers[-1]
    assert DESTINATION not in mesh.pickers[POOLS[1]].headers[-1]


def test_the_picker_knows_what_was_decided(mesh):
    mesh.ask(body(3))
    seen = mesh.pickers[POOLS[0]].headers[-1]
    assert (seen["x-llm-pool"], seen["x-llm-reason"]) == ("short", "fits")


def test_headers_of_prefill_and_decode_pass(mesh):
    """The picker's reach the server, and a client's both."""
    _, _, [address] = mesh.ask(body(3), {"x-data-parallel-host-port": "10.0.0.8:8200"})
    assert mesh.servers[address].headers[-1][PREFILL] == "10.0.0.9:8100"
    assert mesh.servers[address].headers[-1]["x-data-parallel-host-port"] == "10.0.0.8:8200"
    assert mesh.pickers[POOLS[0]].headers[-1]["x-data-parallel-host-port"] == "10.0.0.8:8200"


def test_a_refusal_of_the_picked_server_reaches_the_client(mesh):
    """Unlike in an Envoy of our own: a route has one InferencePool, so no other is tried."""
    short = [server for server in mesh.servers.values() if server.name == POOLS[0]]
    for server in short:
        server.act = "refuse"
    try:
        answer, _, [_] = mesh.ask(body(3))
    finally:
        for server in short:
            server.act = "answer"
    assert (answer.status, answer.getheader("x-llm-pool")) == (400, "short")


def test_a_picker_that_is_absent_costs_its_pool_alone(tmp_path):
    """Though its filter fails open."""
    with rig(*FORMS["istio"], tmp_path) as found:
        found.stop_picker(POOLS[0])
        assert found.ask(body(3))[0].status == 500
        assert found.ask(body(3, max_tokens=LONG))[0].status == 200


def test_without_our_service_a_server_of_the_largest_pool_is_picked(tmp_path):
    with rig(*FORMS["istio"], tmp_path) as found:
        found.service.kill()
        found.service.wait(60)
        answer, _, [address] = found.ask(body(3))
        assert (answer.status, answer.getheader("x-llm-pool")) == (200, None)
        assert found.servers[address].name == POOLS[1]
        assert found.pickers[POOLS[1]].picked[-1] == address


def test_the_folder_has_what_the_command_prints_for_the_settings():
    rendered = render_inference_pools(load_settings(SETTINGS), GATEWAY)
    assert (FOLDERS / "inference-pools" / "routing.yaml").read_text() == rendered


@pytest.mark.parametrize("thing", folder_objects(), ids=lambda thing: thing["kind"])
def test_the_api_server_takes_every_object(thing, crds):
    assert faults(thing, crds) == []


def test_an_unknown_field_is_found(crds):
    [pool, _] = only(folder_objects(), "InferencePool")
    pool["spec"]["extensionRef"] = {"name": "epp"}
    assert "extensionRef" in faults(pool, crds)[0]


@pytest.fixture
def renamed(tmp_path):
    """Return the objects after the README's three commands, in a copy of the folders."""
    for folder in ("inference-pools", "kubernetes"):
        shutil.copytree(FOLDERS / folder, tmp_path / folder)
    folder = tmp_path / "inference-pools"
    found = commands(folder / "README.md", ("sed ", "dualpool config "))
    assert len(found) == 3
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    for command in found:
        subprocess.run(["bash", "-c", command], cwd=folder, check=True, env=environment)
    return load(folder)


def test_with_three_changes_the_objects_are_the_users(renamed, crds):
    assert [fault for thing in renamed for fault in faults(thing, crds)] == []
    text = yaml.safe_dump_all(renamed)
    old = ("llm-gateway", "namespace: dualpool", "dualpool.dualpool.svc", "vllm-", "namespace: llm")
    assert [name for name in old if f"{name}\n" in text or f"{name}." in text] == []
    assert {pool["metadata"]["name"] for pool in only(renamed, "InferencePool")} == {
        "small",
        "large",
    }


def test_the_readme_says_what_was_not_tried():
    text = " ".join((FOLDERS / "inference-pools" / "README.md").read_text().split())
    assert "was not applied to a cluster" in text


def test_three_pools_have_a_rule_each_and_istiod_can_tell_them_apart(crds):
    pools = [
        {"name": f"p{n}", "max_model_len": 8192 << n, "address": f"p{n}.llm.svc:8000"}
        for n in range(3)
    ]
    things = objects(pools=Settings.model_validate({"pools": pools}).pools)
    assert [fault for thing in things for fault in faults(thing, crds)] == []
    [route] = only(things, "HTTPRoute")
    names = [rule["name"] for rule in route["spec"]["rules"]]
    assert names == ["dualpool-p0", "dualpool-p1", "dualpool-p2"]
    config = picker_gateways.istio(things, 1, 2, {f"p{n}": (9, ["127.0.0.1:9"]) for n in range(3)})
    assert refusal(config) == ""


@pytest.mark.parametrize(
    ("addresses", "fault"),
    [
        (("a.llm.svc:1", "b.other.svc:1"), "in another namespace than the first pool"),
        (("10.0.0.1:8000", "b.llm.svc:1"), "10.0.0.1 is no Service of Kubernetes"),
    ],
)
def test_a_pool_that_cannot_be_an_inference_pool_is_named(addresses, fault):
    pools = [
        {"name": f"p{n}", "max_model_len": 8192 << n, "address": address}
        for n, address in enumerate(addresses)
    ]
    with pytest.raises(RenderError) as caught:
        objects(pools=Settings.model_validate({"pools": pools}).pools)
    assert [fault in text for _, text in caught.value.faults] == [True]
