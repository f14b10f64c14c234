"""The benchmarks run, and print and write what they say; their figures are nobody's test."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from benchmarks import compiled
from benchmarks.__main__ import SECTIONS
from benchmarks.forms import REQUESTS, STREAMS
from benchmarks.requests import NULLS, SERVED
from extproc.local.children import StackError
from extproc.local.envoy import find_envoy
from tests.support.paths import ROOT

# A run of a minute takes several beside the other tests.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Answering(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format, *arguments):  # noqa: A002
        pass


def bench(*arguments):
    return run("__main__", *arguments)


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    try:
        find_envoy()
    except StackError as error:
        pytest.skip(str(error))
    file, plot = (tmp_path_factory.mktemp("bench") / name for name in ("run.json", "run.png"))
    done = bench("--quick", "--json", str(file), "--plot", str(plot))
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text()), plot


def test_each_section_has_figures(quick_run):
    _, figures, _ = quick_run
    assert set(figures["sections"]) == set(SECTIONS) == set(figures["load_average"])


def test_a_server_that_cannot_be_built_is_named(quick_run):
    table, figures, _ = quick_run
    for rounds in figures["sections"]["requests"].values():
        assert {"no ext_proc", "grpc", "h2"} <= set(rounds)
        names = (*NULLS, *SERVED)
        assert all(name in rounds or f"{name} is left out" in table for name in names)


def test_the_memory_is_that_of_each_service(quick_run):
    table, figures, _ = quick_run
    found = figures["sections"]["memory"]["services"]
    assert {"grpc", "h2"} <= set(found)
    assert all(name in found or f"{name} is left out" in table for name in SERVED)


def test_each_form_has_a_row(quick_run):
    table, _, _ = quick_run
    assert all(row.name in table for row in (*STREAMS, *REQUESTS) if not row.null)


def test_no_form_at_all_costs_no_message(quick_run):
    _, figures, _ = quick_run
    assert figures["sections"]["sse"]["streams"]["none"][0]["messages"] == 0


def test_the_body_is_one_message_where_envoy_buffers(quick_run):
    _, figures, _ = quick_run
    for forms in figures["sections"]["sse"]["requests"].values():
        assert forms["BUFFERED"][0]["messages"] == 4  # headers, body, and their answers


def test_the_length_of_an_answer_costs_no_message_with_trailers(quick_run):
    _, figures, _ = quick_run
    # The decision's four, and the observer's headers and trailers.
    assert figures["sections"]["sse"]["streams"]["trailers, O(1)"][0]["messages"] == 6


def test_no_held_stream_is_refused(quick_run):
    _, figures, _ = quick_run
    for servers in figures["sections"]["streams"].values():
        assert not any(each["refused"] for rounds in servers.values() for each in rounds)


def test_the_ratios_are_plotted(quick_run):
    _, _, plot = quick_run
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_without_a_compiler_the_programs_are_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(compiled, "_BUILT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    programs = compiled.build_programs()
    assert not programs.paths
    assert programs.missing["load"] == "no cc"


def test_the_client_in_python_measures_too(tmp_path):
    body = tmp_path / "body"
    body.write_bytes(b"{}")
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = run("http_load", str(server.server_port), "2", "0.2", "50", "/", "", str(body))
        server.shutdown()
    figures = json.loads(done.stdout)
    assert figures["requests"] > 2
    assert figures["failed"] == 0


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


def test_sticky_conversations_are_simulated():
    done = run("sticky", "--seeds", "1", "--seconds", "40", "--only", "2.5/s")
    assert done.returncode == 0, done.stderr
    assert "2.5/s, spill, sticky" in done.stdout


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
