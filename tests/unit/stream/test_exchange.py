"""One request, event by event, and what it teaches."""

import dataclasses
import json

import pytest
from msgspec import structs

from extproc.budget.estimate import Basis, Budget
from extproc.budget.measure import measure
from extproc.budget.values import Asked, Measure, Outcome
from extproc.request.reader import Endpoint, read_request
from extproc.response.reader import Unlearnable
from extproc.routing.load.pool_load import PoolLoad
from extproc.routing.load.spill import Limits, Spill
from extproc.routing.pools import Pool, Reason
from extproc.routing.route import Routed, route
from extproc.routing.rows import Row
from extproc.routing.sticky import By, Naming, StickyPools
from extproc.routing.tenant import TenantKey
from extproc.stream.decision import Noted, from_note, to_note
from extproc.stream.exchange import Exchange, create_series
from extproc.stream.session import (
    Body,
    Direction,
    FlowControl,
    Head,
    Proceed,
    Spent,
    Trailers,
    Wait,
)
from extproc.stream.usage_asking import UsageForm, UsageSeen
from tests.support.conversation import counted, stages

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
    assert counted(given.metrics.unread) == {(): 1}


@pytest.mark.parametrize(
    ("headers", "pool"),
    [
        ({"content-length": "20479"}, "short"),  # 2.5 bytes for each of 8,192 tokens
        ({"content-length": "20480"}, "long"),
        ({"content-length": "16384000"}, "long"),
        ({"content-length": "9" * 5000}, "long"),
        ({"content-length": "5".zfill(18)}, "short"),
        ({"content-length": "5".zfill(19)}, "long"),
        ({"content-length": "\u0664"}, "long"),
        ({"content-length": "-1"}, "long"),
        ({}, "long"),
        ({"content-length": "10", "content-encoding": "gzip"}, "long"),
        ({"content-length": "10", "content-encoding": "identity"}, "short"),
    ],
)
def test_a_late_service_decides_by_the_size_alone(headers, pool):
    given = dataclasses.replace(stages(), is_late=lambda: True)
    exchange = Exchange(given)
    action = exchange.on(Head(REQUEST, POST | headers, end_of_stream=False))
    wanted = {"x-llm-pool": pool, "x-llm-reason": "busy"}
    assert action.set_headers == wanted | ({"x-llm-retryable": "1"} if pool == "short" else {})
    assert counted(given.metrics.decisions) == {(pool, "other", "busy", "prior"): 1}
    answer(exchange, usage(10, 5))
    assert counted(given.metrics.verdicts) == {}


def test_a_late_service_leaves_alone_what_carries_no_prompt():
    given = dataclasses.replace(stages(), is_late=lambda: True)
    head = Head(REQUEST, {":method": "GET", ":path": "/v1/models"}, end_of_stream=True)
    assert Exchange(given).on(head) == Proceed()


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


def test_the_tenant_is_a_digest_in_the_note_and_learnt_from_it():
    learnt = []
    given = dataclasses.replace(
        stages(tenants=TenantKey("x-tenant", b"s" * 32)), learn=learnt.append
    )
    action = ask(Exchange(given), prompt("hi"), POST | {"x-tenant": "acme"})
    digest = given.rules.tenants.digest({"x-tenant": "acme"})
    assert digest in action.note["routed"]
    assert "acme" not in f"{action.note} {action.set_headers}"
    exchange = Exchange(given)
    exchange.on(Head(REQUEST, POST, True, action.note, observed=True))
    exchange.on(Head(RESPONSE, {":status": "200"}, end_of_stream=False))
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    body = {"usage": usage, "choices": [{"finish_reason": "stop"}]}
    exchange.on(Body(RESPONSE, json.dumps(body).encode(), end_of_stream=True))
    exchange.finish()
    assert [seen.asked.tenant for seen in learnt] == [digest]


@pytest.mark.parametrize(("key", "told"), [(None, False), (b"k", True)])
def test_the_beginnings_of_a_conversation_are_told_if_they_are_remembered(key, told):
    turn = {"role": "user", "content": "word " * 500}
    body = json.dumps({"model": "m", "messages": [turn]}).encode()
    action = ask(Exchange(stages(prefix_key=key)), body, POST | {":path": "/v1/chat/completions"})
    assert ("prefix" in action.note["routed"]) is told


def test_without_a_limit_the_default_output_is_reserved():
    headers = POST | {":path": "/v1/chat/completions"}
    action = ask(Exchange(stages()), b'{"messages": [{"content": "0123456789"}]}', headers)
    assert action.set_headers["x-llm-budget"] == str(3 + 1024)


@pytest.mark.parametrize("field", ["n", "best_of"])
def test_the_output_of_one_sequence_is_reserved(field):
    given = stages()
    action = ask(Exchange(given), prompt("x" * 40, **{field: 8}))
    assert action.set_headers["x-llm-budget"] == str(10 + 100)
    assert counted(given.metrics.sequences) == {("short",): 8}


def test_a_batch_of_embeddings_goes_where_its_largest_text_fits():
    given = stages()
    body = json.dumps({"input": ["word " * 136] * 100}).encode()
    action = ask(Exchange(given), body, POST | {":path": "/v1/embeddings"})
    assert (action.set_headers["x-llm-pool"], action.set_headers["x-llm-budget"]) == (
        "short",
        "170",
    )


def test_a_rerank_is_held_to_its_largest_pair():
    body = json.dumps({"query": "q" * 400, "documents": ["d" * 40] * 99 + ["e" * 4000]}).encode()
    action = ask(Exchange(stages()), body, POST | {":path": "/v1/rerank"})
    assert action.set_headers["x-llm-budget"] == str(100 + 1000)


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


@pytest.mark.parametrize(
    ("fields", "samples"), [({}, {"prose/m": 1}), ({"truncate_prompt_tokens": 8}, {})]
)
def test_an_embedding_teaches_unless_its_prompt_may_have_been_cut(fields, samples):
    given = stages()
    exchange = Exchange(given)
    body = json.dumps({"model": "m", "input": "word " * 80, **fields}).encode()
    ask(exchange, body, POST | {":path": "/v1/embeddings"})
    answer(exchange, usage(80, 0))
    learnt = given.learner.learnt().categories
    assert {name: figures["samples"] for name, figures in learnt.items()} == samples


def test_a_field_is_not_added_to_utf_16():
    exchange = Exchange(stages())
    exchange.on(Head(REQUEST, POST, end_of_stream=False, note={"hides_usage": True}))
    body = prompt("word", stream=True).decode().encode("utf-16")
    assert exchange.on(Body(REQUEST, body, end_of_stream=True, whole=True)).body is None


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
    return Routed(pool, reason, asked, budget)


def moved(pool, home):
    """A request that the load moved to a pool."""
    return structs.replace(routed(pool, reason=Reason.SPILL), home=home)


def several(sequences, max_tokens=100, whole=None, pool="short"):
    """A routed request for several sequences."""
    one = routed(pool, max_tokens)
    share = 0.5 if whole else 1.0
    return structs.replace(
        one, asked=structs.replace(one.asked, sequences=sequences, whole=whole, share=share)
    )


def observe(given, record, body, status="200"):
    """Play the observing filter for a request that another filter routed."""
    exchange = Exchange(given)
    head = Head(REQUEST, POST, end_of_stream=False, note=to_note(Noted.of(record)), observed=True)
    assert exchange.on(head) == Proceed()
    answer(exchange, body, status)


JUDGED = [
    (routed(), usage(700, 100), "right", {}),
    (routed(max_tokens=7600), usage(700, 10), "misrouted", {("short", "harmless"): 1}),
    (routed(max_tokens=7600), usage(700, 7492, "length"), "misrouted", {("short", "clamped"): 1}),
    (routed(max_tokens=0), usage(700, 7492), "right", {}),
    (routed(max_tokens=0), usage(700, 7492, "length"), "misrouted", {("short", "clamped"): 1}),
    (routed(max_tokens=0), usage(700, 1000, "length"), "right", {}),
    (routed("long"), usage(700, 100), "over_routed", {}),
    (routed("long", 8000), usage(700, 100), "reserved", {}),
    (routed("long", 8000), usage(700, 7500), "right", {}),
    (moved("long", "short"), usage(700, 100), "right", {}),
]


TWICE = measure(b"Where do owls sleep at noon? " * 96, 2 * 2784, prompts=2, messages=2)
# A window holds one sequence: eight of 1,000 tokens each fit 8,192 beside a prompt of 700.
JUDGED += [
    (several(8), usage(700, 800), "right", {}),
    (several(8, 7400), usage(700, 8 * 900), "right", {}),
    (several(8, 7600), usage(700, 8 * 900), "misrouted", {("short", "harmless"): 1}),
    (several(8, 0), usage(700, 8 * 7400), "right", {}),
    (several(8, 0), usage(700, 8 * 7492, "length"), "misrouted", {("short", "clamped"): 1}),
    (several(8, pool="long"), usage(700, 800), "over_routed", {}),
    # Two prompts of 5,000 tokens are counted as 10,000 by the answer.
    (several(2, 100, TWICE), usage(10_000, 200), "right", {}),
    (several(2, 100, TWICE), usage(16_200, 200), "misrouted", {("short", "harmless"): 1}),
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
    assert (observation.outcome, observation.window) == (outcome, 8192)


def test_the_error_of_the_estimate_is_observed():
    given = stages()
    observe(given, routed(), usage(560, 1))
    [family] = given.metrics.budget_error.collect()
    buckets = {s.labels["le"]: s.value for s in family.samples if "le" in s.labels}
    assert (buckets["0.2"], buckets["0.3"]) == (0, 1)  # 700 / 560 - 1


ELSEWHERE = to_note(Noted.of(routed("medium")))
OTHER_VERSION = to_note(
    Noted.of(
        structs.replace(routed(), asked=Asked("m", "prose", Measure(2800, 0, (1.0, 2.0)), 100))
    )
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


def tell(given, record, spent, status="200", attempts=1):
    """Play the observing filter where Envoy itself reads the usage of an answer."""
    exchange = Exchange(given)
    exchange.on(
        Head(REQUEST, POST, end_of_stream=False, note=to_note(Noted.of(record)), observed=True)
    )
    exchange.on(Head(RESPONSE, {":status": status}, end_of_stream=False, attempts=attempts))
    exchange.on(Trailers(RESPONSE, spent))
    exchange.finish()


def test_a_usage_in_the_trailers_teaches():
    given = stages()
    tell(given, routed(), Spent(700, 50))
    assert counted(given.metrics.answers) == {("learnt",): 1}
    assert given.learner.learnt().categories["prose/m"]["samples"] == 1


@pytest.mark.parametrize(
    ("max_tokens", "spent", "outcome"),
    [
        (100, Spent(700, 99), Outcome.COMPLETE),
        (100, Spent(700, 100), Outcome.CUT),
        (0, Spent(700, 100), Outcome.COMPLETE),
        (0, Spent(700, 7492), Outcome.CUT),
        (9000, Spent(700, 7492), Outcome.CUT),
    ],
)
def test_without_a_reason_the_counts_tell_whether_an_answer_was_cut(max_tokens, spent, outcome):
    seen = []
    tell(dataclasses.replace(stages(), learn=seen.append), routed(max_tokens=max_tokens), spent)
    assert [each.outcome for each in seen] == [outcome]


@pytest.mark.parametrize(
    ("record", "spent", "outcome"),
    [
        (several(8), Spent(700, 200), Outcome.CUT),  # the longest is likely to have four means
        (several(8), Spent(700, 199), Outcome.COMPLETE),
        (several(8, 0), Spent(700, 14_984), Outcome.CUT),
        (several(8, 0), Spent(700, 14_983), Outcome.COMPLETE),
    ],
)
def test_of_several_sequences_one_is_likely_to_have_been_cut(record, spent, outcome):
    seen = []
    tell(dataclasses.replace(stages(), learn=seen.append), record, spent)
    assert [each.outcome for each in seen] == [outcome]


@pytest.mark.parametrize(
    ("spent", "status", "outcome"),
    [
        (None, "200", "absent"),
        (None, "503", "error"),
        (Spent(7, 1), "500", "error"),
        (Spent(0, 1), "200", "implausible"),
        (Spent(2**31, 1), "200", "implausible"),
    ],
)
def test_trailers_without_a_usage_to_believe_teach_nothing(spent, status, outcome):
    given = stages()
    tell(given, routed(), spent, status)
    assert counted(given.metrics.answers) == {(outcome,): 1}


RETRIED = [
    (routed(), Spent(20_000, 50), ("short", "misrouted"), {("short", "retried"): 1}),
    (routed(), Spent(700, 50), ("short", "failed"), {}),
    (routed("long", 8000), Spent(20_000, 50), ("long", "failed"), {}),
    (routed(), None, ("short", "unknown"), {}),
]


@pytest.mark.parametrize(("record", "spent", "cause", "misroutes"), RETRIED)
def test_a_second_attempt_is_counted_by_its_cause(record, spent, cause, misroutes):
    given = stages()
    tell(given, record, spent, attempts=2)
    assert counted(given.metrics.retries) == {cause: 1}
    assert counted(given.metrics.misroutes) == misroutes


def test_one_attempt_is_no_retry():
    given = stages()
    tell(given, routed(), Spent(20_000, 50))
    assert counted(given.metrics.retries) == {}


def test_what_the_largest_pool_answered_in_anothers_place_teaches_as_its_own():
    seen = []
    given = dataclasses.replace(stages(), learn=seen.append)
    tell(given, routed(max_tokens=0), Spent(20_000, 50), attempts=2)
    [observation] = seen
    assert (observation.outcome, observation.window) == (Outcome.COMPLETE, 65536)
    assert observation.prompt_tokens == 20_000


def test_a_refusal_by_two_pools_is_counted_as_a_retry_and_a_misroute():
    given = stages()
    exchange = Exchange(given)
    note = to_note(Noted.of(routed()))
    exchange.on(Head(REQUEST, POST, end_of_stream=False, note=note, observed=True))
    exchange.on(Head(RESPONSE, {":status": "400"}, end_of_stream=False, attempts=2))
    exchange.on(Body(RESPONSE, REFUSAL, end_of_stream=True))
    exchange.finish()
    assert counted(given.metrics.retries) == {("short", "misrouted"): 1}


STREAMED = {"stream": True, "max_tokens": 100}
HIDES = {"hides_usage": True}


def ask_stream(given, fields=STREAMED, note=HIDES, headers=None, whole=True, body=None):
    """Send a request for a stream; return the action on its body."""
    exchange, body = Exchange(given), body or prompt("word " * 80, **fields)
    exchange.on(Head(REQUEST, POST | (headers or {}), end_of_stream=False, note=note))
    return exchange.on(Body(REQUEST, body, True, whole))


def silent(given):
    """Let the short pool be known to state usage when asked, and only then."""
    for form, seen in (("unasked", "absent"), ("asked", "stated")):
        given.usage_asking.learn("short", "m", UsageForm(form), UsageSeen(seen))
    return given


def test_a_stream_that_tells_no_usage_is_asked_for_it():
    given = silent(stages())
    action = ask_stream(given)
    assert json.loads(action.body)["stream_options"] == {"include_usage": True}
    assert action.note["hide_usage"] is True
    assert counted(given.metrics.usage_asked) == {(): 1}


def test_a_longer_body_has_its_length_stated():
    action = ask_stream(silent(stages()), headers={"content-length": "500"})
    assert action.set_headers["content-length"] == str(len(action.body))


def test_a_body_without_a_stated_length_gets_none():
    assert "content-length" not in ask_stream(silent(stages())).set_headers


@pytest.mark.parametrize(
    "changes",
    [
        {"fields": {"stream": False}},
        {"fields": STREAMED | {"stream_options": {"include_usage": False}}},
        {"note": {}},
        {"note": {"hides_usage": 1.0}},
        {"headers": {"content-encoding": "identity"}},
        {"whole": False},
        {"fields": STREAMED | {"user": "x" * (1 << 20)}},
        {"fields": STREAMED | {"temperature": "stream_options"}},
    ],
)
def test_every_other_body_stays_as_it_is(changes):
    action = ask_stream(silent(stages(max_body_bytes=1 << 22)), **changes)
    assert action.body is None
    assert "hide_usage" not in action.note


@pytest.mark.parametrize("letter", ["s", "_", "o"])
def test_nor_is_one_asked_whose_error_would_name_the_field(letter):
    body = prompt("word stream_options", **STREAMED)
    spelt = body.replace(letter.encode(), f"\\u{ord(letter):04x}".encode())
    assert json.loads(spelt) == json.loads(body)
    assert ask_stream(silent(stages()), body=spelt).body is None


@pytest.mark.parametrize("text", ["\\u0027", "\\u0060", "\\u4f60"])
def test_escapes_of_other_characters_do_not_matter(text):
    body = prompt("word", **STREAMED).replace(b"word", text.encode())
    assert ask_stream(silent(stages()), body=body).body is not None


def calibrated(share, drawn):
    """Stages that know the category, and get more requests a second than are all observed."""
    given = dataclasses.replace(silent(stages(observe_sample=share)), draw=lambda: drawn)
    for _ in range(50):
        observe(given, routed(), usage(700, 50))
    for _ in range(100_000):
        given.sampling.one_in(share)
    return given


@pytest.mark.parametrize(("drawn", "asked"), [(0.24, True), (0.25, False), (0.99, False)])
def test_of_a_calibrated_category_a_sample_is_asked(drawn, asked):
    assert (ask_stream(calibrated(0.25, drawn)).body is not None) is asked


@pytest.mark.parametrize(
    ("drawn", "observed"), [(0.0, True), (0.24, True), (0.25, False), (0.99, False)]
)
@pytest.mark.parametrize("fields", [{}, STREAMED])
def test_of_a_calibrated_category_a_sample_is_observed(drawn, observed, fields):
    given = calibrated(0.25, drawn)
    action = ask(Exchange(given), prompt("word " * 80, **fields))
    assert ("routed" in action.note) is observed
    assert counted(given.metrics.observed).get((), 0) == observed


def test_what_is_not_observed_is_decided_all_the_same():
    seen, unseen = (ask(Exchange(calibrated(0.25, drawn)), prompt("hi")) for drawn in (0.0, 0.9))
    assert seen.set_headers == unseen.set_headers
    assert unseen.note == {}


def test_a_request_that_was_not_read_is_not_observed():
    given = stages()
    assert ask(Exchange(given), b"no json").note == {}
    assert counted(given.metrics.observed) == {}


def test_one_stream_of_both_sides_ignores_the_answer_if_it_is_not_observed():
    given = calibrated(0.25, 0.9)
    before = counted(given.metrics.answers)
    exchange = Exchange(given)
    ask(exchange, prompt("word " * 80))
    answer(exchange, usage(80, 5))
    assert counted(given.metrics.answers) == before


@pytest.mark.parametrize(
    ("body", "status", "attempts", "metric", "labels"),
    [
        (usage(9000, 5), "200", 1, "verdicts", ("short", "misrouted")),
        (usage(9000, 5), "200", 1, "misroutes", ("short", "harmless")),
        (usage(9000, 5), "200", 2, "misroutes", ("short", "retried")),
        (usage(9000, 5), "200", 2, "retries", ("short", "misrouted")),
        (b"{}", "503", 2, "retries", ("short", "unknown")),
    ],
)
@pytest.mark.parametrize("most", [4, 7])
def test_of_all_draws_the_counts_sum_to_what_happened(body, status, attempts, metric, labels, most):
    found = 0
    for draw in range(most):
        given = calibrated(1 / most, draw / most)
        before = counted(getattr(given.metrics, metric)).get(labels, 0)
        action = ask(Exchange(given), prompt("word " * 80))
        observed(given, action, body, status, attempts)
        found += counted(getattr(given.metrics, metric)).get(labels, 0) - before
    assert found == most


def test_a_refusal_counts_and_teaches_as_those_it_stands_for():
    seen = []
    given = dataclasses.replace(stages(), learn=seen.append)
    exchange = Exchange(given)
    noted = Noted.of(routed(), stands_for=20)
    exchange.on(Head(REQUEST, POST, end_of_stream=False, note=to_note(noted), observed=True))
    answer(exchange, REFUSAL, "400")
    assert counted(given.metrics.misroutes) == {("short", "refused"): 20}
    assert counted(given.metrics.answers) == {("refused",): 20}
    assert [(each.outcome, each.stands_for) for each in seen] == [(Outcome.REFUSED, 20)]


def test_the_usage_of_an_observed_answer_is_told_with_the_api_and_the_weight():
    told = []
    spent = lambda noted, pool, usage: told.append(  # noqa: E731
        (noted.api, noted.stands_for, pool.name, usage.prompt_tokens, usage.completion_tokens)
    )
    given = dataclasses.replace(stages(), spent=spent)
    exchange = Exchange(given)
    noted = Noted.of(routed(), stands_for=20, api=Endpoint.COMPLETION)
    exchange.on(Head(REQUEST, POST, end_of_stream=False, note=to_note(noted), observed=True))
    answer(exchange, usage(700, 5))
    assert told == [(Endpoint.COMPLETION, 20, "short", 700, 5)]


def test_the_note_may_come_with_the_answer_alone():
    given = stages()
    exchange = Exchange(given)
    note = to_note(Noted.of(routed()))
    headers = {":status": "200", "content-type": "application/json"}
    exchange.on(Head(RESPONSE, headers, end_of_stream=False, note=note, observed=True))
    exchange.on(Body(RESPONSE, usage(700, 5), end_of_stream=True))
    exchange.finish()
    assert counted(given.metrics.answers) == {("learnt",): 1}


def test_one_that_is_asked_stands_for_those_that_are_not():
    given = calibrated(0.25, 0.0)
    answered(given, ask_stream(given), STATING + DONE)
    assert counted(given.metrics.verdicts)[("short", "right")] == 50 + 4
    [family] = given.metrics.budget_error.collect()
    assert sum(s.value for s in family.samples if s.name.endswith("_count")) == 50 + 4


def test_few_requests_are_all_asked():
    given = dataclasses.replace(silent(stages(observe_sample=0.01)), draw=lambda: 0.99)
    for _ in range(50):
        observe(given, routed(), usage(700, 50))
    assert ask_stream(given).body is not None


def test_where_usage_is_not_asked_for_no_body_changes():
    given = silent(stages(asks_usage=False))
    assert ask_stream(given).body is None
    assert counted(given.metrics.usage_asked) == {}


def observed(given, action, body, status, attempts):
    """Play the observing filter, which Envoy skips if there is no note."""
    if "routed" not in action.note:
        return
    exchange = Exchange(given)
    headers = {":status": status, "content-type": "application/json"}
    head = Head(RESPONSE, headers, False, action.note, observed=True, attempts=attempts)
    exchange.on(head)
    exchange.on(Body(RESPONSE, body, end_of_stream=True))
    exchange.finish()


STREAM = b'data: {"choices":[{"index":0,"finish_reason":"stop"}]}\n\n'
STATING = STREAM + b'data: {"choices":[],"usage":{"prompt_tokens":80,"completion_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"


def answered(given, action, body, status="200", kind="text/event-stream"):
    """Observe the answer to a request that was decided by `action`."""
    exchange = Exchange(given)
    exchange.on(Head(REQUEST, POST, end_of_stream=False, note=action.note, observed=True))
    answer(exchange, body, status, kind)


@pytest.mark.parametrize(("body", "asked"), [(STREAM + DONE, True), (STATING + DONE, False)])
def test_a_pool_is_asked_after_a_stream_without_usage(body, asked):
    given = stages()
    first = ask_stream(given)
    assert first.body is None
    answered(given, first, body)
    assert (ask_stream(given).body is not None) is asked


def test_one_stream_is_a_trial_for_those_that_follow():
    given = stages()
    answered(given, ask_stream(given), STREAM + DONE)
    trial = ask_stream(given)
    assert ask_stream(given).body is None
    answered(given, trial, STATING + DONE)
    assert ask_stream(given).body is not None


def test_a_pool_that_refuses_the_field_gets_it_no_more():
    given = stages()
    answered(given, ask_stream(given), STREAM + DONE)
    error = b'{"error": {"message": "stream_options: extra fields not permitted"}}'
    answered(given, ask_stream(given), error, "422", "application/json")
    answered(given, ask_stream(given), STREAM + DONE)
    assert ask_stream(given).body is None


def test_a_status_alone_holds_off_other_trials_until_the_stream_ends():
    given = stages()
    answered(given, ask_stream(given), STREAM + DONE)
    action = ask_stream(given)
    observer = Exchange(given)
    observer.on(Head(RESPONSE, {":status": "400"}, False, action.note, observed=True))
    for _ in range(100):
        answered(given, ask_stream(given), STREAM + DONE)
    assert ask_stream(given).body is None
    assert counted(given.metrics.usage_asked) == {(): 1}


def test_the_stream_that_sees_both_sides_learns_the_same():
    given = stages()
    exchange = Exchange(given)
    exchange.on(Head(REQUEST, POST, end_of_stream=False, note=HIDES))
    exchange.on(Body(REQUEST, prompt("word", **STREAMED), True, True))
    answer(exchange, STREAM + DONE, content_type="text/event-stream")
    assert ask_stream(given).body is not None


def test_a_request_that_may_be_too_long_may_be_tried_again():
    action = ask(Exchange(stages()), prompt("word " * 1600))
    assert action.set_headers["x-llm-pool"] == "short"
    assert action.set_headers["x-llm-retryable"] == "1"
    assert "x-llm-retryable" not in ask(Exchange(stages()), prompt("hi")).set_headers


def test_the_counters_of_each_pool_stand_at_0_before_anything_is_counted():
    given = stages()
    create_series(given)
    [misroutes] = given.metrics.misroutes.collect()
    totals = {tuple(s.labels.values()): s.value for s in misroutes.samples if "_total" in s.name}
    kinds = ("retried", "refused", "clamped", "harmless")
    assert totals == {("short", kind): 0 for kind in kinds}


def test_the_time_of_a_decision_is_counted():
    ticks = iter([10.0, 10.25])
    given = dataclasses.replace(stages(), clock=lambda: next(ticks))
    ask(Exchange(given), prompt("hi"))
    [family] = given.metrics.decision_seconds.collect()
    found = {s.name.rpartition("_")[2]: s.value for s in family.samples}
    assert (found["count"], found["sum"]) == (1, 0.25)


@pytest.mark.parametrize(
    ("body", "status", "outcome"),
    [
        (usage(80, 5), "200", "learnt"),
        (usage(80, 0), "200", "no_output"),
        (REFUSAL, "400", "refused"),
        (b"{}", "200", "absent"),
        (b"{}", "503", "error"),
    ],
)
def test_every_answer_is_counted_once_by_its_outcome(body, status, outcome):
    given = stages()
    observe(given, routed(), body, status)
    assert counted(given.metrics.answers) == {(outcome,): 1}


def test_every_series_of_a_pool_stands_at_0_before_anything_is_counted():
    given = stages()
    create_series(given)

    def series(metric):
        [family] = metric.collect()
        return {tuple(s.labels.values()) for s in family.samples if s.name.endswith("_total")}

    pools = ("short", "long")
    kinds = ("right", "misrouted", "over_routed", "reserved")
    assert series(given.metrics.verdicts) == {(pool, kind) for pool in pools for kind in kinds}
    causes = ("misrouted", "failed", "unknown")
    assert series(given.metrics.retries) == {(pool, cause) for pool in pools for cause in causes}
    outcomes = {"learnt", "refused", "no_output", *(each.value for each in Unlearnable)}
    assert series(given.metrics.answers) == {(each,) for each in outcomes}


# Rows of pools for several models

CHAT = (Pool("chat-short", 1000, 1000), Pool("chat-long", 8192, 8192))
CODE = (Pool("code-short", 4096, 4096), Pool("code-long", 65536, 65536))
ROWS = {"pools": (*CHAT, *CODE), "rows": (Row.of(["m"], CHAT), Row.of(["code"], CODE))}


def test_a_model_that_no_row_names_passes_on_counted_and_unobserved():
    given = stages(**ROWS)
    action = ask(Exchange(given), prompt("hi", model="mine"))
    assert action == Proceed({"x-llm-reason": "unlisted"})
    assert counted(given.metrics.decisions) == {("undecided", "other", "unlisted", "prior"): 1}


def test_a_body_that_cannot_be_read_is_left_to_envoy_where_its_row_is_not_known():
    assert ask(Exchange(stages(**ROWS)), b"{") == Proceed({"x-llm-reason": "unreadable"})


def test_a_misroute_is_judged_within_its_row():
    given = stages(**ROWS)
    for model, tokens in (("m", 2000), ("code", 2000)):
        exchange = Exchange(given)
        ask(exchange, prompt("hi", model=model))
        answer(exchange, usage(tokens, 5))
    assert counted(given.metrics.verdicts) == {
        ("chat-short", "misrouted"): 1,
        ("code-short", "right"): 1,
    }


def test_a_second_attempt_is_the_answer_of_the_largest_pool_of_its_row():
    given, seen = stages(**ROWS), []
    exchange = Exchange(dataclasses.replace(given, learn=seen.append))
    ask(exchange, prompt("hi"))
    head = {":status": "200", "content-type": "application/json"}
    exchange.on(Head(RESPONSE, head, end_of_stream=False, attempts=2))
    exchange.on(Body(RESPONSE, usage(2000, 5), end_of_stream=True))
    exchange.finish()
    assert [observation.window for observation in seen] == [8192]


def test_the_note_of_a_pool_in_another_row_is_not_taken():
    rules = stages(**ROWS).rules
    routed = route(read_request(Endpoint.COMPLETION, prompt("hi")), "", stages().learner, rules)
    assert from_note(to_note(Noted.of(routed)), rules) == Noted.of(routed)
    moved = structs.replace(Noted.of(routed), pool="code-short")
    assert from_note(to_note(moved), rules) is None


def test_the_largest_pool_of_each_row_has_no_misroutes():
    given = stages(**ROWS)
    create_series(given)
    pools = {
        sample.labels["pool"] for sample in next(iter(given.metrics.misroutes.collect())).samples
    }
    assert pools == {"chat-short", "code-short"}


FULL = PoolLoad(servers=1, known=1, running=4, waiting=40, rate=2, room=4, arrivals=4)
IDLE = PoolLoad(servers=1, known=1, running=1, rate=2)


def spilling(given, **loads):
    """Return the stages with all requests of a saturated pool moving."""
    times = iter(range(1000))
    limits = Limits(wait_s=0.5, stale_s=1e9)
    spill = Spill(given.rules.pools, limits, lambda: next(times) / 1e3, lambda: 0.0)
    spill.tell(loads)
    return dataclasses.replace(given, spill=spill)


def test_a_saturated_pool_s_requests_move_and_every_one_is_counted():
    given = spilling(stages(), short=FULL, long=IDLE)
    action = ask(Exchange(given), prompt("Hello", max_tokens=10))
    assert action.set_headers["x-llm-pool"] == "long"
    assert action.set_headers["x-llm-reason"] == "spill"
    assert [(key[0], key[2]) for key in counted(given.metrics.decisions)] == [("long", "spill")]
    assert from_note(action.note, given.rules).home == "short"


def test_a_request_moves_within_its_row_alone():
    loads = {"chat-short": FULL, "chat-long": FULL, "code-short": IDLE, "code-long": IDLE}
    given = spilling(stages(**ROWS), **loads)
    assert ask(Exchange(given), prompt("hi", max_tokens=5)).set_headers["x-llm-reason"] == "fits"
    given = spilling(stages(**ROWS), **loads | {"chat-long": IDLE})
    action = ask(Exchange(given), prompt("hi", max_tokens=5))
    assert action.set_headers["x-llm-pool"] == "chat-long"
    unlisted = ask(Exchange(given), prompt("hi", model="mine"))
    assert unlisted.set_headers["x-llm-reason"] == "unlisted"


def shadow():
    return stages(is_shadow=True)


def test_a_shadow_tells_its_decision_where_no_route_looks():
    action = ask(Exchange(shadow()), prompt("hi"))
    assert action.set_headers["x-llm-shadow-pool"] == "short"
    assert all(name.startswith("x-llm-shadow-") for name in action.set_headers)
    assert "x-llm-shadow-retryable" not in action.set_headers


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_what_a_shadow_would_have_misrouted_is_counted_and_harmed_nobody(finish):
    given, seen = shadow(), []
    exchange = Exchange(dataclasses.replace(given, learn=seen.append))
    ask(exchange, prompt("hi"))
    answer(exchange, usage(20_000, 5, finish))
    assert counted(given.metrics.verdicts) == {("short", "misrouted"): 1}
    assert counted(given.metrics.misroutes) == {("short", "harmless"): 1}
    assert seen[0].window == 65536  # of the pool that answered


def test_a_second_attempt_in_a_shadow_is_no_retry():
    given = shadow()
    tell(given, routed(), Spent(20_000, 50), attempts=2)
    assert counted(given.metrics.retries) == {}


def test_a_conversation_stays_by_the_header_that_names_it():
    sticky = Naming(By.HEADER, "x-session", b"key")
    given = dataclasses.replace(stages(sticky=sticky), sticky_pools=StickyPools(9))
    named = POST | {"x-session": "s"}
    assert "x-session" in given.header_names
    first = ask(Exchange(given), prompt("Hello", max_tokens=60_000), named)
    assert first.set_headers["x-llm-pool"] == "long"
    action = ask(Exchange(given), prompt("Hello", max_tokens=10), named)
    assert action.set_headers["x-llm-pool"] == "long"
    assert action.set_headers["x-llm-reason"] == "sticky"
    assert from_note(action.note, given.rules).home == "short"
