"""Faults planted in a live stack: the doctor finds each, and none in a healthy one."""

import datetime
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest
import yaml

from extproc.config.load import load
from extproc.doctor import looking
from extproc.doctor.run import DoctorOptions, run_doctor
from extproc.envoy.render import render_envoy
from extproc.local.envoy import envoy_command
from extproc.local.ports import free_ports
from extproc.local.stack import service_settings
from tests.support.certificate_authority import Authority
from tests.support.http_server import Answering, serving_http
from tests.support.local_stack import answers, fetch, running, wait_for
from tests.support.production_stack import fronted, started

pytestmark = pytest.mark.slow

DEAD = "127.0.0.1:1"  # nobody listens there
OBSERVED = {"requests": {"observe_sample": 1.0}}  # as the stack of tests runs


def send(url, count=120, body=None):
    """Send short requests, eight at a time."""
    body = body or {"model": "m", "prompt": "Where do owls sleep at noon?", "max_tokens": 5}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: fetch(f"{url}/v1/completions", body), range(count)))


@pytest.fixture
def diagnose(capsys):
    """Run the doctor; return the exit code and what it found, by check."""

    def run(**options):
        code = run_doctor(DoctorOptions(json=True, **options))
        findings = json.loads(capsys.readouterr().out)["findings"]
        return code, {each["check"]: each["evidence"] for each in findings}

    return run


# A healthy stack with simulated pools, and Envoys with a fault before its service.


@pytest.fixture(scope="module")
def stack():
    with running() as found:
        send(found.url, body={"model": found.model, "prompt": "Where do owls sleep?"})
        yield found


@pytest.fixture(scope="module")
def config(stack, tmp_path_factory):
    """Return a function that writes the stack's settings, changed, and returns the file."""

    def write(name="healthy", **changes):
        upstreams = [pool.upstream for pool in stack.pools]
        document = service_settings(stack.ports, stack.pools, upstreams, OBSERVED) | changes
        file = tmp_path_factory.mktemp("doctor") / f"{name}.yaml"
        file.write_text(yaml.safe_dump(document))
        return file

    return write


@pytest.fixture
def look_at(stack, config, diagnose):
    """Run the doctor on the stack, with other options."""
    return partial(
        diagnose, config=config(), envoy=stack.gateway.admin_url, service=stack.gateway.service_url
    )


@contextmanager
def faulty_envoy(config, change):
    """Run another Envoy for the same service; yield its URL and its admin's."""
    own = free_ports()
    document = yaml.safe_load(config().read_text())
    document["envoy"] |= {
        "listen": f"127.0.0.1:{own.listener}",
        "admin": f"127.0.0.1:{own.admin}",
    }
    file = config("envoy", **document)
    bootstrap = yaml.safe_load(render_envoy(load(file)))
    change(bootstrap["static_resources"])
    with started(envoy_command(yaml.safe_dump(bootstrap)).argv):
        wait_for(lambda: answers(f"http://127.0.0.1:{own.admin}/ready"))
        yield f"http://127.0.0.1:{own.listener}", f"http://127.0.0.1:{own.admin}"


def filters(resources):
    [listener] = resources["listeners"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]


def cluster(resources, name):
    return next(each for each in resources["clusters"] if each["name"] == name)


