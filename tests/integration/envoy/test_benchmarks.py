"""The benchmarks run, and print and write what they say; their figures are nobody's test."""

import json
import subprocess
import sys

import pytest

from benchmarks.forms import REQUESTS, STREAMS
from extproc.local.children import StackError
from extproc.local.envoy import find_envoy
from tests.support.paths import ROOT
from tests.support.transports import TRANSPORTS

pytestmark = pytest.mark.slow


def bench(*arguments):
    argv = (sys.executable, "-m", "benchmarks.envoy", *arguments)
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    try:
        find_envoy()
    except StackError as error:
        pytest.skip(str(error))
    file = tmp_path_factory.mktemp("bench") / "figures.json"
    done = bench("--short", "--json", str(file))
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text())


def test_each_form_has_a_row(short_run):
    table, _ = short_run
    assert all(row.name in table for row in (*STREAMS, *REQUESTS))


def test_no_form_at_all_costs_no_message(short_run):
    _, figures = short_run
    assert figures["streams"]["none"][0]["messages"] == 0


def test_the_body_is_one_message_where_envoy_buffers(short_run):
    _, figures = short_run
    for forms in figures["requests"].values():
        assert forms["BUFFERED"][0]["messages"] == 4  # headers, body, and their answers


def test_the_length_of_an_answer_costs_no_message_with_trailers(short_run):
    _, figures = short_run
    # The decision's four, and the observer's headers and trailers.
    assert figures["streams"]["trailers, O(1)"][0]["messages"] == 6


def test_each_transport_has_a_row():
    argv = (sys.executable, "-m", "benchmarks.transports", "--short")
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if row[:1] and row[0] in TRANSPORTS] == list(TRANSPORTS)


def test_the_memory_of_each_transport_has_a_line():
    argv = (sys.executable, "-m", "benchmarks.stream_memory", "--streams", "20", "--silent", "2")
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[-2:]
    assert [line.partition(":")[0] for line in lines] == ["grpc", "h2"]
    assert all(" with 20 open" in line for line in lines)


@pytest.mark.parametrize("rounds", ["0", "-1", "many"])
def test_rounds_that_are_none_are_refused(rounds):
    done = bench("--rounds", rounds)
    assert done.returncode == 2
    assert "is not allowed: must be a whole number from 1" in done.stderr


def test_a_file_in_no_folder_is_refused(tmp_path):
    done = bench("--json", str(tmp_path / "none" / "file"))
    assert done.returncode == 2
    assert "no such folder" in done.stderr


def run(module, *arguments):
    argv = (sys.executable, "-m", f"benchmarks.{module}", *arguments)
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


def test_an_overload_is_measured():
    done = run("overload", "--seconds", "1", "--body", "brotli")
    assert done.returncode == 0, done.stderr
    assert "brotli" in done.stdout


def test_an_outage_is_replayed(tmp_path):
    trace = tmp_path / "trace.csv"
    rows = [f"2023-11-16 18:{n // 60:02}:{n % 60:02}.0,{500 * (n % 9) + 9},20" for n in range(150)]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    done = run("outage", str(trace), "--window", "2048,8192", "--instances", "1,1")
    assert done.returncode == 0, done.stderr
    assert "by size, 2.5" in done.stdout


def test_an_outage_needs_two_minutes(tmp_path):
    trace = tmp_path / "trace.csv"
    rows = [f"2023-11-16 18:00:{n:02}.0,9,20" for n in range(9)]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    done = run("outage", str(trace), "--instances", "1,1")
    assert done.returncode == 1
    assert "the trace must last 120 s" in done.stderr


def test_an_outage_is_survived():
    done = run("live_outage", "--around", "1", "--away", "1")
    assert done.returncode == 0, done.stderr
    assert "Ready" in done.stdout
