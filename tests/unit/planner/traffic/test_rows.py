"""Rows to a trace or a workload, and the cells of a row."""

import math

import pytest

from extproc.planner.traffic.lengths import InputError, Trace, Workload
from extproc.planner.traffic.rows import (
    FORMATS,
    MOST_SEQUENCES,
    Batch,
    Format,
    Rows,
    read_number,
    read_seconds,
    read_tokens,
    recognise,
)
from extproc.planner.traffic.traces import read

BY_TITLE = {form.title: form for form in FORMATS}
OURS = BY_TITLE["lengths"]


def rows(form: Format = OURS, *, timed: bool = False) -> Rows:
    return Rows("f", form, timed=timed)


def read_text(text: str):
    return read(text.splitlines(keepends=True), "f")


def pairs(reading) -> list[tuple[int, int]]:
    found = reading.requests
    return list(zip(found.prompt.tolist(), found.output.tolist(), strict=True))


@pytest.mark.parametrize(
    ("columns", "title"),
    [
        (["TIMESTAMP", "ContextTokens", "GeneratedTokens"], "Azure LLM trace"),
        (["Request tokens", "Response tokens"], "BurstGPT"),
        (["timestamp", "input_length", "output_length", "hash_ids"], "Mooncake trace"),
        (["chat_id", "timestamp", "input_length", "output_length"], "Qwen-Bailian trace"),
        (["prompt_len", "output_len"], "vLLM benchmark requests"),
        (["prompt_tokens", "completion_tokens"], "lengths"),
    ],
)
def test_a_format_is_recognised_by_its_columns(columns, title):
    assert recognise(columns).form.title == title


def test_case_and_spaces_of_column_names_do_not_matter():
    found = recognise([" Prompt_Tokens", "COMPLETION_TOKENS ", "At_S"])
    assert (found.prompt, found.output, found.time) == (
        " Prompt_Tokens",
        "COMPLETION_TOKENS ",
        "At_S",
    )


def test_optional_columns_may_be_missing():
    found = recognise(["prompt_tokens", "completion_tokens", ""])
    assert (found.time, found.prompts, found.n) == ("", "", "")


def test_an_unnamed_column_is_no_column_of_a_format():
    assert recognise(["input_length", "output_length", ""]).n == ""


def test_columns_of_two_formats_are_rejected():
    columns = ["prompt_tokens", "completion_tokens", "prompt_len", "output_len"]
    with pytest.raises(ValueError, match="vLLM benchmark requests and of lengths; allowed: of one"):
        recognise(columns)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["prompt_tokens"], "completion_tokens is missing; lengths: prompt_tokens"),
        (["output_length"], "input_length is missing; Mooncake trace: input_length"),
        (["a", "b"], "no known columns in a, b; allowed: ContextTokens, GeneratedTokens"),
    ],
)
def test_missing_columns_are_named(columns, message):
    with pytest.raises(ValueError, match=message):
        recognise(columns)


def test_rows_without_times_are_a_workload():
    taken = rows()
    taken.add(1, 10, 5, None)
    assert isinstance(taken.done().requests, Workload)


def test_rows_with_times_are_a_trace_that_begins_at_0():
    taken = rows(timed=True)
    for row, at_s in enumerate((7.0, 7.5, 9.0), 1):
        taken.add(row, 10, 5, at_s)
    requests = taken.done().requests
    assert isinstance(requests, Trace)
    assert requests.at_s.tolist() == [0, 0.5, 2]


def test_a_time_that_goes_back_is_an_error_with_its_row():
    taken = rows(timed=True)
    taken.add(2, 10, 5, 7.0)
    with pytest.raises(InputError, match=r"f:3: at_s goes back by 0.5 s; allowed: rows sorted"):
        taken.add(3, 10, 5, 6.5)


def test_an_unordered_format_is_sorted():
    taken = rows(BY_TITLE["vLLM benchmark requests"], timed=True)
    for row, at_s in enumerate((3.0, 1.0, 2.0), 1):
        taken.add(row, row, 5, at_s)
    assert taken.done().requests.prompt.tolist() == [2, 3, 1]


def test_requests_without_output_are_counted_and_left_out():
    taken = rows()
    taken.add(1, 10, 0, None)
    taken.add(2, 10, 5, None)
    taken.leave_out()
    reading = taken.done()
    assert reading.count == 1
    assert reading.notes == ("f: 2 requests of no output or of unknown length are left out",)


def test_a_file_of_nothing_but_such_requests_is_an_error():
    taken = rows()
    taken.leave_out()
    with pytest.raises(InputError, match="f: no request with output; at least one is needed"):
        taken.done()


def test_prefixes_are_kept_if_every_row_has_one():
    taken = rows(BY_TITLE["Mooncake trace"], timed=True)
    taken.add(1, 10, 5, 0, prefix=(1, 2))
    taken.add(2, 10, 5, 1000, prefix=(1,))
    assert taken.done().requests.prefixes == ((1, 2), (1,))


