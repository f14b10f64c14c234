"""Which answers the real Envoy shows to the service: those it has left a note on, and no others."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support import local_stack as gateway
from tests.support.production_stack import fronted, wait_for

pytestmark = pytest.mark.slow

SENT = 400
BODY = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hello " * 40}]}
USAGE = {"prompt_tokens": 48, "completion_tokens": 3}
ANSWER = json.dumps({"choices": [{"index": 0, "finish_reason": "stop"}], "usage": USAGE}).encode()
MESSAGES = {"prompt_tokens": 48, "input_tokens": 8, "cache_read_input_tokens": 40}
MESSAGE = json.dumps(
    {"type": "message", "stop_reason": "end_turn", "usage": MESSAGES | {"output_tokens": 3}}
).encode()
# Headers and trailers; headers, a body and its end.
MOST_MESSAGES = {"trailers": 2, "observed": 3}


def answer(_name, body):
    is_message = json.loads(body)["model"] == "messages"
    return "application/json", MESSAGE if is_message else ANSWER, 200


@pytest.fixture(scope="module", params=MOST_MESSAGES)
def stack(request, tmp_path_factory):
    folder, sample = tmp_path_factory.mktemp("observing"), {"observe_sample": 0.001}
    envoy = {"form": request.param}
    with fronted(folder, envoy=envoy, answer=answer, requests=sample) as running:
        wait_for(lambda: "x-llm-reason" in ask(running).headers)
        yield running


def ask(stack, path="/v1/chat/completions", body=BODY, **headers):
    return gateway.fetch(f"{stack.url}{path}", body, **headers)


def total(stack, name):
    """Return the sum of a metric's series."""
    lines = [line for line in stack.metrics().splitlines() if line.startswith(f"{name}_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def shown(stack, kind):
    name = f"http.llm.ext_proc.observer.{kind}"
    return stack.stats(name.replace(".", r"\.")).get(name, 0)


def is_told(stack):
    """Whether the answers that are observed, and no others, are shown."""
    return shown(stack, "streams_started") == total(stack, "dualpool_observed")


def test_there_is_one_stream_for_each_observed_answer_and_none_for_the_others(stack, request):
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: ask(stack), range(SENT)))
    assert {(each.status, each.body) for each in answers} == {(200, ANSWER)}
    wait_for(lambda: is_told(stack))
    observed, decided = total(stack, "dualpool_observed"), total(stack, "dualpool_decisions")
    assert 50 <= observed <= decided - 50
    most = MOST_MESSAGES[request.node.callspec.params["stack"]]
    assert shown(stack, "stream_msgs_sent") <= most * observed
    # Each stands for those that are not shown, up to chance.
    assert observed < total(stack, "dualpool_verdicts") < 2 * decided


def test_what_a_client_sends_shows_no_answer_and_is_not_passed_on(stack):
    before = total(stack, "dualpool_observed")
    found = [ask(stack, "/v1/models?x=1", x_llm_observe="1", x_llm_routed="{}") for _ in range(5)]
    assert {each.headers.get("x-llm-observe") for each in found} == {None}
    wait_for(lambda: is_told(stack))
    assert total(stack, "dualpool_observed") == before


def test_the_usage_of_a_message_is_read_as_its_route_says(stack):
    ask(stack, "/v1/messages", BODY | {"model": "messages"})
    wait_for(lambda: "prose/messages" in learnt(stack))
    ratio = learnt(stack)["prose/messages"]["bytes_per_token"]
    assert ratio == pytest.approx(240 / 48, rel=0.1)


def learnt(stack):
    return gateway.fetch(f"{stack.http}/state").json["categories"]


def test_without_the_service_no_answer_is_shown_or_lost(stack):
    before = shown(stack, "streams_started")
    stack.service.kill()
    assert {ask(stack).status for _ in range(20)} == {200}
    assert shown(stack, "streams_started") == before
