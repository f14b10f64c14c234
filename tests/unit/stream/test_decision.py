"""What is said of a decision: headers, the note, and the field added to a body."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extproc.budget.estimate import Basis, Budget
from extproc.budget.features import FEATURES
from extproc.budget.values import Asked, Measure, Prefix
from extproc.names import NOTE
from extproc.request.reader import Form, Thinking
from extproc.routing.pools import Reason
from extproc.routing.route import Routed
from extproc.routing.tenant import TenantKey
from extproc.stream.decision import (
    USAGE_REQUEST,
    Noted,
    ask_for_usage,
    brief_from_note,
    decision_headers,
    from_note,
    note_text,
    to_note,
)
from extproc.stream.sampling import MOST as MOST_STOOD_FOR
from extproc.stream.usage_asking import UsageForm
from tests.support.conversation import stages

RULES = stages().rules
MEASURES = st.builds(
    Measure,
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.tuples(*[st.floats(0, 1e9)] * len(FEATURES)),
    st.floats(0, 1),
)
RECORDS = st.builds(
    Routed,
    st.sampled_from(["short", "long"]),
    st.sampled_from(Reason),
    st.builds(
        Asked,
        st.text(max_size=5),
        st.text(max_size=5),
        MEASURES,
        st.none() | st.integers(0, 2**40),
        st.integers(0, 2**40),
        st.integers(1, 2**31),
        st.none() | MEASURES,
    ),
    st.builds(Budget, *[st.integers(0, 2**40)] * 3, st.sampled_from(Basis)),
    st.booleans(),
)
MEASURE = Measure(40, 0, (1.0,) * len(FEATURES))
ROUTED = Routed(
    "short", Reason.FITS, Asked("m", "prose", MEASURE, 5), Budget(10, 2, 5, Basis.PRIOR)
)
BODIES = st.dictionaries(st.text().filter(lambda k: k != "stream_options"), st.text(), min_size=1)


NOTED = Noted.of(ROUTED)


def asked(**changes):
    return structs.replace(NOTED, asked=structs.replace(NOTED.asked, **changes))


def test_headers_say_where_a_request_goes_and_why():
    assert decision_headers(ROUTED) == {
        "x-llm-pool": "short",
        "x-llm-reason": "fits",
        "x-llm-budget": "17",
        "x-llm-category": "prose/m",
        "x-llm-basis": "prior",
    }


def test_a_request_that_was_not_read_has_no_budget():
    headers = decision_headers(structs.replace(ROUTED, reason=Reason.UNREADABLE))
    assert headers == {"x-llm-pool": "short", "x-llm-reason": "unreadable"}


def test_a_request_that_may_be_refused_is_marked():
    assert decision_headers(structs.replace(ROUTED, retryable=True))["x-llm-retryable"] == "1"


@given(RECORDS)
def test_every_header_is_printable_ascii_and_short(routed):
    for value in decision_headers(routed).values():
        assert value.isascii()
        assert value.isprintable()
        assert len(value) < 1200


def test_a_name_beyond_ascii_is_escaped_and_not_dropped():
    headers = [
        decision_headers(structs.replace(ROUTED, asked=structs.replace(ROUTED.asked, model=model)))
        for model in ("通义", "智谱", "a%b")
    ]
    assert [each["x-llm-category"] for each in headers] == [
        "prose/%E9%80%9A%E4%B9%89",
        "prose/%E6%99%BA%E8%B0%B1",
        "prose/a%25b",
    ]


@given(RECORDS, st.integers(1, MOST_STOOD_FOR), st.sampled_from(UsageForm))
def test_a_record_survives_its_way(routed, stands_for, usage):
    noted = Noted.of(routed, stands_for, usage)
    assert from_note(to_note(noted), RULES) == noted


def test_without_beginnings_the_note_names_none():
    assert "prefix" not in to_note(NOTED)[NOTE]


@pytest.mark.parametrize("part", ["", "1" * 32])
def test_the_beginnings_of_a_prompt_survive(part):
    prefix = Prefix("0" * 32, part, rest=MEASURE)
    assert from_note(to_note(asked(prefix=prefix)), RULES).asked.prefix == prefix


@pytest.mark.parametrize("thinking", [each.value for each in Thinking])
def test_how_long_the_model_is_to_think_survives(thinking):
    assert from_note(to_note(asked(thinking=thinking)), RULES).asked.thinking == thinking


@pytest.mark.parametrize("form", [each.value for each in Form])
def test_what_form_the_answer_must_have_survives(form):
    assert from_note(to_note(asked(form=form)), RULES).asked.form == form


@pytest.mark.parametrize(
    ("note", "text"),
    [({NOTE: "{}"}, "{}"), ({NOTE: ""}, None), ({}, None), ({NOTE: 1.0}, None)],
)
def test_the_text_of_a_note_is_kept(note, text):
    assert note_text(note) == text


def test_a_note_that_is_too_long_is_not():
    assert note_text({NOTE: "x" * 32_769}) is None


@given(st.dictionaries(st.sampled_from(["routed", "x"]), st.text() | st.floats() | st.booleans()))
def test_any_note_is_a_record_or_none(note):
    assert from_note(note, RULES) is None


@pytest.mark.parametrize(
    "record",
    [
        structs.replace(NOTED, pool="gone"),
        asked(sequences=0),
        asked(measure=Measure(40, 0, (1.0, 2.0))),
        asked(whole=Measure(40, 0, (1.0, 2.0))),
        asked(model="m" * 257),
        asked(category="c" * 257),
        asked(tenant="0123456789abcdef"),
        asked(thinking="loud"),
        asked(sequences=1 << 60),
        asked(output_limit=1 << 60),
        asked(output_limit=-5),
        asked(output_floor=-5),
        asked(share=0.0),
        asked(share=1.5),
        asked(prefix=Prefix("0" * 31)),
        asked(prefix=Prefix("0" * 32, "1")),
        asked(prefix=Prefix("0" * 32, rest=Measure(40))),
        asked(measure=structs.replace(MEASURE, doubt=-1.0)),
        structs.replace(NOTED, prompt_tokens=1 << 60),
        structs.replace(NOTED, prompt_tokens=-1),
        structs.replace(NOTED, stands_for=0),
        structs.replace(NOTED, stands_for=1001),
        asked(thinking="x" * 17),
        asked(measure=Measure(-1, 0, (1.0,) * len(FEATURES))),
        asked(measure=Measure(40, 1 << 60, (1.0,) * len(FEATURES))),
        asked(measure=Measure(40, 0, (1e200,) + (1.0,) * (len(FEATURES) - 1))),
        asked(measure=Measure(40, 0, (-1.0,) * len(FEATURES))),
        asked(measure=Measure(40, 0, (1.0,) * len(FEATURES), unseen=2.0)),
    ],
)
def test_a_record_that_this_service_cannot_have_written_is_none(record):
    assert from_note(to_note(record), RULES) is None


@pytest.mark.parametrize(("chars", "record"), [(32_768, NOTED), (32_769, None)])
def test_a_note_of_any_length_is_not_decoded(chars, record):
    padded = to_note(NOTED)["routed"].ljust(chars)
    assert from_note({"routed": padded}, RULES) == record


@given(st.integers(1, MOST_STOOD_FOR), st.sampled_from(UsageForm), st.sampled_from(["", "long"]))
def test_a_record_in_brief_says_what_an_answer_that_teaches_nothing_needs(count, usage, home):
    noted = Noted.of(structs.replace(ROUTED, home=home), count, usage)
    brief = brief_from_note(to_note(noted)[NOTE], RULES)
    assert brief.asked.model == noted.asked.model
    assert (brief.pool, brief.home) == (noted.pool, home)
    assert (brief.stands_for, brief.usage) == (count, usage)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        to_note(structs.replace(NOTED, pool="gone"))[NOTE],
        to_note(asked(model="m" * 257))[NOTE],
        to_note(asked(tenant="0123456789abcdef"))[NOTE],
    ],
)
def test_a_record_in_brief_that_this_service_cannot_have_written_is_none(text):
    assert brief_from_note(text, RULES) is None


MOST = 1 << 48


@pytest.mark.parametrize(("more", "sound"), [(0, True), (1, False)])
@pytest.mark.parametrize(
    "count", ["sequences", "output_limit", "output_floor", "text_bytes", "token_ids"]
)
def test_a_count_has_a_bound(count, more, sound):
    if count in ("text_bytes", "token_ids"):
        changes = {"measure": structs.replace(MEASURE, **{count: MOST + more})}
    else:
        changes = {count: MOST + more}
    assert (from_note(to_note(asked(**changes)), RULES) is not None) is sound


@pytest.mark.parametrize(("chars", "sound"), [(0, False), (15, False), (16, True), (17, False)])
def test_where_tenants_are_told_apart_each_record_has_a_digest(chars, sound):
    record = asked(tenant="d" * chars)
    rules = dataclasses.replace(RULES, tenants=TenantKey("x-tenant", b""))
    assert from_note(to_note(record), rules) == (record if sound else None)


def test_all_of_a_text_may_be_unseen():
    record = asked(measure=structs.replace(MEASURE, unseen=1.0))
    assert from_note(to_note(record), RULES) == record


def test_the_longest_note_that_this_service_writes_is_read():
    measure = Measure(2**40, 2**40, (123456.7890123,) * len(FEATURES), 0.123456789012345)
    longest = asked(measure=measure, whole=measure, model="\u6a21" * 256, category="\u6a21" * 256)
    assert from_note(to_note(longest), RULES) == longest


@given(BODIES, st.sampled_from(["", " ", "\n\t"]))
def test_the_body_says_one_thing_more(fields, space):
    asked = json.loads(ask_for_usage((space + json.dumps(fields)).encode()))
    assert asked == {"stream_options": {"include_usage": True}, **fields}


@pytest.mark.parametrize("body", [b'{"a":1e400, "a" : "\\u00e9"}', b' {\r\n"stream":true}\n'])
def test_every_byte_of_the_client_stays(body):
    assert ask_for_usage(body).replace(USAGE_REQUEST, b"", 1) == body


def test_a_note_names_the_pool_that_the_budget_alone_chose():
    moved = structs.replace(ROUTED, pool="long", reason=Reason.SPILL, home="short")
    noted = from_note(to_note(Noted.of(moved)), RULES)
    assert noted
    assert (noted.pool, noted.home) == ("long", "short")
    other = to_note(Noted.of(structs.replace(moved, home="other")))
    assert from_note(other, RULES) is None
