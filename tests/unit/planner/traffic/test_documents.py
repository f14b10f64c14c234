"""JSON documents that hold many requests."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.lengths import LengthHistogram
from extproc.planner.traffic.lengths import InputError, Trace, Workload
from extproc.planner.traffic.traces import read
from tests.support.served_lengths import lengths_json

RESULT = {
    "date": "20261121-100000",
    "total_input_tokens": 60,
    "input_lens": [10, 20, 30],
    "output_lens": [5, 0, 7],
    "ttfts": [0.1, 0.0, 0.2],
    "start_times": [1003.5, 0.0, 1001.0],
    "errors": ["", "timeout", ""],
}
LOG = [
    {"pool": "short", "budget": "770", "code": 200, "start": "2026-11-21T10:00:02.500Z"},
    {"pool": "long", "budget": None, "code": 200, "start": "2026-11-21T10:00:03.000Z"},
    {"pool": "short", "budget": "100", "code": 200, "start": "2026-11-21T10:00:01.000Z"},
]
KEYS = ["cdf", "input_lens", "output_lens", "start_times", "lengths", "pool", "budget", "tokens",
        "prompt_tokens", "completion_tokens", "hash_ids", "64"]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 99) | st.floats(0, 1) | st.just("7"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner),
)


def read_text(text, **options):
    return read(text.splitlines(keepends=True), "f", **options)


def read_lines(rows, **options):
    return read_text("\n".join(map(json.dumps, rows)), **options)


def fault(text):
    with pytest.raises(InputError) as caught:
        read_text(text)
    return str(caught.value)


def test_a_vllm_result_is_a_trace_by_its_start_times_without_failed_requests():
    reading = read_text(json.dumps(RESULT, indent=1))
    assert isinstance(reading.requests, Trace)
    assert reading.requests.at_s.tolist() == [0, 2.5]
    assert reading.requests.prompt.tolist() == [30, 10]
    assert reading.notes == ("f: 1 requests of no output or of unknown length are left out",)


def test_an_older_vllm_result_has_no_times():
    reading = read_text(json.dumps({k: v for k, v in RESULT.items() if k != "start_times"}))
    assert isinstance(reading.requests, Workload)
    assert reading.requests.total.tolist() == [15, 37]


def test_a_vllm_result_without_detail_is_told_how_to_get_it():
    message = "f: input_lens is missing; run vllm bench serve --save-detailed"
    assert fault(json.dumps({"total_input_tokens": 60})) == message


def test_columns_of_a_vllm_result_are_of_one_length():
    message = "f: input_lens 1, output_lens 2, start_times 0; allowed: the same number of each"
    assert fault('{"input_lens": [1], "output_lens": [1, 2]}').startswith(message)


def test_a_value_of_a_vllm_result_is_refused_with_its_place():
    document = {"input_lens": [1, -4], "output_lens": [1, 1]}
    assert fault(json.dumps(document)).startswith("f:2: input_lens is -4; allowed: ")


def test_an_access_log_gives_budgets_in_the_order_of_their_starts():
    reading = read_lines(LOG)
    assert reading.requests.total.tolist() == [100, 770]
    assert reading.requests.at_s.tolist() == [0, 1.5]
    assert reading.requests.output.tolist() == [20, 154]


def test_an_access_log_says_that_budgets_are_no_lengths():
    left_out, bound, share = read_lines(LOG, output_share=0.1).notes
    assert left_out == "f: 1 requests of no output or of unknown length are left out"
    assert bound == "f: lengths are budgets, an upper bound with margin and reserved output"
    assert share == "f: 10% of each is taken for output"


def test_an_access_log_without_starts_is_a_workload():
    assert isinstance(read_lines([{"pool": "short", "budget": "9"}]).requests, Workload)


def test_an_access_log_with_a_broken_budget_is_refused_with_its_row():
    rows = [*LOG, {"pool": "short", "budget": "many"}]
    with pytest.raises(InputError, match=r"^f:4: budget is 'many'; allowed: "):
        read_lines(rows)


def test_the_lengths_of_a_service_count_as_often_as_they_were_seen():
    histogram = LengthHistogram()
    histogram.observe("prose/m", 10, 2, count=3)
    histogram.observe("code/m", 20, 2)
    reading = read_text(lengths_json(histogram).decode())
    assert reading.count == 4
    assert reading.requests.share_within(12) == 0.75


def test_a_service_that_has_seen_nothing_is_said_so():
    assert fault('{"lengths": {}}') == "f: no request seen yet; at least one is needed"


@given(JSON)
def test_any_json_is_read_or_refused(value):
    with suppress(InputError):
        assert read_text(json.dumps(value)).requests.prompt.min() >= 1


@given(st.lists(JSON, min_size=1, max_size=3))
def test_any_json_lines_are_read_or_refused(rows):
    with suppress(InputError):
        assert read_lines(rows).requests.prompt.min() >= 1
