"""The story of a request, event by event, and what it leaves behind."""

import dataclasses
import json

import pytest
from conversation import counted, stages

from extproc.budget import Asked, Basis, Budget, Measure, Outcome
from extproc.exchange import Exchange
from extproc.features import measure
from extproc.pools import Reason
from extproc.routing import Routed, to_note
from extproc.session import Body, Direction, FlowControl, Head, Proceed, Trailers, Wait

REQUEST, RESPONSE = Direction.REQUEST, Direction.RESPONSE
POST = {":method": "POST", ":path": "/v1/completions"}


def ask(exchange, body, headers=POST):
    """Send a whole request; return the action on its body."""
    assert exchange.on(Head(REQUEST, headers, end_of_stream=False)) == Wait()
    return exchange.on(Body(REQUEST, body, end_of_stream=True))


def answer(exchange, body, status="200", content_type="application/json"):
    headers = {":status": status, "content-type": content_type}
    exchange.on(Head(RESPONSE, headers, end_of_stream=False))
    exchange.on(Body(RESPONSE, body, end_of_stream=True))
    exchange.finish()


def usage(prompt, completion, finish="stop"):
    return json.dumps(
        {
            "choices": [{"index": 0, "finish_reason": finish}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": completion},
        }
    ).encode()


def prompt(text, **fields):
    return json.dumps({"model": "m", "prompt": text, "max_tokens": 100} | fields).encode()


@pytest.mark.parametrize(
    "headers",
    [
        {":method": "GET", ":path": "/v1/completions"},
        {":method": "POST", ":path": "/v1/audio/transcriptions"},
        {},
    ],
)
def test_what_carries_no_prompt_passes_on_unread(headers):
    given = stages()
    assert Exchange(given).on(Head(REQUEST, headers, end_of_stream=False)) == Proceed()
    assert given.metrics.unread._value.get() == 1


def test_a_request_without_a_body_passes_on():
    assert Exchange(stages()).on(Head(REQUEST, POST, end_of_stream=True)) == Proceed()


def test_a_body_may_come_in_pieces_and_end_in_trailers():
    exchange = Exchange(stages())
    exchange.on(Head(REQUEST, POST, end_of_stream=False))
    for piece in (b'{"prompt":', b"[1]}"):
        assert exchange.on(Body(REQUEST, piece, end_of_stream=False)) == Wait()
    assert exchange.on(Trailers(REQUEST)).set_headers["x-llm-pool"] == "short"


def test_after_the_decision_everything_passes_on():
    exchange = Exchange(stages())
    ask(exchange, prompt("hi"))
    assert exchange.on(Trailers(REQUEST)) == Proceed()
    assert exchange.on(FlowControl()) == Proceed()


def test_a_body_over_the_limit_is_not_waited_for():
    given = stages(max_body_bytes=10)
    exchange = Exchange(given)
    exchange.on(Head(REQUEST, POST, end_of_stream=False))
    action = exchange.on(Body(REQUEST, b"x" * 11, end_of_stream=False))
    assert action.set_headers == {"x-llm-pool": "long", "x-llm-reason": "unreadable"}
    assert counted(given.metrics.unreadable) == {("too_large",): 1}


def test_the_operators_header_names_the_category():
    headers = POST | {"x-task": "summaries"}
    action = ask(Exchange(stages(category_header="x-task")), prompt("hi"), headers)
    assert action.set_headers["x-llm-category"] == "summaries/m"


def test_without_a_limit_the_default_output_is_reserved():
    action = ask(Exchange(stages()), prompt("x" * 40, max_tokens=None))
    assert action.set_headers["x-llm-budget"] == str(10 + 1024)


def test_the_output_of_all_sequences_is_reserved():
    action = ask(Exchange(stages()), prompt("x" * 40, n=3))
    assert action.set_headers["x-llm-budget"] == str(10 + 300)


def test_an_embedding_reserves_no_output():
    headers = POST | {":path": "/v1/embeddings"}
    action = ask(Exchange(stages()), b'{"input": "0123456789"}', headers)
    assert action.set_headers["x-llm-budget"] == "3"


def test_a_complete_answer_teaches():
    given = stages()
    exchange = Exchange(given)
    ask(exchange, prompt("word " * 80))
    answer(exchange, usage(80, 5))
    assert given.learner.learnt().categories["prose/m"]["samples"] == 1
    assert counted(given.metrics.answers) == {("learnt",): 1}


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [("500", b"{}", "error"), ("200", b'{"usage"', "incomplete"), ("", b"{}", "error")],
)
def test_an_answer_that_failed_or_broke_off_teaches_nothing(status, body, outcome):
    given = stages()
    exchange = Exchange(given)
    ask(exchange, prompt("word " * 80))
    answer(exchange, body, status)
    assert given.learner.learnt().categories == {}
    assert counted(given.metrics.answers) == {(outcome,): 1}


def test_an_answer_to_a_request_that_was_not_read_teaches_nothing():
    given = stages()
    exchange = Exchange(given)
    ask(exchange, b"no json")
    answer(exchange, usage(80, 5))
    assert given.learner.learnt().categories == {}
    assert counted(given.metrics.verdicts) == {}


