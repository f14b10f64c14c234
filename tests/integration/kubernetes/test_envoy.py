"""envoy/istio and envoy/gateway in the real Envoy, in front of simulated pools.

No control plane runs here: tests/support/{istiod,envoy_gateway}.py translate the objects.
"""

import asyncio
import json
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import grpc
import pytest

from extproc.config.settings import Form
from extproc.local.ports import free_ports
from tests.support.envoys import VERSIONS, binary
from tests.support.gateways import ENVOY_GATEWAY, ISTIO
from tests.support.local_stack import fetch, running, wait_for
from tests.support.manifests import issue_certificates, refusal, serving

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
LONG_TEXT = "many words here " * 4000
SERVICE = "dualpool.dualpool.svc.cluster.local"
RETRIED = 'dualpool_retries_total{cause="misrouted",pool="short"} 1.0'
MISLED = {
    "estimator": "paper",
    "prior_bytes_per_token": 100.0,
}  # the estimate of the long text is too low

MESHES = {
    "istio": ISTIO,
    "istio, the oldest Envoy": replace(ISTIO, version="1.37"),
    "gateway": ENVOY_GATEWAY,
    # Envoy Gateway before 1.9: one filter.
    "gateway single": replace(ENVOY_GATEWAY, envoy=(("form", Form.SINGLE),)),
}


@contextmanager
def secured(certificates, **settings):
    """Run a stack whose service has the Secret of the pods, at the paths of the settings."""
    service, envoy = certificates / "service", certificates / "envoy"
    listen = {
        "tls_cert": str(service / "tls.crt"),
        "tls_key": str(service / "tls.key"),
        "tls_client_ca": str(service / "ca.crt"),
    }
    own_envoy = {
        "service": "localhost",
        "tls_ca": str(envoy / "ca.crt"),
        "tls_cert": str(envoy / "tls.crt"),
        "tls_key": str(envoy / "tls.key"),
    }
    with running(listen=listen, envoy_settings=own_envoy, **settings) as stack:
        yield stack


@contextmanager
def in_front(mesh, stack, certificates, *, change=lambda config: None):
    """Run the mesh's Envoy in front of a stack; yields a function that sends a request."""
    own = free_ports()
    ports = (stack.ports.grpc, *stack.ports.pools)
    config = mesh.config(own.listener, own.admin, ports, certificates)
    change(config)
    with serving(config, own.admin, binary(mesh.version)):

        def ask(text, path=CHAT, headers=None, **fields):
            message = {"role": "user", "content": text}
            body = {"model": stack.model, "max_tokens": 8, "messages": [message]} | fields
            return fetch(f"http://127.0.0.1:{own.listener}{path}", body, **(headers or {}))

        yield ask


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return issue_certificates(tmp_path_factory.mktemp("certificates"), SERVICE, "localhost")


@pytest.fixture(scope="module")
def stack(certificates):
    # Ask every stream for its usage, however many have taught before.
    with secured(certificates, requests={"observe_sample": 1.0}) as given:
        yield given


@pytest.fixture(scope="module", params=MESHES)
def mesh(request):
    return MESHES[request.param]


@pytest.fixture(scope="module")
def ask(mesh, stack, certificates):
    with in_front(mesh, stack, certificates) as given:
        yield given


@pytest.mark.parametrize("version", VERSIONS)
def test_envoy_takes_it(mesh, version, certificates):
    config = mesh.config(10000, 9901, (50051, 8101, 8102), certificates)
    assert refusal(config, binary(version)) == ""


def test_short_goes_short(ask):
    answer = ask("hello")
    assert (answer.status, answer.pool, answer.headers["x-llm-reason"]) == (200, "short", "fits")


def test_long_goes_long(ask):
    answer = ask(LONG_TEXT)
    assert (answer.status, answer.pool) == (200, "long")
    assert answer.headers["x-llm-reason"] == "capacity"


@pytest.mark.parametrize("wish", ["short", "long", "nonsense"])
def test_a_client_cannot_choose_the_pool(ask, wish):
    headers = {"x_llm_pool": wish, "x_llm_retryable": "1"}
    assert ask(LONG_TEXT, headers=headers).pool == "long"
    assert ask("hello", headers=headers).pool == "short"


def test_a_client_cannot_pass_by_even_where_nothing_is_stripped(mesh, stack, certificates):
    def keep_all(config):
        del manager(config)["early_header_mutation_extensions"]

    with in_front(mesh, stack, certificates, change=keep_all) as ask:
        answer = ask(LONG_TEXT, headers={"x_llm_pool": "short"})
    assert (answer.pool, answer.headers["x-llm-reason"]) == ("long", "capacity")


