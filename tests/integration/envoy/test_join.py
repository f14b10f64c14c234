"""An operator's Envoy before two applications, joined as docs/join-your-envoy.md says."""

import json
import os
import re
import signal
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.envoys import binary
from tests.support.joined_envoy import AFTER, JoinedEnvoy, joined
from tests.support.local_stack import fetch, running, wait_for
from tests.support.paths import ROOT

CHAT = "/llm/v1/chat/completions"
# Believes prompts to be much shorter than they are: the short pool refuses what it is given.
CREDULOUS = {"estimator": "paper", "prior_bytes_per_token": 100.0}
KEY = {"x_key": "secret"}


class Application(BaseHTTPRequestHandler):
    """Answers with what it was sent: path, headers and the length of the body."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        if "chunked" in self.headers.get("transfer-encoding", ""):
            size = sum(iter(self._chunk, 0))
        else:
            size = len(self.rfile.read(int(self.headers.get("content-length", 0))))
        given = {key.lower(): value for key, value in self.headers.items()}
        body = json.dumps({"path": self.path, "headers": given, "bytes": size}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815

    def _chunk(self):
        size = int(self.rfile.readline(), 16)
        self.rfile.read(size + 2)
        return size

    def log_message(self, *_):
        pass


@contextmanager
def application():
    """Run the application; yield its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Application) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


FORMS = [("1.40", "trailers"), ("1.40", "observed")]
OLDER = [pytest.param((v, "observed"), marks=pytest.mark.slow) for v in ("1.36", "1.38")]


@pytest.fixture(scope="module", params=[*FORMS, *OLDER], ids="-".join)
def stack(request):
    version, form = request.param
    with application() as port:
        settings = {"version": version, "form": form}
        envoy = JoinedEnvoy(binary(version), settings, application=port)
        with running(envoy=envoy, budget=CREDULOUS) as given:
            given.version = version
            yield given


def chat(stack, text="hello", **fields):
    messages = [{"role": "user", "content": text}]
    return {"model": stack.model, "max_tokens": 8, "messages": messages} | fields


def decisions(stack):
    lines = stack.metrics().splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if line.startswith("dualpool_decisions_total{")
    )


def test_a_prompt_goes_to_the_pool_whose_window_it_fits(stack):
    assert stack.post(CHAT, chat(stack), **KEY).pool == "short"
    assert stack.post(CHAT, chat(stack, max_tokens=9000), **KEY).pool == "long"


def test_the_pool_gets_the_path_below_the_prefix(stack):
    assert stack.post("/llm/v1/models", None, **KEY).json["data"][0]["id"] == stack.model


def test_what_the_short_pool_refuses_the_long_one_answers(stack):
    answer = stack.post(CHAT, chat(stack, "many words here " * 4000), **KEY)
    assert (answer.status, answer.pool) == (200, "long")


def test_a_prompt_above_the_listeners_buffer_reaches_a_pool(stack):
    if stack.version == "1.36":
        pytest.skip("Envoy 1.36 needs per_connection_buffer_limit_bytes on the listener")
    answer = stack.post(CHAT, chat(stack, "many words here " * 130_000), **KEY)
    assert answer.status == 400
    assert "maximum context length" in answer.body.decode()


def test_a_client_cannot_choose_the_pool(stack):
    large = chat(stack, max_tokens=9000)
    assert stack.post(CHAT, large, x_llm_pool="short", **KEY).pool == "long"


def test_an_answer_teaches(stack):
    before = samples(stack)
    stack.post(CHAT, chat(stack, "The owl sat still. " * 60), **KEY)
    wait_for(lambda: samples(stack) > before)


def samples(stack):
    return sum(each["samples"] for each in stack.state().values())


def test_what_the_operator_refuses_does_not_reach_the_service(stack):
    before = decisions(stack)
    assert stack.post(CHAT, chat(stack)).status == 403
    assert decisions(stack) == before


@pytest.mark.parametrize("path", ["/shop/cart", "/", "/v1/chat/completions"])
def test_an_application_gets_what_its_clients_send(stack, path):
    before = decisions(stack)
    headers = {"accept_encoding": "br", "x_team": "a"}
    answer = stack.post(path, b"x" * 3_000_000, **headers)
    assert answer.json["bytes"] == 3_000_000
    assert answer.json["path"] == path
    assert (
        headers.items()
        <= {k.replace("-", "_"): v for k, v in answer.json["headers"].items()}.items()
    )
    assert decisions(stack) == before


def test_an_application_may_be_sent_a_chunked_body_of_any_size(stack):
    chunks = (b"x" * 65536 for _ in range(60))
    answer = fetch(f"{stack.url}/shop/upload", chunks, transfer_encoding="chunked")
    assert answer.json["bytes"] == 60 * 65536


def test_the_answers_of_an_application_are_its_own(stack):
    answer = stack.post("/shop/cart", b"x")
    assert not [name for name in answer.headers if name.startswith("x-llm-")]


def test_the_links_of_the_page_lead_somewhere():
    page = ROOT / "docs" / "join-your-envoy.md"
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert links
    assert all((page.parent / link).exists() for link in links)


def test_the_example_is_what_the_parts_give():
    assert AFTER.read_text() == joined(), "run: python -m tests.support.joined_envoy"


def test_without_the_service_the_applications_go_on_and_prompts_to_the_long_pool(stack):
    """The last test: it stops the service."""
    os.kill(stack.gateway.service.pid, signal.SIGKILL)
    assert stack.post("/shop/cart", b"x").json["bytes"] == 1
    assert stack.post(CHAT, chat(stack, max_tokens=9000), **KEY).pool == "long"
