"""docker-compose.yml on a real Docker Engine: it comes up, routes, and loses nothing to faults."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest

pytest.importorskip("docker", reason="these tests need: pip install '.[dev]'")

from tests.support.docker_engine import skip_where_none_can_run, traffic
from tests.support.local_stack import fetch, wait_for
from tests.support.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
skip_where_none_can_run()

ENVOY = "http://127.0.0.1:10000"
CHAT = f"{ENVOY}/v1/chat/completions"
SOCKET = "/run/dualpool-socket/service.sock"
SERVICES = ("dualpool-single", "envoy", "long", "prometheus", "short")


def chat(max_tokens):
    messages = [{"role": "user", "content": "Where do owls sleep at noon?"}]
    return {"model": "simulated", "max_tokens": max_tokens, "messages": messages}


SHORT, LONG = chat(5), chat(9000)


@pytest.fixture(scope="module")
def stack(docker_engine):
    up = docker_engine.compose("up", "--detach", "--wait", "--no-build")
    try:
        assert up.returncode == 0, up.stderr
        yield docker_engine
    finally:
        print(docker_engine.compose("logs", "--tail", "30").stdout)
        docker_engine.compose("down", "--volumes")


@pytest.fixture(scope="module")
def client(docker_engine):
    client = docker_engine.client()
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def containers(stack, client):
    """The containers of the services, all healthy, and short requests on the short pool."""
    wait_for(lambda: all(healthy(found(client)[name]) for name in SERVICES), 60)
    wait_for(lambda: pool_of(SHORT) == "short", 30)
    wait_for(lambda: pool_of(LONG) == "long", 30)
    return found(client)


def found(client):
    return {
        container.labels["com.docker.compose.service"]: container
        for container in client.containers.list()
    }


def healthy(container):
    container.reload()
    return container.attrs["State"]["Health"]["Status"] == "healthy"


def pool_of(body):
    try:
        answer = fetch(CHAT, body)
    except OSError:
        return ""
    return answer.pool if answer.status == 200 else ""


def crash(container):
    container.reload()
    os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)


@pytest.mark.parametrize("image", ["dualpool:local", "dualpool-pool:local"])
def test_an_image_has_a_user_and_a_health_check(docker_engine, client, image):
    config = client.images.get(image).attrs["Config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"][0] == "CMD"


def test_the_service_adds_less_than_150_mb_to_python(docker_engine, client):
    image, base = (client.images.get(tag) for tag in ("dualpool:local", "python:3.12-slim"))
    added_mb = (image.attrs["Size"] - base.attrs["Size"]) / 1e6
    print(f"{added_mb:.0f} MB over python:3.12-slim")
    assert added_mb < 150


def test_wrong_windows_end_the_start_with_the_reason(docker_engine):
    done = docker_engine.compose("run", "--rm", "settings", SHORT_MAX_MODEL_LEN="70000")
    assert done.returncode == 2
    line = (ROOT / ".env").read_text().splitlines().index("LONG_MAX_MODEL_LEN=65536") + 1
    allowed = "LONG_MAX_MODEL_LEN: 65536 is not allowed: more than the 70000 of pools[0]"
    assert f".env:{line}: {allowed}" in done.stderr


def test_the_check_says_that_all_is_right(docker_engine):
    done = docker_engine.compose("run", "--rm", "check")
    assert done.returncode == 0, done.stderr
    assert ".env and envoy/dualpool.yaml are right: short 8192, long 65536" in done.stdout


def test_the_check_names_what_is_wrong(docker_engine):
    done = docker_engine.compose("run", "--rm", "check", LONG_MAX_NUM_SEQS="16x")
    assert done.returncode == 2
    assert "environment: LONG_MAX_NUM_SEQS: '16x' is not allowed: a whole number" in done.stderr


def test_the_doctor_finds_nothing_in_a_healthy_stack(containers, stack):
    for _ in range(20):
        pool_of(SHORT)
    done = stack.compose("run", "--rm", "--no-deps", "doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": nothing is wrong" in done.stdout


def test_short_requests_go_to_the_short_pool_and_long_ones_to_the_long_pool(containers):
    assert (pool_of(SHORT), pool_of(LONG)) == ("short", "long")


TYPOS = {"SHORT_MAX_MODEL_LEN": "8192x", "LONG_MAX_NUM_SEQS": "16x", "LONG_MAX_MODEL_LEN": "1"}


@pytest.mark.parametrize("name", TYPOS)
def test_a_typo_leaves_what_runs_as_it_is(containers, stack, client, name):
    before = {name: container.id for name, container in containers.items()}
    with traffic(CHAT, SHORT) as clients:
        wait_for(clients.more())
        up = stack.compose("up", "--detach", "--no-build", **{name: TYPOS[name]})
        wait_for(clients.more())
    assert up.returncode != 0
    assert clients.lost == []
    assert {name: container.id for name, container in found(client).items()} == before


def test_a_new_window_reaches_all_without_new_containers(containers, stack, client):
    before = {name: container.id for name, container in containers.items()}
    started = started_at(client, "dualpool-single")
    try:
        up = stack.compose("up", "--detach", "--no-build", SHORT_MAX_MODEL_LEN="4096")
        assert up.returncode == 0, up.stderr
        wait_for(lambda: windows() == {"short": 4096, "long": 65536}, 60)
        wait_for(lambda: pool_of(chat(3000)) == "short", 60)
        wait_for(lambda: pool_of(chat(5000)) == "long", 60)
        assert {name: container.id for name, container in found(client).items()} == before
        assert started_at(client, "dualpool-single") == started  # it has loaded its file again
    finally:
        assert stack.compose("up", "--detach", "--no-build").returncode == 0
        wait_for(lambda: windows() == {"short": 8192, "long": 65536}, 60)


def started_at(client, name):
    return found(client)[name].attrs["State"]["StartedAt"]


def windows():
    """Return the windows that the service states."""
    with suppress(OSError):
        return json.loads(fetch("http://127.0.0.1:8081/state").body)["pools"]
    return {}


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_can_do_more_than_it_must(containers, name):
    attrs = containers[name].attrs
    host = attrs["HostConfig"]
    assert (host["ReadonlyRootfs"], host["Privileged"], host["CapDrop"]) == (True, False, ["ALL"])
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert int(attrs["Config"]["User"].partition(":")[0]) > 0
    assert min(host["Memory"], host["PidsLimit"]) > 0


def test_only_the_api_the_service_and_prometheus_are_published_and_only_on_this_machine(containers):
    bound = [
        (place["HostIp"], int(place["HostPort"]))
        for container in containers.values()
        for places in container.attrs["NetworkSettings"]["Ports"].values()
        for place in places or ()
    ]
    assert {address for address, _ in bound} == {"127.0.0.1"}
    assert {port for _, port in bound} == {8081, 9090, 10000}


def test_prometheus_sees_all_parts(containers):
    def seen():
        answer = fetch("http://127.0.0.1:9090/api/v1/targets?state=active")
        targets = json.loads(answer.body)["data"]["activeTargets"]
        return sorted(t["labels"]["job"] for t in targets if t["health"] == "up")

    wait_for(lambda: seen() == ["dualpool", "envoy", "pool", "pool"], 60)


def test_the_service_takes_decisions_from_its_socket_alone(containers):
    """In hexadecimal 8081 is 1F91 and 50051 is C383; 0A means that it listens."""
    sockets = shell(containers["dualpool-single"], "tail -qn +2 /proc/net/tcp /proc/net/tcp6")
    listening = {line.split()[1].split(":")[1] for line in sockets.splitlines() if " 0A " in line}
    assert "1F91" in listening
    assert "C383" not in listening


def test_envoy_and_the_service_alone_reach_the_socket(containers):
    assert (
        shell(containers["dualpool-single"], f"stat -c '%a %u:%g' {SOCKET}") == "660 10001:10001\n"
    )
    folder = shell(containers["dualpool-single"], "stat -c '%a %u:%g' /run/dualpool-socket")
    assert folder == "750 10001:10001\n"
    for name, found in {"envoy": "yes", "short": "no", "long": "no", "prometheus": "no"}.items():
        assert shell(containers[name], f"[ -S {SOCKET} ] && echo yes || echo no") == f"{found}\n"


def test_the_image_of_the_service_can_open_a_tokenizer(containers):
    program = "import tokenizers as t; print(t.Tokenizer(t.models.BPE()).no_padding())"
    assert shell(containers["dualpool-single"], f"python -c '{program}'") == "None\n"


def shell(container, command):
    return container.exec_run(["bash", "-c", command]).output.decode()


def test_envoy_may_start_before_the_service_that_owns_the_volume(containers, stack):
    stack.compose("down", "--volumes")
    try:
        pools = stack.compose("up", "--detach", "--wait", "--no-build", "short", "long")
        assert pools.returncode == 0, pools.stderr
        alone = stack.compose("up", "--detach", "--no-build", "--no-deps", "envoy")
        assert alone.returncode == 0, alone.stderr
        wait_for(lambda: pool_of(SHORT) == "short", 60)  # by its size: nobody has decided
    finally:
        up = stack.compose("up", "--detach", "--wait", "--no-build")
    assert up.returncode == 0, up.stderr
    wait_for(lambda: decided_pool(SHORT) == "short", 30)


def decided_pool(body):
    """Return the pool that the service has chosen; empty if it has not."""
    answer = fetch(CHAT, body)
    return answer.pool if answer.headers.get("x-llm-reason") == "fits" else ""


def test_a_second_service_says_what_to_do_and_the_first_serves_on(containers, stack):
    before = shell(containers["dualpool-single"], f"stat -c %i {SOCKET}")
    try:
        more = ("--no-recreate", "--scale", "dualpool-single=2")
        stack.compose("up", "-d", "--no-build", *more, DUALPOOL_PORT="8081-8083")
        wait_for(lambda: TAKEN in stack.compose("logs", "dualpool-single").stdout, 60)
        assert decided_pool(SHORT) == "short"
        assert shell(containers["dualpool-single"], f"stat -c %i {SOCKET}") == before
    finally:
        assert stack.compose("up", "-d", "--no-build", "--no-recreate").returncode == 0


TAKEN = f"another server listens on {SOCKET}; stop it, or choose another path; several replicas"


def test_the_demo_runs_against_the_stack(containers, tmp_path):
    file = tmp_path / "report.json"
    options = ("--compose", ENVOY, "--requests", "80", "--rate", "10", "--json", str(file))
    done = subprocess.run(
        [sys.executable, "-m", "extproc", "demo", *options],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Not visible from outside the stack" in done.stdout
    report = json.loads(file.read_text())
    assert (report["lost"], report["altered"]) == ([], [])
    assert all(pool["requests"] for pool in report["pools"])


@pytest.mark.parametrize("name", ["dualpool-single", "prometheus"])
def test_a_part_that_is_killed_costs_no_answer(containers, name):
    lost, _, _ = lost_while_killed(containers[name])
    assert lost == []


def test_a_pool_that_is_killed_loses_only_what_it_was_answering(containers):
    """Such a request may be what killed it: the other pool does not get it as well."""
    lost, killed_s, gone_s = lost_while_killed(containers["short"], clients=4)
    assert sum(outcome.asked_s < killed_s for outcome in lost) <= 4
    # Until it is gone, its socket still takes connections.
    assert all(outcome.asked_s < gone_s for outcome in lost)


def lost_while_killed(container, clients=4):
    """Return the requests that were lost, and the times before and after the end of a container."""
    with traffic(CHAT, SHORT, clients) as running:
        wait_for(running.more())
        killed_s = time.monotonic()
        container.kill()
        container.wait()
        gone_s = time.monotonic()
        wait_for(running.more(30), 60)
        container.start()
        wait_for(lambda: healthy(container), 60)
        wait_for(running.more())
    return running.lost, killed_s, gone_s


def test_without_the_long_pool_short_requests_go_on(containers):
    with traffic(CHAT, SHORT, clients=2) as clients:
        wait_for(clients.more())
        containers["long"].kill()
        wait_for(clients.more(30), 60)
        assert fetch(CHAT, LONG).status == 503
        containers["long"].start()
        wait_for(lambda: pool_of(LONG) == "long", 60)
    # What the service is too slow for goes to the long pool: on a busy machine, to nobody.
    assert [outcome for outcome in clients.lost if outcome.pool != "long"] == []


@pytest.mark.parametrize("name", SERVICES)
def test_a_part_that_dies_comes_back_by_itself(containers, name):
    before = containers[name].attrs["RestartCount"]
    crash(containers[name])
    wait_for(lambda: restarts(containers[name]) > before)
    wait_for(lambda: healthy(containers[name]), 60)


def restarts(container):
    container.reload()
    return container.attrs["RestartCount"]


def test_an_envoy_that_is_killed_loses_only_what_it_was_answering(containers):
    with traffic(CHAT, SHORT, clients=4) as clients:
        wait_for(clients.more())
        died_s = time.monotonic()
        containers["envoy"].kill()
        containers["envoy"].start()
        wait_for(lambda: pool_of(SHORT) == "short", 60)
        back_s = time.monotonic()
        wait_for(clients.more())
    assert all(outcome.asked_s < back_s for outcome in clients.lost)
    assert sum(outcome.asked_s < died_s for outcome in clients.lost) <= 4


def test_a_pool_that_is_cut_off_loses_only_what_it_was_answering(containers, client):
    """It is then found at its new address."""
    pools = client.networks.get("dualpool_pools")
    old = address(containers["short"])
    with traffic(CHAT, SHORT, clients=4) as clients:
        wait_for(clients.more())
        pools.disconnect(containers["short"])
        wait_for(clients.more(30), 90)
        with another_at_its_address(client):
            pools.connect(containers["short"], aliases=["short"])
            wait_for(lambda: clients.outcomes[-1].pool == "short", 60)
    assert len(clients.lost) <= 4
    assert address(containers["short"]) != old


@contextmanager
def another_at_its_address(client):
    """Run a container that serves nothing, at the address that has become free."""
    other = client.containers.run(
        "dualpool-pool:local", entrypoint=["sleep", "300"], network="dualpool_pools", detach=True
    )
    try:
        yield
    finally:
        other.remove(force=True)


def address(container):
    container.reload()
    return container.attrs["NetworkSettings"]["Networks"]["dualpool_pools"]["IPAddress"]


def test_a_restart_forgets_nothing(containers, stack):
    before = samples()
    assert before > 0
    assert stack.compose("restart", "--no-deps", "dualpool-single").returncode == 0
    # It answers before it has read its file, and is ready after.
    wait_for(lambda: (samples() or 0) >= before, 60)
    kept = shell(containers["dualpool-single"], "stat -c '%a %u:%g' /var/lib/dualpool{,/state}")
    assert kept == "750 10001:10001\n600 10001:10001\n"


def samples():
    """Return how many answers the service has learnt from; None while it does not answer."""
    with suppress(OSError):
        state = json.loads(fetch("http://127.0.0.1:8081/state").body)
        return sum(category["samples"] for category in state["categories"].values())


def test_what_was_stopped_starts_again(containers, stack):
    assert stack.compose("stop").returncode == 0
    started = stack.compose("up", "-d", "--wait", "--no-build")
    assert started.returncode == 0, started.stderr
    wait_for(lambda: (pool_of(SHORT), pool_of(LONG)) == ("short", "long"))


def test_a_third_pool_is_one_more_file(stack):
    files = ("-f", "deploy/compose/three-pools.yml")
    try:
        up = stack.compose(*files, "up", "--detach", "--wait", "--no-build")
        assert up.returncode == 0, up.stderr
        wait_for(
            lambda: [pool_of(chat(n)) for n in (5, 9000, 40_000)] == ["short", "middle", "long"], 60
        )
    finally:
        stack.compose("up", "--detach", "--no-build", "--remove-orphans")
        wait_for(lambda: windows() == {"short": 8192, "long": 65536}, 60)
