"""Another tokenizer takes a model's name, behind the real Envoy: how fast is it learnt?"""

import contextlib
import os
import random
import re
import socket
import threading
from contextlib import contextmanager

import pytest

from extproc.local.sources import built_in_sources
from extproc.local.traffic import compose
from tests.support.local_stack import running, wait_for
from tests.support.vllm_servers import end, wait_until_healthy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Every answer is counted: on a busy machine Envoy would not wait for some decisions.
PATIENT = {"message_timeout_ms": 10_000}
RECOVERY = 50
"""Requests of another tokenizer after which its estimates are good."""
BATCH = 100
ENOUGH = 0.9
"""The share of prompts whose estimate is within 10 % of the truth, before and after."""


class Forwarder:
    """A TCP port that leads to one server, and later to another."""

    def __init__(self, target):
        self._target = target
        self._open = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def lead_to(self, target):
        """Lead to another server; who is connected has to connect again."""
        self._target = target
        while self._open:
            with contextlib.suppress(OSError):  # closed already
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open.append(client)
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, source, sink):
        with source, sink, contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def llama_port(request):
    """The smaller pool's twin with another tokenizer, under the same model name."""
    if port := os.environ.get("DUALPOOL_VLLM_LLAMA_PORT"):
        yield int(port)
        return
    installation = request.getfixturevalue("installation")
    server = installation.start(0, 8143, 2048, 32, model="tiny-llama")
    try:
        wait_until_healthy(["http://127.0.0.1:8143"])
        yield 8143
    finally:
        end(server)


@contextmanager
def forwarding(url):
    forwarder = Forwarder(int(url.rpartition(":")[2]))
    try:
        yield forwarder
    finally:
        forwarder.close()


def within(stack, bound):
    """Answers judged so far, and those whose prompt was estimated within `bound` of the truth."""
    family = re.compile(
        r'^dualpool_budget_relative_error_bucket\{.*le="([^"]+)"\} (\S+)', re.MULTILINE
    )
    at = {}
    for edge, count in family.findall(stack.metrics()):
        at[edge] = at.get(edge, 0) + float(count)
    return at.get("+Inf", 0), at.get(str(bound), 0) - at.get(str(-bound), 0)


def send(stack, rng, sources, count):
    """Send prompts of real text; return the share estimated within 10 % of the truth."""
    seen, close = within(stack, 0.1)
    for _ in range(count):
        text = compose(rng, rng.choice(sources), rng.randint(400, 4000))
        body = {"model": "tiny-qwen", "prompt": text, "max_tokens": 2}
        assert stack.post("/v1/completions", body).status == 200
    wait_for(lambda: within(stack, 0.1)[0] == seen + count)
    return (within(stack, 0.1)[1] - close) / count


def test_another_tokenizer_behind_the_name_is_learnt_in_fifty_requests(
    vllm_urls, llama_port, capsys
):
    rng = random.Random(5)
    sources = [s for s in built_in_sources(5) if s.kind in ("english", "code", "russian", "json")]
    with (
        forwarding(vllm_urls[0]) as forwarder,
        running(
            pools=[f"http://127.0.0.1:{forwarder.port}", vllm_urls[1]],
            envoy_settings=PATIENT,
        ) as stack,
    ):
        send(stack, rng, sources, BATCH)
        before = send(stack, rng, sources, BATCH)
        forwarder.lead_to(llama_port)
        at_once = send(stack, rng, sources, RECOVERY)
        after = send(stack, rng, sources, BATCH)
    with capsys.disabled():
        print(f"\nprompts estimated within 10 %: {before:.0%} of one tokenizer,")
        print(f"{at_once:.0%} of the first {RECOVERY} of another, {after:.0%} of the next {BATCH}")
    assert before >= ENOUGH
    assert after >= ENOUGH
