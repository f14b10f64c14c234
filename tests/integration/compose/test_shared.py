"""`docker compose --profile shared` on a real Docker Engine: replicas that learn as one."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("docker", reason="these tests need: pip install '.[dev]'")

from tests.support.docker_engine import skip_where_none_can_run, traffic
from tests.support.local_stack import fetch, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
skip_where_none_can_run()

ENVOY = "http://127.0.0.1:10000"
CHAT = f"{ENVOY}/v1/chat/completions"
PORTS = range(8081, 8090)
MESSAGES = [{"role": "user", "content": "Where do owls sleep at noon?"}]
SHORT = {"model": "simulated", "max_tokens": 5, "messages": MESSAGES}
UP = ("--profile", "shared", "up", "--detach", "--wait", "--no-build", "--scale", "dualpool=3")


@pytest.fixture(scope="module")
def stack(docker_engine):
    up = docker_engine.compose(*UP)
    try:
        assert up.returncode == 0, up.stderr
        yield docker_engine
    finally:
        print(docker_engine.compose("--profile", "shared", "logs", "--tail", "30").stdout)
        docker_engine.compose("--profile", "shared", "down", "--volumes")


@pytest.fixture(scope="module")
def client(stack):
    client = stack.client()
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def replicas(stack, client):
    """All three, in one log.

    One that reported, ended and came back counts twice for two checkpoints, of up to 80 s each.
    """
    wait_for(lambda: sorted(each["replicas"] for each in states()) == [3, 3, 3], 200)
    return containers(client, "dualpool")


def containers(client, name):
    return client.containers.list(filters={"label": f"com.docker.compose.service={name}"})


def read(url):
    try:
        return fetch(url).body.decode()
    except OSError:
        return ""


def states():
    """Return what the replicas that answer say of their log, with the answers learnt."""
    answers = [read(f"http://127.0.0.1:{port}/state") for port in PORTS]
    documents = [json.loads(answer) for answer in answers if answer]
    return [
        document["state"] | {"samples": sum(c["samples"] for c in document["categories"].values())}
        for document in documents
    ]


def are_equal():
    found = states()
    return (
        len(found) == 3
        and all(each["connected"] and not each["pending"] for each in found)
        and len({(each["position"], each["samples"]) for each in found}) == 1
    )


def test_the_demo_says_that_all_replicas_agree(replicas, tmp_path):
    file = tmp_path / "report.json"
    options = ("--compose", ENVOY, "--requests", "80", "--rate", "10", "--json", str(file))
    done = subprocess.run(
        [sys.executable, "-m", "extproc", "demo", *options],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Replicas: 3 of 3 answered; all hold the same." in done.stdout
    assert json.loads(file.read_text())["replicas"] == {"count": 3, "answered": 3, "equal": True}
    assert all(decisions(port) for port in PORTS if read(f"http://127.0.0.1:{port}/readyz"))


def decisions(port):
    lines = read(f"http://127.0.0.1:{port}/metrics").splitlines()
    found = (line for line in lines if line.startswith("dualpool_decisions_total{"))
    return sum(float(line.split()[-1]) for line in found)


def test_the_doctor_finds_nothing_in_healthy_replicas(replicas, stack):
    done = stack.compose("--profile", "shared", "run", "--rm", "--no-deps", "doctor-shared")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": nothing is wrong" in done.stdout


def test_one_may_die(replicas):
    with traffic(CHAT, SHORT) as clients:
        wait_for(clients.more())
        replicas[0].kill()
        wait_for(clients.more(30), 60)
        wait_for(lambda: {outcome.pool for outcome in clients.outcomes[-20:]} == {"short"}, 60)
    replicas[0].start()
    assert clients.lost == []
    wait_for(are_equal, 60)


def test_the_store_may_die(replicas, client):
    [store] = containers(client, "valkey")
    before = max(each["samples"] for each in states())
    with traffic(CHAT, SHORT) as clients:
        store.kill()
        wait_for(clients.more(30), 60)
        store.start()
        wait_for(clients.more(), 60)
    assert clients.lost == []
    wait_for(are_equal, 60)
    assert states()[0]["samples"] > before


def test_a_restart_of_all_forgets_nothing(replicas, stack):
    wait_for(are_equal, 60)
    before = states()[0]["samples"]
    done = stack.compose("--profile", "shared", "restart", "--no-deps", "valkey", "dualpool")
    assert done.returncode == 0, done.stderr
    wait_for(are_equal, 90)
    assert states()[0]["samples"] >= before > 0


def test_a_replica_answers_nobody_without_a_certificate(replicas):
    code = (
        "import grpc; c = grpc.insecure_channel('{}:50051'); grpc.channel_ready_future(c).result(5)"
    )
    done = replicas[0].exec_run(["python", "-c", code.format(replicas[1].name)])
    assert done.exit_code == 1
    assert b"FutureTimeoutError" in done.output


@pytest.mark.parametrize("name", ["valkey", "dualpool", "envoy-shared"])
def test_no_container_can_do_more_than_it_must(replicas, client, name):
    attrs = containers(client, name)[0].attrs
    host = attrs["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert int(attrs["Config"]["User"].partition(":")[0]) > 0


def test_prometheus_sees_all_replicas(replicas):
    url = "http://prometheus:9090/api/v1/targets?state=active"
    code = f"from urllib.request import urlopen; print(urlopen('{url}').read().decode())"

    def seen():
        targets = json.loads(replicas[0].exec_run(["python", "-c", code]).output)
        active = targets["data"]["activeTargets"]
        return sorted(each["labels"]["job"] for each in active if each["health"] == "up")

    wait_for(lambda: seen() == [*["dualpool"] * 3, "envoy", "pool", "pool"], 60)
