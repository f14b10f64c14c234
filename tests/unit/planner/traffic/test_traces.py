"""Every format that the planner takes, recognised by its columns, and what is wrong with a file."""

import json
import tracemalloc
from contextlib import suppress
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.planner.traffic.lengths import InputError, Trace, Workload, merged
from extproc.planner.traffic.traces import read
from tests.support.paths import SHARED

DATA = SHARED / "data"
with_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the public traces are not in {DATA}")

AZURE_2023 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
AZURE_2024 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.017335+00:00,2399,6
"""
BURSTGPT = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
118,GPT-4,417,276,693,API log
"""
BURSTGPT_3 = """\
Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5.5,12,1.2,ChatGPT,472,18,490,Conversation log
"""
MOONCAKE = """\
{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}
{"timestamp": 27482, "input_length": 7322, "output_length": 490, "hash_ids": [0, 14]}
"""
BAILIAN = """\
{"chat_id": 1, "timestamp": 0.5, "input_length": 9, "output_length": 5, "hash_ids": [1]}
{"chat_id": 2, "timestamp": 2.0, "input_length": 8, "output_length": 4, "hash_ids": [1]}
"""
VLLM_REQUESTS = '{"prompt_len": 512, "output_len": 128}\n{"prompt_len": 7, "output_len": 1}\n'
OURS = "prompt_tokens,completion_tokens\n10,20\n30,40\n"
OURS_TIMED = "prompt_tokens;completion_tokens;at_s\n10;20;0.5\n30;40;2\n"


def read_text(text, **options):
    return read(text.splitlines(keepends=True), "f", **options)


def lengths(reading):
    prompt, output = reading.requests.prompt, reading.requests.output
    return list(zip(prompt.tolist(), output.tolist(), strict=True))


def fault(text):
    with pytest.raises(InputError) as caught:
        read_text(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "at_s", "pairs"),
    [
        (AZURE_2023, [0, 4.314579], [(374, 44), (396, 109)]),
        (AZURE_2024, [0, 0.007405], [(2162, 5), (2399, 6)]),
        (BURSTGPT, [0, 113], [(472, 18), (417, 276)]),
        (BURSTGPT_3, [0], [(472, 18)]),
        (MOONCAKE, [0, 27.482], [(6758, 500), (7322, 490)]),
        (BAILIAN, [0, 1.5], [(9, 5), (8, 4)]),
        (OURS_TIMED, [0, 1.5], [(10, 20), (30, 40)]),
    ],
    ids=["azure-2023", "azure-2024", "burstgpt-1", "burstgpt-3", "mooncake", "bailian", "ours"],
)
def test_a_trace_has_times_in_seconds_and_lengths(text, at_s, pairs):
    reading = read_text(text)
    assert reading.requests.at_s.tolist() == pytest.approx(at_s, abs=1e-6)
    assert lengths(reading) == pairs
    assert reading.count == len(pairs)


@pytest.mark.parametrize("text", [OURS, VLLM_REQUESTS])
def test_rows_without_times_are_a_workload(text):
    assert isinstance(read_text(text).requests, Workload)


def test_blocks_of_512_tokens_are_prefixes():
    assert read_text(MOONCAKE).requests.prefixes == ((0, 1, 2), (0, 14))
    assert read_text(BAILIAN).requests.prefixes == ()


def test_a_request_without_output_is_left_out_and_counted():
    assert read_text(BURSTGPT).notes == (
        "f: 1 requests of no output or of unknown length are left out",
    )


def test_blank_lines_capitals_tabs_and_windows_ends_do_not_matter():
    text = "\r\n\r\nCONTEXTTOKENS\tgeneratedtokens \r\n5\t6\r\n\r\n"
    assert lengths(read_text(text)) == [(5, 6)]


def test_rows_may_be_json_lines_or_a_json_list():
    rows = [{"ContextTokens": 5, "GeneratedTokens": 6}, {"ContextTokens": 7, "GeneratedTokens": 8}]
    lines = "\n".join(map(json.dumps, rows))
    assert lengths(read_text(lines)) == lengths(read_text(json.dumps(rows, indent=1)))


@given(st.lists(st.tuples(st.integers(1, 1 << 24), st.integers(1, 1 << 24)), min_size=1))
def test_what_is_written_is_read(pairs):
    table = "".join(f"{prompt},{output}\n" for prompt, output in pairs)
    assert lengths(read_text("prompt_tokens,completion_tokens\n" + table)) == pairs


