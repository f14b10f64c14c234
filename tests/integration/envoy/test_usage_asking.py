"""Pools that state usage always, when asked, or refuse to be asked, behind the real Envoy."""

import json

import pytest

from tests.support import local_stack as gateway
from tests.support.production_stack import fronted, wait_for

pytestmark = pytest.mark.slow

EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"owl"},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"
REFUSAL = b'{"error":{"message":"stream_options: extra fields not permitted"}}'
LOST = []  # the first request that asks a server which then breaks off


def answer(_name, body):
    """Answer as the server that the request's model names."""
    request = json.loads(body)
    asked = "stream_options" in request
    if asked and request["model"] == "refusing":
        return "application/json", REFUSAL, 400
    if asked and request["model"] == "losing" and not LOST:
        LOST.append(request)
        return "text/event-stream", EVENT, 200
    stated = asked or request["model"] == "forced"
    return "text/event-stream", EVENT + (USAGE if stated else b"") + DONE, 200


@pytest.fixture(scope="module", params=["trailers", "observed"])
def stack(request, tmp_path_factory):
    folder, envoy = tmp_path_factory.mktemp("usage"), {"form": request.param}
    with fronted(folder, envoy=envoy, answer=answer, requests={"observe_sample": 1.0}) as running:
        yield running


def streamed(stack, model):
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": True}
    return gateway.fetch(f"{stack.url}/v1/chat/completions", body)


def asked(stack):
    [line] = [x for x in stack.metrics().splitlines() if x.startswith("dualpool_usage_asked_total")]
    return float(line.split()[1])


def test_a_pool_that_always_states_usage_goes_on_doing_so(stack):
    before = asked(stack)
    assert {streamed(stack, "forced").body for _ in range(40)} == {EVENT + USAGE + DONE}
    assert asked(stack) == before


def test_a_pool_that_states_usage_when_asked_is_asked_and_no_client_sees_it(stack):
    before, seen = asked(stack), set()

    def is_asked():
        seen.add(streamed(stack, "silent").body)
        return asked(stack) >= before + 3

    wait_for(is_asked)
    assert seen == {EVENT + DONE}


def test_a_lost_trial_is_soon_repeated(stack):
    before, seen = asked(stack), []
    LOST.clear()

    def is_asked_again():
        seen.append(streamed(stack, "losing").body)
        return asked(stack) >= before + 3

    wait_for(is_asked_again)
    assert set(seen) == {EVENT, EVENT + DONE}
    assert seen.count(EVENT) == 1
    assert len(seen) - seen.index(EVENT) < 50


def test_a_pool_that_refuses_to_be_asked_costs_one_error(stack):
    statuses = [streamed(stack, "refusing").status for _ in range(60)]
    assert statuses.count(200) >= 59
    assert asked(stack) > 0
