"""What a server's metrics state of its load."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.routing.load.report import Report, read_report

# As vLLM 0.32 writes it; some hundred other series stand between.
VLLM = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 32.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 7.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 5.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
# TYPE vllm:num_preemptions counter
vllm:num_preemptions_total{engine="0",model_name="m"} 3.0
vllm:num_preemptions_created{engine="0",model_name="m"} 1.7641e+09
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 40.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 2.0
"""
SGLANG = b"""\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m",tp_rank="0"} 4
sglang:num_queue_reqs{model_name="m",tp_rank="0"} 2
sglang:token_usage{model_name="m",tp_rank="0"} 0.5
sglang:num_retracted_requests_total{model_name="m"} 1
sglang:num_requests_total{model_name="m"} 9
"""


def test_vllm_s_names_are_read():
    assert read_report(VLLM) == Report(32, 7, 42, 0.25, 3)


def test_sglang_s_names_are_read():
    assert read_report(SGLANG) == Report(4, 2, 9, 0.5, 1)


def test_the_older_name_of_the_cache_is_read():
    older = VLLM.replace(b"kv_cache_usage_perc", b"gpu_cache_usage_perc")
    assert read_report(older) == read_report(VLLM)


def test_engines_add_up_and_the_fullest_cache_counts():
    second = b"".join(
        line.replace(b'engine="0"', b'engine="1"') + b"\n"
        for line in VLLM.replace(b"0.25", b"0.75").splitlines()
    )
    assert read_report(VLLM + second) == Report(64, 14, 84, 0.75, 6)


def test_a_brace_in_a_label_and_a_time_do_not_matter():
    odd = VLLM.replace(b'model_name="m"', b'model_name="a}b 1"').replace(b" 32.0", b" 32.0 1764")
    assert read_report(odd) == read_report(VLLM)


@pytest.mark.parametrize("name", [b"running", b"waiting{", b"request_success"])
def test_without_one_of_the_three_nothing_is_known(name):
    assert read_report(VLLM.replace(name, b"gone" + name[-1:])) is None


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"-1", b"1e300", b"much", b"9" * 33])
def test_a_value_that_cannot_be_right_is_not_known(value):
    assert read_report(VLLM.replace(b" 7.0", b" " + value)) is None


def test_without_cache_and_preemptions_they_count_as_zero():
    told = b"\n".join(
        line for line in VLLM.splitlines() if b"perc" not in line and b"preempt" not in line
    )
    assert read_report(told) == Report(32, 7, 42, 0, 0)


def test_the_number_of_series_is_bounded():
    line = b'vllm:num_requests_running{engine="0"} 1\n'
    report = read_report(VLLM + line * 3000)
    assert report
    assert report.running == 32 + 1023


@given(st.binary(max_size=300))
def test_no_bytes_raise(data):
    assert read_report(data) is None
    assert read_report(VLLM + data) is None or True


@given(st.integers(0, len(VLLM)))
def test_metrics_that_break_off_are_read_or_unknown(end):
    read_report(VLLM[:end])