@given(st.text())
def test_any_text_is_read_or_refused(text):
    with suppress(InputError):
        assert read_text(text).requests.prompt.min() >= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f: empty; allowed: CSV, JSON or JSON lines"),
        ("\n \n", "f: empty; allowed: CSV, JSON or JSON lines"),
        ("ContextTokens,x\n1,2\n",
         "f:1: GeneratedTokens is missing; Azure LLM trace: ContextTokens, GeneratedTokens"),
        ('{"output_length": 3}',
         "f:1: input_length is missing; Mooncake trace: input_length, output_length"),
        ("prompt_tokens,completion_tokens,prompt_len,output_len\n",
         "f:1: columns of vLLM benchmark requests and of lengths; allowed: of one"),
        ("prompt_tokens,completion_tokens\n", "f: no rows; at least one is needed"),
        (OURS + "-5,3\n",
         "f:4: prompt_tokens is '-5'; allowed: a whole number from 1 to 16777216"),
        (OURS + "0,3\n",
         "f:4: prompt_tokens is '0'; allowed: a whole number from 1 to 16777216"),
        (OURS + "17000000,3\n",
         "f:4: prompt_tokens is '17000000'; allowed: a whole number from 1 to 16777216"),
        (OURS + "5,NaN\n",
         "f:4: completion_tokens is 'NaN'; allowed: a whole number from 0 to 16777216"),
        (OURS + "5,\n",
         "f:4: completion_tokens is ''; allowed: a whole number from 0 to 16777216"),
        (OURS + "5,2.5\n",
         "f:4: completion_tokens is '2.5'; allowed: a whole number from 0 to 16777216"),
        (OURS + "5\n", "f:4: 1 columns; allowed: 2, as in the first row"),
        (OURS_TIMED + "1;1;1\n", "f:4: at_s goes back by 1 s; allowed: rows sorted by time"),
        (OURS_TIMED + "1;1;inf\n",
         "f:4: at_s is 'inf'; allowed: a number, or a date in UTC as in 2023-11-16 18:15:46.68"),
        (AZURE_2023 + "2023-13-16 18:15:46,1,1\n",
         "f:4: TIMESTAMP is '2023-13-16 18:15:46'; allowed: a number, or a date in UTC as in"
         " 2023-11-16 18:15:46.68"),
        (AZURE_2024 + "2024-05-10 00:00:01+02:00,1,1\n",
         "f:4: TIMESTAMP is '2024-05-10 00:00:01+02:00'; allowed: a number, or a date in UTC as in"
         " 2023-11-16 18:15:46.68"),
        (MOONCAKE + '{"timestamp": 30000, "input_length": 5}\n',
         "f:3: output_length is missing; allowed: a whole number from 0 to 16777216"),
        (MOONCAKE + "[1]\n", "f:3: not an object; allowed: the same columns in every row"),
        (MOONCAKE + "{\n", "f:3: Input data was truncated; allowed: JSON lines"),
        ('{"input_length": 1, "output_length": 1, "hash_ids": "x"}',
         "f:1: hash_ids is not a list of whole numbers"),
        (OURS + '"x,1\n', "f:4: unexpected end of data; allowed: CSV"),
    ],
)  # fmt: skip
def test_a_fault_has_one_clear_message_with_its_row(text, message):
    assert fault(text) == message


def test_columns_of_no_format_are_said_with_those_of_all():
    message = fault("when,what,why\n1,2,3\n")
    assert message.startswith("f:1: no known columns in when, what, why; allowed: ContextTokens, ")
    assert "BurstGPT" in message
    assert "Mooncake" in message


@pytest.mark.parametrize(
    "text",
    ['{"prompt": "Why?", "output_tokens": 10}\n', '[\n {"id": "a", "conversations": []}\n]\n',
     '{"conversations": []}\n{"conversations": []}\n'],
)  # fmt: skip
def test_texts_without_counts_are_told_how_to_be_counted(text):
    assert "texts without token counts" in fault(text)


def test_of_a_row_its_numbers_alone_are_held():
    rows = 50_000
    lines = chain(["prompt_tokens,completion_tokens\n"], (f"{i + 1},7\n" for i in range(rows)))
    tracemalloc.start()
    reading = read(lines, "f")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reading.count == rows
    assert peak < 100 * rows


@with_data
def test_azure_2023_has_the_totals_that_were_published():
    azure = [_opened(f"azure_llm_2023_{part}.csv") for part in ("conv", "code")]
    workload = merged([a.requests.workload() for a in azure], [a.count for a in azure])
    # arXiv 2603.16054's data: 28,185 requests
    published = {128: 0.02817, 1024: 0.40447, 2048: 0.77985, 4096: 0.89821, 8192: 0.99996}
    for tokens, share in published.items():
        assert workload.share_within(tokens) == pytest.approx(share, abs=5e-6)


@with_data
def test_mooncakes_trace_has_a_prefix_for_every_request():
    reading = _opened("mooncake_conversation.jsonl")
    assert reading.count == len(reading.requests.prefixes) == 12_031
    assert reading.requests.rate == pytest.approx(3.40, abs=0.01)


def _opened(name):
    with (DATA / name).open(encoding="utf-8") as file:
        reading = read(file, name)
    assert isinstance(reading.requests, Trace)
    return reading


def test_columns_that_are_not_read_are_named_where_times_are_missing():
    text = "timestamp,prompt_tokens,completion_tokens\nnan,5,3\n"
    assert read(text.splitlines(keepends=True), "f").notes == (
        "f: no arrival times, which are in a column at_s; not read: timestamp",
    )
