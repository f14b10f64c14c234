"""Servers with another window than the settings say, through the real Envoy."""

import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest
import yaml

from extproc.config.load import load
from extproc.envoy.render import render_envoy
from extproc.local.children import StackError
from extproc.local.envoy import envoy_command, find_envoy
from extproc.local.ports import free_ports
from tests.support.local_stack import answers, fetch
from tests.support.production_stack import started, wait_for
from tests.support.running_service import consecutive_ports

pytestmark = pytest.mark.slow

# Some 4,000 tokens: more than the server has, less than the settings say.
BODY = {"model": "m", "prompt": "Where do owls sleep at noon? " * 570, "max_tokens": 5}


@contextmanager
def server(port, window):
    flags = {"port": port, "max-model-len": window, "model": "m", "speed": 50, "seed": 0}
    command = [sys.executable, "-m", "extproc.simulator.pool.server"]
    command += [text for key, value in flags.items() for text in (f"--{key}", str(value))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"))
            yield
        finally:
            process.kill()


@contextmanager
def gateway(folder, short, long):
    """Run Envoy and two workers of the service; yield Envoy's URL and the service's."""
    ports, (grpc, _) = free_ports(), consecutive_ports(2)
    document = {
        "workers": 2,
        "listen": {"grpc": f"127.0.0.1:{grpc}", "http": f"127.0.0.1:{ports.http}", "notice_s": 0},
        "pools": [
            {"name": "short", "max_model_len": 8192, "address": f"127.0.0.1:{short}"},
            {"name": "long", "max_model_len": 65536, "address": f"127.0.0.1:{long}"},
        ],
        "load": {"discover": True},
        "envoy": {
            "listen": f"127.0.0.1:{ports.listener}",
            "admin": f"127.0.0.1:{ports.admin}",
        },
    }
    file = folder / "dualpool.yaml"
    file.write_text(yaml.safe_dump(document))
    serve = (sys.executable, "-m", "extproc", "serve", "--config", str(file))
    http = f"http://127.0.0.1:{ports.http}"
    with started(serve), started(envoy_command(render_envoy(load(file))).argv):
        wait_for(lambda: answers(f"{http}/readyz"))
        wait_for(lambda: answers(f"http://127.0.0.1:{ports.admin}/ready"))
        yield f"http://127.0.0.1:{ports.listener}", http


def test_workers_know_a_model_that_servers_count_before_its_first_answer(tmp_path):
    short, long = consecutive_ports(1)
    with ExitStack() as stack:
        stack.enter_context(server(long, 65536))
        stack.enter_context(server(short, 8192))
        try:
            url, http = stack.enter_context(gateway(tmp_path, short, long))
        except StackError as error:
            pytest.skip(str(error))
        wait_for(lambda: "m" in fetch(f"{http}/state").json["models"])
        assert fetch(f"{url}/v1/completions", BODY).status == 200
        wait_for(
            lambda: 'decisions_total{basis="borrowed"' in fetch(f"{http}/metrics").body.decode()
        )
        assert 'decisions_total{basis="prior"' not in fetch(f"{http}/metrics").body.decode()


def test_a_request_goes_where_the_servers_hold_it_and_back_once_they_do(tmp_path):
    try:
        find_envoy()
    except StackError as error:
        pytest.skip(str(error))
    short, long = consecutive_ports(1)
    with ExitStack() as stack:
        stack.enter_context(server(long, 65536))
        with server(short, 2048):
            url, http = stack.enter_context(gateway(tmp_path, short, long))

            def found():
                return fetch(f"{http}/state").json["discovered"].get("short", {})

            def decided():
                answer = fetch(f"{url}/v1/completions", BODY)
                assert answer.status == 200
                return answer.pool, answer.headers.get("x-llm-reason")

            wait_for(lambda: found().get("used") == 2048)
            assert found()["models"] == ["m"]
            wait_for(lambda: {decided() for _ in range(6)} == {("long", "capacity")})
        with server(short, 8192):
            wait_for(lambda: found()["used"] == 8192)
            wait_for(lambda: {decided() for _ in range(6)} == {("short", "fits")})