def test_an_answer_without_completion_tokens_teaches_nothing():
    given = stages()
    exchange = Exchange(given)
    ask(exchange, prompt("word " * 80))
    answer(exchange, usage(80, 0))
    assert given.learner.learnt().categories == {}


def test_finishing_twice_learns_once():
    given = stages()
    exchange = Exchange(given)
    ask(exchange, prompt("word " * 80))
    answer(exchange, usage(80, 5))
    exchange.finish()
    assert given.learner.learnt().categories["prose/m"]["samples"] == 1


MEASURE = measure(b"Where do owls sleep at noon? " * 96, 2784, messages=1)


def routed(pool="short", max_tokens=100, reason=Reason.FITS):
    budget = Budget(700, 0, max_tokens, Basis.PRIOR)
    asked = Asked("m", "prose", MEASURE, max_tokens or None)
    return Routed(pool, reason, asked, budget, max_tokens)


def observe(given, record, body, status="200"):
    """Play the observing filter for a request that another filter routed."""
    exchange = Exchange(given)
    head = Head(REQUEST, POST, end_of_stream=False, note=to_note(record), observed=True)
    assert exchange.on(head) == Proceed()
    answer(exchange, body, status)


JUDGED = [
    (routed(), usage(700, 100), "right", {}),
    (routed(max_tokens=7600), usage(700, 10), "misrouted", {("short", "harmless"): 1}),
    (routed(max_tokens=7600), usage(700, 7492, "length"), "misrouted", {("short", "clamped"): 1}),
    (routed(max_tokens=0), usage(700, 7492), "right", {}),
    (routed(max_tokens=0), usage(700, 7492, "length"), "misrouted", {("short", "clamped"): 1}),
    (routed(max_tokens=0), usage(700, 1000, "length"), "right", {}),
    (routed("long"), usage(700, 100), "overrouted", {}),
    (routed("long", 8000), usage(700, 100), "right", {}),
]


@pytest.mark.parametrize(("record", "body", "verdict", "misroutes"), JUDGED)
def test_an_answer_is_judged_by_what_it_used_and_was_promised(record, body, verdict, misroutes):
    given = stages()
    observe(given, record, body)
    assert counted(given.metrics.verdicts) == {(record.pool, verdict): 1}
    assert counted(given.metrics.misroutes) == misroutes


REFUSAL = json.dumps(
    {
        "error": {
            "message": "This model's maximum context length is 8192 tokens. However, your prompt "
            "contains at least 8193 input tokens, which exceeds this limit",
            "type": "BadRequestError",
            "param": "input_tokens",
            "code": 400,
        }
    }
).encode()


@pytest.mark.parametrize(
    ("pool", "misroutes"), [("short", {("short", "refused"): 1}), ("long", {})]
)
def test_a_refusal_is_a_misroute_where_a_larger_pool_exists(pool, misroutes):
    given = stages()
    observe(given, routed(pool), REFUSAL, "400")
    assert counted(given.metrics.misroutes) == misroutes
    assert counted(given.metrics.answers) == {("refused",): 1}


@pytest.mark.parametrize(
    ("body", "status", "outcome"),
    [
        (usage(700, 5), "200", Outcome.COMPLETE),
        (usage(700, 5, "length"), "200", Outcome.CUT),
        (REFUSAL, "400", Outcome.REFUSED),
    ],
)
def test_what_is_learnt_says_how_the_answer_ended(body, status, outcome):
    seen = []
    observe(dataclasses.replace(stages(), learn=seen.append), routed(), body, status)
    [observation] = seen
    assert (observation.outcome, observation.limit) == (outcome, 8192)


def test_the_error_of_the_estimate_is_observed():
    given = stages()
    observe(given, routed(), usage(560, 1))
    [family] = given.metrics.budget_error.collect()
    buckets = {s.labels["le"]: s.value for s in family.samples if "le" in s.labels}
    assert (buckets["0.2"], buckets["0.3"]) == (0, 1)  # 700 / 560 - 1


ELSEWHERE = to_note(routed("medium"))
OTHER_VERSION = to_note(
    dataclasses.replace(routed(), asked=Asked("m", "prose", Measure(2800, 0, (1.0, 2.0)), 100))
)


@pytest.mark.parametrize(
    "note", [{}, {"routed": "{"}, {"routed": 3.0}, {"other": "x"}, ELSEWHERE, OTHER_VERSION]
)
def test_an_answer_without_a_readable_note_is_let_pass(note):
    given = stages()
    exchange = Exchange(given)
    exchange.on(Head(REQUEST, POST, end_of_stream=False, note=note, observed=True))
    answer(exchange, usage(700, 1))
    assert counted(given.metrics.answers) == {}


def test_a_body_before_any_head_is_let_pass():
    exchange = Exchange(stages())
    assert exchange.on(Body(REQUEST, b"{}", end_of_stream=True)) == Proceed()
    assert exchange.on(Body(RESPONSE, b"{}", end_of_stream=True)) == Proceed()
