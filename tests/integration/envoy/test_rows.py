"""Two models in two rows of pools behind the real Envoy; a pool answers 404 for another's model."""

import gzip
import json
import os
import signal
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.local_stack import fetch
from tests.support.production_stack import pool, wait_for
from tests.support.rows_stack import ask, fronted_rows

pytestmark = pytest.mark.slow

CHAT = {"chat-short": 1024, "chat-medium": 8192, "chat-long": 65536}
CODE = {"code-short": 4096, "code-long": 32768}
MODELS = {"chat": ("chat", "sql-lora"), "code": ("code",)}
REFUSAL = json.dumps(
    {
        "error": {
            "message": "This model's maximum context length is 1024 tokens.",
            "type": "BadRequestError",
            "code": 400,
        }
    }
).encode()


def answer(name, body):
    """Answer as vLLM does: with the pool's name in place of a text."""
    asked = json.loads(body) if body.startswith(b"{") else {}
    if asked.get("model", "chat") not in MODELS[name.partition("-")[0]]:
        return "application/json", b'{"error": {"code": 404}}', 404
    if len(body) > asked.get("room", 1 << 30) and not name.endswith("long"):
        return "application/json", REFUSAL, 400
    usage = {"prompt_tokens": len(body) // 4, "completion_tokens": 5}
    text = json.dumps({"choices": [{"text": name, "finish_reason": "stop"}], "usage": usage})
    return "application/json", text.encode(), 200


@contextmanager
def fleet(folder, code_models=("code",), **envoy):
    with ExitStack() as stack:
        rows = [
            {
                "models": models,
                "pools": [
                    {
                        "name": name,
                        "max_model_len": window,
                        "address": stack.enter_context(pool(name, answer)),
                    }
                    for name, window in windows.items()
                ],
            }
            for models, windows in ((["chat", "*-lora"], CHAT), (list(code_models), CODE))
        ]
        yield stack.enter_context(fronted_rows(folder, rows, "chat", **envoy))


@pytest.fixture(scope="module", params=["trailers", "observed", "single"])
def stack(request, tmp_path_factory):
    with fleet(tmp_path_factory.mktemp("rows"), form=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A fleet whose service is stopped after it has decided once."""
    with fleet(tmp_path_factory.mktemp("alone")) as running:
        os.kill(running.service.pid, signal.SIGKILL)
        wait_for(lambda: "x-llm-reason" not in ask(running, "chat").headers)
        yield running


LONG, LONGER = "many words here " * 400, "many words here " * 4000


@pytest.mark.parametrize(
    ("model", "text", "name"),
    [
        ("chat", "Owls?", "chat-short"),
        ("sql-lora", "Owls?", "chat-short"),
        ("chat", LONG, "chat-medium"),
        ("sql-lora", LONGER, "chat-long"),
        ("code", "Owls?", "code-short"),
        ("code", LONG, "code-short"),
        ("code", LONGER, "code-long"),
    ],
)
def test_a_request_goes_to_the_pool_of_its_row_that_fits(stack, model, text, name):
    found = ask(stack, model, text)
    assert (found.status, found.pool) == (200, name)


def test_a_refusal_is_retried_on_the_largest_pool_of_the_row(stack):
    found = ask(stack, "sql-lora", "owls " * 2000, room=100)
    assert (found.status, found.pool) == (200, "chat-long")
    found = ask(stack, "code", "owls " * 2500, room=100)
    assert (found.status, found.pool) == (200, "code-long")


def test_a_model_that_no_row_names_is_not_sent_to_a_pool(stack):
    found = ask(stack, "mine")
    assert (found.status, found.pool) == (404, "")
    assert found.headers["x-llm-reason"] == "unlisted"
    assert found.json["error"]["message"] == "No pool here has this model."
    wait_for(lambda: 'pool="undecided",reason="unlisted"' in stack.metrics())


def test_each_row_learns_by_itself(stack):
    wait_for(lambda: {"chat-long/1024", "code-long/4096"} <= {*state(stack)["limits"]})
    wait_for(lambda: {"prose/chat", "prose/code"} <= {*state(stack)["categories"]})
    assert state(stack)["rows"][0]["models"] == ["chat", "*-lora"]


def state(stack):
    return fetch(f"{stack.http}/state").json


def test_what_states_no_model_goes_to_the_first_row(stack):
    assert fetch(f"{stack.url}/v1/models").status == 200
    found = fetch(f"{stack.url}/v1/completions", {"prompt": "Owls?"})
    assert (found.status, found.pool) == (200, "chat-short")


def test_a_large_body_is_read_because_nothing_else_names_its_row(stack):
    found = ask(stack, "code", "many words here " * 400_000)
    assert (found.status, found.pool) == (200, "code-long")
    assert found.headers["x-llm-reason"] == "oversize"


# Without the service


@pytest.mark.parametrize(
    ("model", "text", "name"),
    [
        ("chat", "Owls?", "chat-short"),
        ("sql-lora", LONG, "chat-medium"),
        ("code", LONG, "code-short"),
        ("code", LONGER, "code-long"),
        ("chat", LONGER * 2, "chat-long"),
    ],
)
def test_envoy_alone_keeps_a_request_in_its_row_and_decides_by_its_size(alone, model, text, name):
    found = ask(alone, model, text)
    assert (found.status, found.pool) == (200, name)


def test_envoy_alone_sends_a_model_without_a_row_to_no_pool(alone):
    assert ask(alone, "mine").status == 404
    assert ask(alone, "mine").json["error"]["message"] == "No pool here has this model."


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"prompt": "a \\"model\\": \\"chat\\" {[\\\\", "model": "code"}', "code-short"),
        (b'{"tools": [{"model": "chat"}], "x": "model", "model":\n "code", "y": 1}', "code-short"),
        (b'{"model" : "sql-lora"}', "chat-short"),
        (b'{"model": "chat", "model": "code"}', "code-short"),
        (b'{"m\\u006fdel": "\\u0063ode"}', "code-short"),
        (b'{"model": "code", "\\\\u006dodel": "chat"}', "code-short"),
        (b'{"model": "code", "x": "' + b'\\"' * 300_000 + b'"}', "code-long"),
        (b'{"prompt": "Owls?"}', "chat-long"),
    ],
)
def test_envoy_alone_reads_the_model_as_the_pools_do(alone, body, name):
    found = fetch(f"{alone.url}/v1/completions", body)
    assert (found.status, found.pool) == (200, name)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "\\u4e2dode"}',
        b'{"x": "' + b'\\"' * 300_000 + b'", "model": "code"}',
        b'{"x": ' + b"[" * 300_000 + b"]" * 300_000 + b', "model": "code"}',
        b'{"x": "' + b"x" * (5 << 20) + b'", "model": "code"}',
    ],
)
def test_envoy_alone_refuses_what_it_cannot_place(alone, body):
    found = fetch(f"{alone.url}/v1/completions", body)
    assert found.status == 503
    assert "is not known" in found.json["error"]["message"]


def test_envoy_alone_refuses_what_it_cannot_decompress(alone):
    body = gzip.compress(b'{"model": "code", "prompt": "Owls?"}')
    found = fetch(f"{alone.url}/v1/completions", body, content_encoding="gzip")
    assert found.status == 503


@pytest.mark.parametrize("encoding", ["identity", " Identity "])
def test_envoy_alone_reads_a_body_that_is_said_to_be_plain(alone, encoding):
    body = b'{"model": "code", "prompt": "Owls?"}'
    found = fetch(f"{alone.url}/v1/completions", body, content_encoding=encoding)
    assert (found.status, found.pool) == (200, "code-long")  # sizes count without the header alone


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"model', b'{"model":', b'{"model": "', b'{"model":3}', b"]]]", b"\x00\xff" * 9],
)
def test_envoy_alone_leaves_the_error_of_a_broken_body_to_a_pool(alone, body):
    assert fetch(f"{alone.url}/v1/completions", body).status in (200, 404, 503)
    assert ask(alone, "chat").status == 200


def test_a_last_row_may_have_every_other_model(tmp_path):
    with fleet(tmp_path, code_models=("code", "*")) as running:
        assert ask(running, "mine").status == 404  # of the pool
        assert ask(running, "mine").headers["x-llm-reason"] == "fits"
        os.kill(running.service.pid, signal.SIGKILL)
        wait_for(lambda: "x-llm-reason" not in ask(running, "chat").headers)
        assert ask(running, "sql-lora").pool == "chat-short"
        assert ask(running, "code").pool == "code-short"
