"""What one JSON answer, or several stream records, state about tokens."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from extproc.response.usage import (
    MAX_TOKENS,
    Finish,
    Record,
    Tally,
    Unlearnable,
    Usage,
    read_record,
    usage_by_envoy,
)

LEAVES = st.sampled_from([None, True, -1, 0, 7, 10**30, 1.5, "", "7", "stop", "response.failed"])
NAMES = st.sampled_from([*Record.__struct_fields__, "finish_reason", "reason", "prompt_tokens"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
ANSWERS = st.lists(st.dictionaries(NAMES, VALUES, max_size=5), max_size=4)


def read(*answers: Any) -> Usage | Unlearnable:
    tally = Tally()
    for answer in answers:
        record = read_record(json.dumps(answer).encode())
        assert record is not None
        tally.add(record)
    return tally.usage()


def opened(answer: Any) -> Usage | Unlearnable:
    tally = Tally()
    record = read_record(json.dumps(answer).encode())
    assert record is not None
    tally.open(record)
    return tally.usage()


def usage_of(**fields: Any) -> Usage | Unlearnable:
    return read({"usage": fields})


def finish_of(*reasons: Any) -> Finish:
    choices = [{"finish_reason": reason} for reason in reasons]
    usage = read({"choices": choices, "usage": {"prompt_tokens": 1}})
    assert isinstance(usage, Usage)
    return usage.finish


def counts(usage: Usage | Unlearnable) -> tuple[int, int, int]:
    assert isinstance(usage, Usage)
    return usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens


def test_prompt_and_completion_tokens_are_read():
    assert counts(usage_of(prompt_tokens=10, completion_tokens=3)) == (10, 3, 0)


def test_input_and_output_tokens_are_the_same_by_other_names():
    assert counts(usage_of(input_tokens=10, output_tokens=3)) == (10, 3, 0)


def test_an_embedding_has_no_completion_tokens():
    assert counts(usage_of(prompt_tokens=10, total_tokens=10)) == (10, 0, 0)


def test_null_is_not_stated():
    assert counts(usage_of(prompt_tokens=10, completion_tokens=None)) == (10, 0, 0)


@pytest.mark.parametrize("details", ["prompt_tokens_details", "input_tokens_details"])
def test_cached_tokens_are_read(details):
    assert counts(usage_of(input_tokens=10, **{details: {"cached_tokens": 4}})) == (10, 0, 4)


@pytest.mark.parametrize("cached", [-1, "many", True, None])
def test_cached_tokens_that_are_none_are_zero(cached):
    details = {"cached_tokens": cached}
    assert counts(usage_of(prompt_tokens=10, prompt_tokens_details=details)) == (10, 0, 0)


def test_no_more_is_cached_than_the_prompt():
    details = {"cached_tokens": 11}
    assert counts(usage_of(prompt_tokens=10, prompt_tokens_details=details)) == (10, 0, 10)


def test_anthropic_input_tokens_leave_out_the_cache():
    usage = usage_of(input_tokens=12, cache_read_input_tokens=96, cache_creation_input_tokens=1)
    assert counts(usage) == (109, 0, 96)


def test_an_implausible_part_is_not_made_plausible_by_the_others():
    usage = usage_of(input_tokens=-5, cache_read_input_tokens=96)
    assert usage is Unlearnable.IMPLAUSIBLE


def test_digits_in_a_text_are_a_number():
    assert counts(usage_of(prompt_tokens="10", completion_tokens="3")) == (10, 3, 0)


TEXTS = ["", "-1", "+1", "1.0", "1 ", "٣", "many", "9" * 5000]
IMPLAUSIBLE = [-1, MAX_TOKENS + 1, 10**30, 1.5, -1.0, 1e300, True, [], {}, *TEXTS]
DEEP = b'{"x": ' + b"[" * 100_000
OTHERS = ["tool_calls", "content_filter", "abort", "repetition", 5, ["a"]]


@pytest.mark.parametrize("count", [0, False, *IMPLAUSIBLE])
def test_prompt_tokens_that_no_prompt_has_are_implausible(count):
    assert usage_of(prompt_tokens=count, completion_tokens=3) is Unlearnable.IMPLAUSIBLE


@pytest.mark.parametrize("count", IMPLAUSIBLE)
def test_completion_tokens_that_no_answer_has_are_implausible(count):
    assert usage_of(prompt_tokens=10, completion_tokens=count) is Unlearnable.IMPLAUSIBLE


def test_the_largest_count_is_plausible():
    assert counts(usage_of(prompt_tokens=MAX_TOKENS)) == (MAX_TOKENS, 0, 0)


@pytest.mark.parametrize("usage", ["many", 5, [10, 3], True])
def test_a_usage_of_another_shape_is_implausible(usage):
    assert read({"usage": usage}) is Unlearnable.IMPLAUSIBLE


@pytest.mark.parametrize("number", [b"1e400", b"9" * 5000])
def test_a_number_out_of_every_range_is_implausible(number):
    tally = Tally()
    record = read_record(b'{"usage": {"prompt_tokens": %s}}' % number)
    assert record is not None
    tally.add(record)
    assert tally.usage() is Unlearnable.IMPLAUSIBLE


@pytest.mark.parametrize("usage", [None, {}, {"completion_tokens": 3}])
def test_without_prompt_tokens_usage_is_absent(usage):
    assert read({"usage": usage}) is Unlearnable.ABSENT


def test_the_last_usage_holds():
    first, last = {"prompt_tokens": 10, "completion_tokens": 1}, {"prompt_tokens": 10}
    assert counts(read({"usage": first}, {"usage": last}, {"usage": None}, {})) == (10, 0, 0)


def test_a_usage_adds_to_what_the_start_stated():
    tally = Tally()
    tally.open(Record(usage=Raw(b'{"input_tokens": 12, "cache_read_input_tokens": 96}')))
    tally.add(Record(usage=Raw(b'{"input_tokens": null, "output_tokens": 3}')))
    assert counts(tally.usage()) == (108, 3, 96)


def test_a_tokenize_answer_counts_the_prompt():
    assert counts(opened({"count": 9, "max_model_len": 2048, "tokens": [1] * 9})) == (9, 0, 0)


def test_a_count_of_something_else_is_not_of_tokens():
    assert opened({"count": 9}) is Unlearnable.ABSENT


def test_an_anthropic_token_count_counts_the_prompt():
    assert counts(opened({"input_tokens": 9})) == (9, 0, 0)


BILLED = {"input_tokens": 7, "output_tokens": 2}


def test_the_usage_of_a_cohere_chat_is_one_level_deeper():
    usage = usage_of(tokens={"input_tokens": 10.0, "output_tokens": 3.0}, cached_tokens=4)
    assert counts(usage) == (10, 3, 4)


def test_cohere_counts_more_tokens_than_it_bills():
    usage = usage_of(billed_units=BILLED, tokens={"input_tokens": 10, "output_tokens": 3})
    assert counts(usage) == (10, 3, 0)


def test_cohere_may_state_only_what_it_bills():
    assert counts(usage_of(billed_units=BILLED, cached_tokens=None)) == (7, 2, 0)


def test_a_cohere_embedding_states_text_and_images_apart():
    units = {"input_tokens": 10, "image_tokens": 200, "output_tokens": None}
    assert counts(opened({"meta": {"billed_units": units}})) == (210, 0, 0)


@pytest.mark.parametrize(
    "meta",
    [
        "v2",
        {"billed_units": {"search_units": 1}, "tokens": {"input_tokens": 9}},  # a rerank's
        {"billed_units": 5},
        {"input_tokens": 9},
    ],
)
def test_another_meta_states_nothing(meta):
    assert opened({"meta": meta}) is Unlearnable.ABSENT


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("COMPLETE", Finish.STOP),
        ("STOP_SEQUENCE", Finish.STOP),
        ("MAX_TOKENS", Finish.LENGTH),
        ("TOOL_CALL", Finish.OTHER),
    ],
)
def test_cohere_finish_reasons_are_read(reason, finish):
    usage = read({"finish_reason": reason, "usage": {"tokens": {"input_tokens": 1}}})
    assert usage == Usage(1, 0, 0, finish)


def test_all_sequences_that_stop_are_a_stop():
    assert finish_of("stop", "stop") is Finish.STOP


def test_one_sequence_at_its_limit_is_a_length():
    assert finish_of("stop", "length", "tool_calls") is Finish.LENGTH


@pytest.mark.parametrize("reason", OTHERS)
def test_any_other_reason_is_other(reason):
    assert finish_of("stop", reason) is Finish.OTHER


def test_no_reason_at_all_is_other():
    assert finish_of(None) is Finish.OTHER


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", Finish.STOP),
        ("stop_sequence", Finish.STOP),
        ("max_tokens", Finish.LENGTH),
        ("model_context_window_exceeded", Finish.LENGTH),
        ("tool_use", Finish.OTHER),
        ("refusal", Finish.OTHER),
    ],
)
def test_anthropic_stop_reasons_are_read(reason, finish):
    usage = read({"stop_reason": reason, "usage": {"input_tokens": 1}})
    assert usage == Usage(1, 0, 0, finish)


@pytest.mark.parametrize(
    ("status", "details", "finish"),
    [
        ("completed", None, Finish.STOP),
        ("incomplete", {"reason": "max_output_tokens"}, Finish.LENGTH),
        ("incomplete", {"reason": "content_filter"}, Finish.OTHER),
        ("incomplete", None, Finish.OTHER),
        ("cancelled", None, Finish.OTHER),
    ],
)
def test_the_status_of_a_response_is_read(status, details, finish):
    usage = read(
        {"status": status, "incomplete_details": details, "usage": {"input_tokens": 1}},
    )
    assert usage == Usage(1, 0, 0, finish)


@pytest.mark.parametrize("data", [b"", b"{", b'{"usage": {}', b"{} {}", DEEP, b"\xff", b"hi"])
def test_what_is_no_whole_json_is_no_record(data):
    assert read_record(data) is None


@pytest.mark.parametrize("data", [b"5", b"[1]", b'"usage"', b'{"choices": 5}', b'{"type": 5}'])
def test_json_of_another_shape_states_nothing(data):
    assert read_record(data) == Record()


def test_text_that_is_not_utf8_does_not_hide_the_usage():
    record = read_record(b'{"choices": [{"text": "\xff"}], "usage": {"prompt_tokens": 1}}')
    assert record is not None
    assert bytes(record.usage) == b'{"prompt_tokens": 1}'


@given(ANSWERS)
def test_any_records_give_a_usage_or_a_reason(answers):
    tally = Tally()
    for answer in answers:
        if record := read_record(json.dumps(answer).encode()):
            tally.open(record)
            tally.add(record)
    assert isinstance(tally.usage(), Usage | Unlearnable)


def test_a_whole_number_may_be_written_as_a_float():
    assert counts(usage_of(prompt_tokens=20.0, completion_tokens=3.0)) == (20, 3, 0)


@pytest.mark.parametrize(
    ("counts", "plausible"),
    [
        ((1, 0), True),
        ((0, 0), False),
        ((MAX_TOKENS, MAX_TOKENS), True),
        ((MAX_TOKENS + 1, 0), False),
        ((1, MAX_TOKENS + 1), False),
    ],
)
def test_envoys_counts_are_held_to_what_an_exchange_can_have(counts, plausible):
    assert (usage_by_envoy(*counts, 0) is not Unlearnable.IMPLAUSIBLE) == plausible


@pytest.mark.parametrize(("stated", "tokens"), [("0000000007", 7), ("00000000007", None)])
def test_a_count_in_digits_is_of_ten_at_most(stated, tokens):
    tally = Tally()
    tally.add(read_record(json.dumps({"usage": {"prompt_tokens": stated}})))
    usage = tally.usage()
    assert (usage.prompt_tokens if isinstance(usage, Usage) else None) == tokens


@pytest.mark.parametrize(
    "data",
    [
        b'\xef\xbb\xbf{"usage": {"prompt_tokens": 10}}',
        b'{"logprob": NaN, "usage": {"prompt_tokens": 10}}',
        b'{"logprob": [-Infinity], "usage": {"prompt_tokens": 10, "x": NaN}}',
    ],
)
def test_what_python_reads_beyond_json_is_read(data):
    tally = Tally()
    tally.add(read_record(data))
    assert tally.usage().prompt_tokens == 10


def test_of_another_shape_it_is_an_empty_record():
    assert read_record(b'{"logprob": NaN, "choices": 3}') == Record()


@pytest.mark.parametrize(
    "data", [b'{"logprob": NaN, "usage"', b"NaN" + b"[" * 100_000, b"\xef\xbb"]
)
def test_what_is_cut_is_no_record(data):
    assert read_record(data) is None
