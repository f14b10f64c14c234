"""The rendered configuration in each Envoy, in each form that it has."""

import json

import pytest

from tests.support.envoys import FORMS, binary
from tests.support.local_stack import OwnEnvoy, running, wait_for

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
# Believes prompts to be much shorter than they are: the short pool refuses what it is given.
CREDULOUS = {"estimator": "paper", "prior_bytes_per_token": 100.0}
LIMIT = 2_000_000
LARGE = 1_700_000
REQUESTS = {"max_body_bytes": LIMIT, "observe_sample": 1.0}


@pytest.fixture(scope="module", params=FORMS, ids="-".join)
def stack(request):
    version, form = request.param
    envoy = OwnEnvoy(binary(version), {"version": version, "form": form, "large_body_bytes": LARGE})
    categories = {"header": "x-team"}
    with running(envoy=envoy, budget=CREDULOUS, requests=REQUESTS, categories=categories) as given:
        yield given


def chat(stack, text, **fields):
    messages = [{"role": "user", "content": text}]
    return {"model": stack.model, "max_tokens": 8, "messages": messages} | fields


def teaches(stack, team):
    """Tell whether an answer to this team's requests has taught."""
    found = [each["samples"] for name, each in stack.state().items() if team in name]
    return sum(found) >= 1


def test_a_request_is_routed_by_its_body(stack):
    assert stack.post(CHAT, chat(stack, "hello")).pool == "short"
    assert stack.post(CHAT, chat(stack, "hello", max_tokens=9000)).pool == "long"


def test_an_answer_teaches(stack):
    stack.post(CHAT, chat(stack, "The owl sat still. " * 60), x_team="plain")
    wait_for(lambda: teaches(stack, "plain"))


def test_a_stream_teaches_and_shows_its_usage_to_who_asks_alone(stack):
    body = chat(stack, "The owl sat still. " * 60, stream=True)
    answers = []

    def silent_teaches():
        # Usage is asked for once streams without it were seen.
        answers.append(stack.post(CHAT, body, x_team="silent"))
        return teaches(stack, "silent")

    wait_for(silent_teaches)
    told = stack.post(CHAT, body | {"stream_options": {"include_usage": True}}, x_team="told")
    wait_for(lambda: teaches(stack, "told"))
    assert {tuple(shapes(each.body)[-2:]) for each in answers} == {("choice", "[DONE]")}
    assert shapes(told.body)[-3:] == ["choice", "usage", "[DONE]"]


def shapes(stream):
    """Say of each event what it is."""
    texts = [event.removeprefix("data: ") for event in stream.decode().split("\n\n")[:-1]]
    found = [text if text == "[DONE]" else json.loads(text)["choices"] for text in texts]
    return ["choice" if isinstance(each, list) and each else each or "usage" for each in found]


def test_what_the_short_pool_refuses_the_long_one_answers(stack):
    answer = stack.post(CHAT, chat(stack, "many words here " * 4000))
    assert (answer.status, answer.pool) == (200, "long")
    assert answer.headers["x-llm-reason"] == "fits"


def test_a_large_body_that_the_short_pool_refuses_the_long_one_answers(stack):
    # More than half of what Envoy holds.
    body = json.dumps(chat(stack, "many words here " * 4000)).encode() + b" " * 1_200_000
    answer = stack.post(CHAT, body)
    assert (answer.status, answer.pool) == (200, "long")
    assert answer.headers["x-llm-reason"] == "fits"


def test_a_larger_body_is_decided_by_its_length(stack):
    body = json.dumps(chat(stack, "hello")).encode()
    answer = stack.post(CHAT, body + b" " * (LARGE + 1 - len(body)))
    assert (answer.status, answer.pool, answer.headers["x-llm-reason"]) == (200, "long", "large")
    assert stack.post(CHAT, body + b" " * (LARGE - len(body))).pool == "short"


def test_many_headers_pass(stack):
    many = {f"x_own_{number}": "1" for number in range(200)}
    assert stack.post(CHAT, chat(stack, "hello"), **many).pool == "short"


def test_a_client_cannot_choose_the_pool(stack):
    large = chat(stack, "hi", max_tokens=9000)
    assert stack.post(CHAT, large, x_llm_pool="short").pool == "long"


def test_a_body_above_the_limit_is_refused_and_one_at_it_passes(stack):
    assert stack.post(CHAT, b" " * LIMIT).pool == "long"
    refused = stack.post(CHAT, b" " * (LIMIT + 1))
    assert (refused.status, refused.json["error"]["code"]) == (413, 413)