def test_an_answer_teaches(ask, stack):
    before = samples(stack)
    ask("The owl sat still, as owls do. " * 60)
    wait_for(lambda: samples(stack) > before)


def test_a_stream_without_usage_teaches_and_stays_without(ask, stack):
    before, answers = samples(stack), []

    def teaches():
        # Usage is asked for once streams without it were seen.
        answers.append(ask("The owl sat still, as owls do. " * 60, stream=True).body)
        return samples(stack) > before

    wait_for(teaches)
    assert all(body.rstrip().endswith(b"data: [DONE]") for body in answers)
    assert not any(b'"usage":{' in body for body in answers)


def test_a_stream_with_usage_keeps_it(ask):
    answer = ask("hello", stream=True, stream_options={"include_usage": True})
    assert b'"usage":{' in answer.body


def test_a_body_of_many_megabytes_passes(ask):
    assert ask("hello", pad="x" * 2_000_000).pool == "short"
    # Short, or long if the service does not answer within message_timeout_ms.
    assert ask("hello", pad="x" * 20_000_000).status == 200


def test_over_http2_too(mesh, stack, certificates, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl, which speaks HTTP/2")
    own = free_ports()
    message = {"role": "user", "content": "hello"}
    body = {"model": stack.model, "max_tokens": 8, "messages": [message], "pad": "x" * 3_000_000}
    (tmp_path / "body").write_text(json.dumps(body))
    ports = (stack.ports.grpc, *stack.ports.pools)
    config = mesh.config(own.listener, own.admin, ports, certificates)
    with serving(config, own.admin, binary(mesh.version)):
        url = f"http://127.0.0.1:{own.listener}{CHAT}"
        assert http2_status(url, tmp_path / "body") == "200"


def test_a_refused_prompt_is_answered_by_the_largest_pool(mesh, certificates):
    with (
        secured(certificates, budget=MISLED) as stack,
        in_front(mesh, stack, certificates) as ask,
    ):
        answer = ask(LONG_TEXT)
        assert (answer.status, answer.pool) == (200, "short")
        assert answer.headers["x-envoy-attempt-count"] == "2"
        wait_for(lambda: RETRIED in stack.metrics())


def test_an_envoy_of_another_authority_gets_no_decision(mesh, stack, tmp_path):
    others = issue_certificates(tmp_path, SERVICE)
    with in_front(mesh, stack, others) as ask:
        answer = ask("hello", max_tokens=9000)
    assert (answer.status, answer.pool) == (200, "")


def test_a_service_with_another_name_is_not_asked(mesh, certificates, tmp_path):
    """Its certificate is of the same authority: that of the client."""
    posing = tmp_path / "posing"
    shutil.copytree(certificates, posing)
    for name in ("tls.crt", "tls.key"):
        shutil.copy(certificates / "envoy" / name, posing / "service" / name)
    with secured(posing) as stack, in_front(mesh, stack, certificates) as ask:
        assert ask("hello", max_tokens=9000).pool == ""


def test_nobody_is_answered_without_a_certificate(stack):
    async def connect():
        async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.ports.grpc}") as channel:
            await asyncio.wait_for(channel.channel_ready(), 3)

    with pytest.raises(TimeoutError):
        asyncio.run(connect())


def test_other_routes_of_the_gateway_are_not_shown_to_the_service(mesh, stack, certificates):
    def add_route(config):
        routes = manager(config)["route_config"]["virtual_hosts"][0]["routes"]
        other = {"match": {"prefix": "/other"}, "route": dict(routes[-1]["route"])}
        routes.insert(0, other | {"name": "other"})

    with in_front(mesh, stack, certificates, change=add_route) as ask:
        before = decided(stack)
        assert ask("hello", path=f"/other{CHAT}").pool == ""
        assert decided(stack) == before
        assert ask("hello").pool == "short"


def manager(config):
    [listener] = config["static_resources"]["listeners"]
    return listener["filter_chains"][0]["filters"][-1]["typed_config"]


def samples(stack):
    return sum(figures["samples"] for figures in stack.state().values())


def decided(stack):
    lines = stack.metrics().splitlines()
    return sum(
        float(line.split()[-1])
        for line in lines
        if line.startswith(("dualpool_decisions_total", "dualpool_unread_total"))
    )


def http2_status(url, body):
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--http2-prior-knowledge"]
    command += ["-H", "content-type: application/json", "--data-binary", f"@{body}", url]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout
