import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from extproc.budget.estimate import Basis, Budget
from extproc.budget.values import Asked, Measure
from extproc.response.reader import Finish, Refused, Unlearnable, Usage
from extproc.routing.pools import Reason
from extproc.routing.route import Routed
from extproc.service.tracing import Tracing, read_parent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
ROUTED = Routed(
    "short", Reason.FITS, Asked("m", "", Measure(4), None), Budget(1, 2, 3, Basis.PRIOR)
)


@pytest.fixture
def sent():
    """Return an exporter, and a Tracing of half of the requests that sends to it alone."""
    exporter, drawn = InMemorySpanExporter(), [0.4]
    tracing = Tracing("http://127.0.0.1:1", 0.5, lambda: drawn[0])
    tracing._provider._active_span_processor._span_processors = (SimpleSpanProcessor(exporter),)
    yield exporter, tracing, drawn
    tracing.close()


def begin(tracing, value=None):
    return tracing.begin([("other", b"x"), *([("traceparent", value)] if value else [])])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        PARENT[:-1],
        PARENT.upper(),
        f"ff{PARENT[2:]}",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{PARENT}\n",
    ],
)
def test_what_is_no_traceparent_is_no_parent(text):
    assert read_parent(text) is None


def test_a_traceparent_names_the_span():
    parent = read_parent(PARENT)
    assert (f"{parent.trace_id:032x}", f"{parent.span_id:016x}") == (TRACE, SPAN)


def test_envoy_decides_what_is_traced(sent):
    _, tracing, drawn = sent
    assert begin(tracing, PARENT)
    drawn[0] = 0.9
    assert begin(tracing, PARENT)
    assert begin(tracing, f"{PARENT[:-1]}0") is None


def test_without_a_span_of_envoys_a_share_is_traced(sent):
    _, tracing, drawn = sent
    assert begin(tracing)
    drawn[0] = 0.5
    assert begin(tracing) is None
    assert tracing.begin([("traceparent", b"bytes")]) is None


def test_the_steps_follow_each_other_below_the_decision(sent):
    exporter, tracing, _ = sent
    trace = begin(tracing, PARENT)
    for name in ("read", "estimate", "choose", "choose"):
        trace.step(name)
    trace.decided(ROUTED)
    *steps, decision = exporter.get_finished_spans()
    assert [span.name for span in steps] == ["read", "estimate", "choose"]
    assert {span.parent.span_id for span in steps} == {decision.context.span_id}
    assert f"{decision.parent.span_id:016x}" == SPAN
    assert decision.attributes["dualpool.pool"] == "short"


def test_a_decision_without_steps_is_one_span(sent):
    exporter, tracing, _ = sent
    begin(tracing).decided(ROUTED)
    [decision] = exporter.get_finished_spans()
    assert (decision.name, decision.parent) == ("decide", None)


@pytest.mark.parametrize(
    ("outcome", "key", "value"),
    [
        (Usage(7, 5, 0, Finish.STOP), "gen_ai.usage.input_tokens", 7),
        (Refused(400), "dualpool.outcome", "refused"),
        (Unlearnable.ABSENT, "dualpool.outcome", "absent"),
    ],
)
def test_what_is_learnt_links_to_the_request(outcome, key, value, sent):
    exporter, tracing, _ = sent
    trace = begin(tracing, PARENT)
    trace.learning()
    trace.learnt("short", outcome)
    [span] = exporter.get_finished_spans()
    assert span.attributes[key] == value
    assert [f"{link.context.trace_id:032x}" for link in span.links] == [TRACE]