def readdress(resources, name, port=1):
    """Give a cluster the address of another port, by default one where nobody listens."""
    [endpoints] = cluster(resources, name)["load_assignment"]["endpoints"]
    [endpoint] = endpoints["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port


def wait_for_health(admin, address):
    """Wait until Envoy uses a server."""
    healthy = f"{address}::health_flags::healthy".encode()
    wait_for(lambda: healthy in fetch(f"{admin}/clusters").body)


def test_nothing_is_found_in_a_healthy_stack(look_at):
    assert look_at() == (0, {})


def test_the_service_states_all_that_the_doctor_needs(stack, diagnose):
    assert diagnose(service=stack.gateway.service_url) == (0, {})


def test_a_service_that_does_not_answer_is_found(look_at):
    code, found = look_at(service=DEAD)
    assert (code, found["service"]) == (1, "http://127.0.0.1:1/metrics: connection refused")


def test_the_metrics_of_another_server_are_not_those_of_the_service(stack, look_at):
    url = stack.pools[0].url
    code, found = look_at(service=url)
    assert (code, found["service"]) == (1, f"{url}/metrics has no metrics of the service")


def test_an_envoy_that_does_not_answer_is_found(look_at):
    code, found = look_at(envoy=DEAD)
    assert (code, found) == (1, {"envoy": "http://127.0.0.1:1/config_dump: connection refused"})


def test_a_file_that_the_service_does_not_run_with_is_found(config, look_at):
    rows = yaml.safe_load(config().read_text())["pools"]
    rows[0]["max_model_len"] = 4096
    code, found = look_at(config=config("window", pools=rows))
    assert (code, [*found]) == (1, ["settings"])
    assert "pools[0].max_model_len: 4096 -> 8192" in found["settings"]


class Smaller(Answering):
    def found(self):
        return 200, b'{"data": [{"id": "m", "max_model_len": 4096}]}'


def test_a_window_that_differs_from_the_servers_is_found(config, look_at):
    with serving_http(Smaller) as address:
        port = int(address.rpartition(":")[2])
        with faulty_envoy(config, lambda all_: readdress(all_, "short", port)) as (_, admin):
            wait_for_health(admin, address)
            code, found = look_at(envoy=admin)
    assert code == 1
    assert found["windows"] == (
        f"{address} of short serves m with 4096 tokens, the settings say 8192"
    )


RBAC = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"


def test_a_gatekeeper_behind_the_routing_filter_is_found(config, look_at):
    def add(resources):
        filters(resources).insert(-1, {"name": "rbac", "typed_config": {"@type": RBAC}})

    with faulty_envoy(config, add) as (_, admin):
        code, found = look_at(envoy=admin)
    assert code == 1
    assert "gets requests that rbac has not accepted yet" in found["filters"]


def test_an_observer_that_is_missing_is_found(stack, config, diagnose):
    def drop(resources):
        chain = filters(resources)
        chain[:] = [each for each in chain if each["name"] != "llm.observer"]

    with faulty_envoy(config, drop) as (url, admin):
        watched = partial(diagnose, config=config(), envoy=admin, watch_s=2)
        code, found = while_sending(url, watched, service=stack.gateway.service_url)
    assert code == 1
    assert found["usage"].endswith("and the service has seen no answer")


def test_a_service_that_envoy_does_not_reach_is_found(config, look_at):
    with faulty_envoy(config, lambda resources: readdress(resources, "dualpool")) as (url, admin):
        send(url)
        code, found = look_at(envoy=admin)
    assert code == 1
    assert found["reach"].startswith("Envoy cannot use the service at 127.0.0.1:1: failed")
    assert found["fail open"].startswith("Envoy routed 100% of 120 requests")


def test_a_server_that_is_down_is_found(config, look_at):
    with faulty_envoy(config, lambda resources: readdress(resources, "short")) as (_, admin):
        state = f"{admin}/clusters"
        wait_for(lambda: b"short::127.0.0.1:1::health_flags::/failed" in fetch(state).body)
        code, found = look_at(envoy=admin)
    assert code == 1
    assert found["pools"].startswith("Envoy does not use 127.0.0.1:1 of short: failed")


def test_a_largest_pool_that_refuses_is_found(config, look_at):
    with faulty_envoy(config, lambda resources: readdress(resources, "long")) as (url, admin):
        send(url, 3, {"model": "m", "prompt": "Where do owls sleep?", "max_tokens": 20_000})
        code, found = look_at(envoy=admin)
    assert code == 1
    assert found["pools"].startswith("127.0.0.1:1 of long refuses connections, Envoy's too: ")


def test_a_largest_pool_that_envoy_never_called_is_not_judged(config, look_at):
    with faulty_envoy(config, lambda resources: readdress(resources, "long")) as (_, admin):
        _, found = look_at(envoy=admin)
    assert "pools" not in found


def test_a_server_that_hangs_is_found(config, look_at, monkeypatch):
    monkeypatch.setattr(looking, "_TIMEOUT_S", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as hung:
        port = hung.getsockname()[1]
        address = f"127.0.0.1:{port}"
        with faulty_envoy(config, lambda all_: readdress(all_, "short", port)) as (_, admin):
            wait_for_health(admin, address)
            code, found = look_at(envoy=admin)
    assert code == 1
    assert found["pools"].startswith(f"{address} of short accepts connections, and Envoy uses it")


# Pools that do what a test says, and the traffic of two seconds.


def while_sending(url, run, **options):
    """Run the doctor while requests are sent."""
    sending = threading.Timer(0.5, send, (url,))
    sending.start()
    try:
        return run(**options)
    finally:
        sending.join()


@pytest.fixture(scope="module")
def told():
    """What the pools answer: a function of a pool's name."""
    return {"answer": None}


@pytest.fixture(scope="module")
def puppets(told, tmp_path_factory):
    folder = tmp_path_factory.mktemp("puppets")

    def answer(name, _body):
        return told["answer"](name) if told["answer"] else ("text/plain", name.encode(), 200)

    # Of this form the service itself reads answers.
    form = {"form": "observed"}
    with fronted(folder, envoy=form, answer=answer, requests={"observe_sample": 1.0}) as found:
        wait_for_decisions(found)
        yield found, folder / "dualpool.yaml"


def wait_for_decisions(stack):
    """Wait until Envoy knows that the service is healthy."""
    wait_for(lambda: stack.envoy_answers() and "dualpool_decisions_total{" in stack.metrics())


def completion(usage=None, finish_reason="stop"):
    choice = {"index": 0, "text": "At home.", "finish_reason": finish_reason}
    body = {"object": "text_completion", "choices": [choice]} | ({"usage": usage} if usage else {})
    return "application/json", json.dumps(body).encode(), 200


@pytest.fixture
def watch(puppets, told, diagnose):
    """Run the doctor while the pools answer so."""

    def run(answer):
        told["answer"] = answer
        stack, file = puppets
        places = {"config": file, "envoy": stack.admin, "service": stack.http}
        return while_sending(stack.url, diagnose, watch_s=2.5, **places)

    return run


def usage(prompt, completion):
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def test_answers_with_usage_are_no_fault(watch):
    assert watch(lambda _: completion(usage(7, 5))) == (0, {})


def test_answers_without_usage_are_found(watch):
    code, found = watch(lambda _: completion())
    assert (code, [*found]) == (1, ["learning"])
    assert found["learning"].endswith("mostly: absent")


def test_misroutes_beyond_the_target_are_found(watch):
    code, found = watch(lambda _: completion(usage(8190, 2), "length"))
    assert code == 1
    assert "were too long for short" in found["misroutes"]


def test_retries_are_found(watch):
    def answer(name):
        failed = "application/json", b"{}", 503
        return failed if name == "short" else completion(usage(7, 5))

    code, found = watch(answer)
    assert code == 1
    assert "came from a second server" in found["retries"]


def test_a_service_that_is_late_is_found(diagnose, tmp_path):
    # A share of the time limit that no answer keeps.
    with fronted(tmp_path, {"busy_share": 0.000001}) as stack:
        wait_for(lambda: 'reason="busy"' in (stack.pool() and stack.metrics()))
        send(stack.url)
        file = tmp_path / "dualpool.yaml"
        _, found = diagnose(config=file, envoy=stack.admin, service=stack.http)
    assert "because the service was late" in found["lateness"]


def test_certificates_that_expire_are_found(capsys, tmp_path):
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=3.5)
    authority = Authority(tmp_path)
    service, envoy = authority.issue("service", until=soon), authority.issue("envoy", until=soon)
    listen = {
        "tls_cert": str(service.cert),
        "tls_key": str(service.key),
        "tls_client_ca": str(authority.file),
    }
    papers = {
        "tls_ca": str(authority.file),
        "tls_cert": str(envoy.cert),
        "tls_key": str(envoy.key),
    }
    with fronted(tmp_path, listen, papers) as stack:
        file = tmp_path / "dualpool.yaml"
        run_doctor(DoctorOptions(config=file, envoy=stack.admin, service=stack.http))
    found = capsys.readouterr().out
    assert f"the service's {service.cert} expires in 3 days" in found
    assert f"Envoy's {envoy.cert} expires in 3 days" in found
