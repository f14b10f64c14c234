"""A shadow behind the real Envoy: what is decided is told and judged, and changes nothing."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from extproc.config.load import load
from extproc.envoy.render import render_envoy
from extproc.local.children import StackError
from extproc.local.envoy import envoy_command, find_envoy
from extproc.local.ports import free_ports
from tests.support.local_stack import answers, fetch
from tests.support.paths import ROOT
from tests.support.production_stack import BODY, pool, started, wait_for

LONG_TEXT = "Where do owls sleep at noon? " * 2000
PAGE = ROOT / "docs" / "how-to" / "envoy.md"
OWN_URL = "http://127.0.0.1:8081"


def commands():
    """The documented commands that begin with a shadow, without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    [block] = [text for text in blocks if "shadow: true" in text]
    return [line.partition("#")[0].strip() for line in block.splitlines()]


def answer(name, body):
    if b'"stream"' in body:
        return "text/event-stream", b'data: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n', 200
    usage = {"prompt_tokens": 9000, "completion_tokens": 5}
    return "application/json", json.dumps({"pool": name, "usage": usage}).encode(), 200


class Shadow:
    """A running shadow in front of one pool; `bodies` are the SHA-256 of what the pool got."""

    def __init__(self, folder, stack):
        self._folder, ports = folder, free_ports()
        self.url, self.http = f"http://127.0.0.1:{ports.listener}", f"http://127.0.0.1:{ports.http}"
        self.bodies = Counter()

        def noting(name, body):
            self.bodies[hashlib.sha256(body).hexdigest()] += 1
            return answer(name, body)

        address = stack.enter_context(pool("long", noting))
        document = {
            "listen": {"grpc": f"127.0.0.1:{ports.grpc}", "http": f"127.0.0.1:{ports.http}"},
            "pools": [
                {"name": "short", "max_model_len": 8192},  # there is none yet
                {"name": "long", "max_model_len": 65536, "address": address},
            ],
            "envoy": {
                "listen": f"127.0.0.1:{ports.listener}",
                "admin": f"127.0.0.1:{ports.admin}",
            },
        }
        (folder / "dualpool.yaml").write_text(yaml.safe_dump(document))
        self.copy, self.config, self.serve, self.metrics, self.plan = commands()
        for each in (self.copy, self.config):
            assert self.run(each).returncode == 0
        stack.enter_context(started(("bash", "-c", self._own(f"cd {folder}; exec {self.serve}"))))
        envoy = render_envoy(load(folder / "shadow.yaml"))
        assert (folder / "envoy.yaml").read_text() == envoy
        stack.enter_context(started(envoy_command(envoy).argv))
        wait_for(lambda: answers(f"{self.http}/readyz"))
        wait_for(lambda: self.send(BODY).headers.get("x-llm-shadow-pool"))

    def _own(self, command):
        path = f"export PATH={Path(sys.executable).parent}:$PATH"
        return f"{path}; {command.replace(OWN_URL, self.http)}"

    def run(self, command):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            ("bash", "-c", self._own(command)),
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env=environment,
        )

    def send(self, body):
        try:
            return fetch(f"{self.url}/v1/completions", body)
        except OSError:
            return fetch(f"{self.http}/healthz")

    def figure(self, series):
        lines = fetch(f"{self.http}/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series))


@pytest.fixture(scope="module")
def shadow(tmp_path_factory):
    try:
        find_envoy()
    except StackError as error:
        pytest.skip(str(error))
    with ExitStack() as stack:
        yield Shadow(tmp_path_factory.mktemp("shadow"), stack)


def test_the_decision_is_told_and_the_pool_that_there_is_answers(shadow):
    short, long = shadow.send(BODY), shadow.send({**BODY, "prompt": LONG_TEXT})
    assert [each.headers["x-llm-shadow-pool"] for each in (short, long)] == ["short", "long"]
    assert [each.json["pool"] for each in (short, long)] == ["long", "long"]
    assert "x-llm-reason" not in short.headers


def test_no_stream_is_asked_for_usage(shadow):
    body = json.dumps({**BODY, "stream": True}).encode()
    for _ in range(20):
        shadow.send(body)
    assert shadow.bodies[hashlib.sha256(body).hexdigest()] == 20


def test_what_would_have_been_misrouted_is_counted_and_planned_for(shadow):
    for _ in range(30):
        shadow.send(BODY)  # of 9,000 tokens, as the pool says
    wait_for(lambda: shadow.figure('dualpool_answers_total{outcome="learnt"}') >= 30)
    assert shadow.figure('dualpool_misroutes_total{kind="harmless",pool="short"}') > 0
    assert shadow.figure("dualpool_retries_total") == 0
    shown = shadow.run(shadow.metrics).stdout
    assert 'dualpool_verdicts_total{pool="short",verdict="misrouted"}' in shown
    planned = shadow.run(shadow.plan)
    assert planned.returncode == 0, planned.stderr
    assert "chose short for" in " ".join(planned.stdout.split())
