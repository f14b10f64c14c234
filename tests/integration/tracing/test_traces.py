"""Traces of the real Envoy and of the service, and its metrics, at a receiver of OTLP."""

import itertools
import json

import pytest

from tests.support.local_stack import fetch, wait_for
from tests.support.otlp_receiver import attributes, receiving
from tests.support.production_stack import BODY, fronted

pytestmark = pytest.mark.slow

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
TRACE, CLIENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def answer(_name, _body):
    choice = {"index": 0, "text": "At home.", "finish_reason": "stop"}
    body = {"object": "text_completion", "choices": [choice], "usage": USAGE}
    return "application/json", json.dumps(body).encode(), 200


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """The spans of requests of a client that traces."""
    with receiving() as receiver:
        folder = tmp_path_factory.mktemp("traced")
        tracing = {"otlp": receiver.url, "share": 1, "usage": True}
        with fronted(folder, answer=answer, tracing=tracing) as stack:
            decided = "dualpool_decisions_total{"
            wait_for(lambda: stack.pool() and decided in stack.metrics())
            parent = f"00-{TRACE}-{CLIENT}-01"
            fetch(f"{stack.url}/v1/completions", BODY, traceparent=parent)
            wait_for(lambda: of_the_client(receiver, "dualpool") and len(links(receiver)) > 0)
            wait_for(lambda: of_the_client(receiver, "envoy"))
            stack.service.terminate()
            assert stack.service.wait(60) == 0
        yield receiver


def of_the_client(receiver, service):
    """Return the spans of the request that the client traces."""
    return [span for span in receiver.of(service) if span.trace_id.hex() == TRACE]


def links(receiver):
    """Return what is learnt from the client's request."""
    found = receiver.of("dualpool", "learn")
    return [span for span in found if [link.trace_id.hex() for link in span.links] == [TRACE]]


def decision_of(receiver):
    [found] = [span for span in of_the_client(receiver, "dualpool") if span.name == "decide"]
    return found


def test_a_decision_is_a_child_of_envoys_span(traced):
    spans = {span.span_id for span in of_the_client(traced, "envoy")}
    assert decision_of(traced).parent_span_id in spans


def test_its_steps_are_its_children_in_order(traced):
    decision = decision_of(traced)
    steps = [span for span in traced.of("dualpool") if span.parent_span_id == decision.span_id]
    steps.sort(key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in steps] == ["read", "estimate", "choose"]
    for before, after in itertools.pairwise(steps):
        assert before.end_time_unix_nano == after.start_time_unix_nano


def test_it_says_what_was_decided_and_no_text(traced):
    found = attributes(decision_of(traced))
    assert (found["dualpool.pool"], found["dualpool.reason"]) == ("short", "fits")
    assert found["gen_ai.request.model"] == "m"
    assert "owls" not in str(traced.spans)


def test_what_is_learnt_is_a_trace_of_its_own_that_leads_to_the_request(traced):
    [learning] = links(traced)
    assert learning.trace_id.hex() != TRACE
    assert attributes(learning)["gen_ai.usage.input_tokens"] == 7


def test_the_clients_span_is_the_parent_of_envoys(traced):
    parents = {span.parent_span_id for span in of_the_client(traced, "envoy")}
    assert bytes.fromhex(CLIENT) in parents


def test_the_tokens_of_answers_are_sent_as_metrics(traced):
    # Beside the client's request there are those that waited for Envoy.
    kinds = ("input", "output")
    points = [traced.sums[f"gen_ai.client.inference.usage.{kind}_tokens"] for kind in kinds]
    [prompt], [completion] = points
    assert prompt.as_int % 7 == 0
    assert prompt.as_int // 7 == completion.as_int // 5 > 0
    assert attributes(prompt) == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "m",
        "gen_ai.token.modality": "unknown",
        "dualpool.pool": "short",
    }
