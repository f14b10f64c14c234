"""How a simulated pool finds a handler, and what it answers without one, as a running vLLM did."""

import asyncio

import pytest

from tests.support.pool_client import (
    CHAT,
    HELLO,
    RESPONSES,
    Answered,
    Asked,
    ask,
    get,
    serving,
    settings,
)

BODY = {"messages": HELLO, "max_tokens": 1}
PREFLIGHT = {"Origin": "http://x", "Access-Control-Request-Method": "POST"}


def answer(asked: Asked) -> Answered:
    (found,) = ask(asked)
    return found


@pytest.mark.parametrize("path", ["/v1%2Fchat%2Fcompletions", "/v1/chat/%63ompletions"])
def test_escapes_of_a_path_are_decoded(path):
    assert answer(Asked("POST", path, BODY)).status == 200


@pytest.mark.parametrize("path", ["/v1/chat", "/nope", "/"])
def test_an_unknown_path_is_not_found(path):
    found = answer(Asked("POST", path, BODY))
    assert (found.status, found.body) == (404, b'{"detail":"Not Found"}')


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *((method, CHAT, "POST") for method in ("GET", "HEAD", "OPTIONS", "DELETE", "PUT")),
        ("HEAD", "/health", "GET"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", f"{RESPONSES}/resp_1", "GET"),
        ("GET", f"{RESPONSES}/resp_1/cancel", "POST"),
    ],
)
def test_another_method_is_not_allowed(method, path, allowed):
    found = answer(Asked(method, path))
    assert (found.status, found.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("method", ["HEAD", "GET", "POST"])
def test_metrics_are_shown_for_every_method(method):
    assert answer(Asked(method, "/metrics")).status == 200


def test_a_slash_at_the_end_redirects():
    async def talk() -> tuple[int, str]:
        async with serving(settings()) as client:
            response = await client.post(f"{CHAT}/?a=b", json=BODY, allow_redirects=False)
            return response.status, response.headers["Location"]

    status, location = asyncio.run(talk())
    assert status == 307
    assert location.startswith("http://127.0.0.1:")
    assert location.endswith("/v1/chat/completions?a=b")


@pytest.mark.parametrize("path", [CHAT, "/nope"])
def test_every_preflight_request_is_refused(path):
    found = answer(Asked("OPTIONS", path, more=PREFLIGHT))
    assert (found.status, found.body) == (400, b"Disallowed CORS origin")
    assert found.headers["access-control-allow-methods"] == (
        "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, QUERY"
    )
    assert found.headers["vary"].startswith("Origin, Access-Control-Request-Method")


def test_a_refused_preflight_names_every_fault_and_the_headers_asked_for():
    asked = PREFLIGHT | {
        "Access-Control-Request-Method": "BREW",
        "Access-Control-Request-Private-Network": "true",
        "Access-Control-Request-Headers": "authorization",
    }
    found = answer(Asked("OPTIONS", CHAT, more=asked))
    assert found.body == b"Disallowed CORS origin, method, private-network"
    assert found.headers["access-control-allow-headers"] == "authorization"


def test_options_without_what_a_browser_asks_is_no_preflight():
    assert answer(Asked("OPTIONS", CHAT, more={"Origin": "http://x"})).status == 405


def test_a_ping_is_answered():
    found = answer(get("/ping"))
    assert (found.status, found.body) == (200, b"")