def test_prefixes_are_dropped_if_a_row_has_none():
    taken = rows(BY_TITLE["Mooncake trace"], timed=True)
    taken.add(1, 10, 5, 0, prefix=(1, 2))
    taken.add(2, 10, 5, 1000)
    assert taken.done().requests.prefixes == ()


def test_n_outputs_are_n_requests_of_one_sequence():
    taken = rows()
    taken.add(1, 100, 800, None, batch=Batch(n=8))
    reading = taken.done()
    assert pairs(reading) == [(100, 100)] * 8
    assert reading.count == 8
    assert reading.notes == ("f: 1 requests count as 8, one per sequence",)


def test_several_prompts_share_their_tokens():
    taken = rows()
    taken.add(1, 100, 30, None, batch=Batch(prompts="10"))
    assert pairs(taken.done()) == [(10, 3)] * 10


def test_prompts_and_outputs_multiply_and_lengths_round_up():
    taken = rows()
    taken.add(1, 101, 25, None, batch=Batch(prompts=2, n=3))
    assert pairs(taken.done()) == [(51, 5)] * 6


def test_the_sequences_of_a_request_arrive_together_with_its_prefix():
    taken = rows(timed=True)
    taken.add(1, 100, 16, 3.0, prefix=(7,), batch=Batch(n=2))
    taken.add(2, 100, 16, 4.0, prefix=(8,))
    requests = taken.done().requests
    assert requests.at_s.tolist() == [0, 0, 1]
    assert requests.prefixes == ((7,), (7,), (8,))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (Batch(n=0), "n is 0; allowed: a whole number from 1"),
        (Batch(n="x"), "n is 'x'; allowed: a whole number from 1"),
        (Batch(prompts=1.5), r"prompts is 1\.5; allowed: a whole number from 1"),
        (Batch(MOST_SEQUENCES, 2), "131072 sequences; allowed: up to 65536"),
    ],
)
def test_an_impossible_number_of_sequences_is_an_error(batch, message):
    with pytest.raises(InputError, match=f"f:4: {message}"):
        rows().add(4, 10, 5, None, batch=batch)


@pytest.mark.parametrize(
    "text",
    [
        "prompt_tokens,completion_tokens,n\n100,800,8\n10,5,1\n",
        '{"prompt_tokens": 100, "completion_tokens": 800, "n": 8}\n'
        '{"prompt_tokens": 10, "completion_tokens": 5, "n": null}\n',
    ],
    ids=["csv", "json lines"],
)
def test_a_file_may_state_sequences(text):
    assert pairs(read_text(text)) == [(100, 100)] * 8 + [(10, 5)]


def test_a_file_may_state_prompts():
    text = "prompts,prompt_tokens,completion_tokens\n100,17000,1600\n"
    assert pairs(read_text(text)) == [(170, 16)] * 100


@pytest.mark.parametrize(("cell", "tokens"), [(5, 5), ("5", 5), (5.0, 5), (" 7 ", 7)])
def test_a_cell_of_tokens_is_a_whole_number(cell, tokens):
    assert read_tokens(cell, "c") == tokens


@pytest.mark.parametrize("cell", [0, -1, 1.5, "x", "", None, True, math.nan, 1 << 25])
def test_anything_else_is_rejected_with_its_column(cell):
    with pytest.raises(ValueError, match=r"c is .*; allowed: a whole number from 1 to 16777216"):
        read_tokens(cell, "c")


def test_a_missing_cell_is_called_missing():
    with pytest.raises(ValueError, match="c is missing"):
        read_tokens(None, "c")


@pytest.mark.parametrize(
    ("cell", "per_s", "seconds"),
    [
        (1500, 1000.0, 1.5),
        ("2.5", 1.0, 2.5),
        ("1.5e-3", 1.0, 0.0015),
        ("1970-01-01 00:00:10", 1.0, 10.0),
        ("1970-01-01T00:00:10.5Z", 1000.0, 10.5),
        ("1970-01-01 00:00:10+00:00", 1.0, 10.0),
    ],
)
def test_a_time_is_a_number_or_a_date(cell, per_s, seconds):
    assert read_seconds(cell, "t", per_s) == seconds


@pytest.mark.parametrize("cell", ["soon", None, "1970-13-01", "1970-01-01 00:00+02:00", "inf"])
def test_other_times_are_rejected(cell):
    with pytest.raises(ValueError, match=r"t is .*; allowed: a number, or a date in UTC"):
        read_seconds(cell, "t", 1.0)


@pytest.mark.parametrize("cell", [True, None, [], {}, "x", 10**400])
def test_a_cell_without_a_number_is_nan(cell):
    assert math.isnan(read_number(cell))
