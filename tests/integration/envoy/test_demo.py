"""`dualpool demo` as a user runs it, short: the real Envoy, the service, the built-in pools."""

import importlib.util
import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from extproc.local.children import StackError
from extproc.local.demo import DemoOptions, run_demo
from extproc.local.envoy import find_envoy
from extproc.local.stack import StackOptions

pytestmark = pytest.mark.slow

try:
    find_envoy()
except StackError as error:
    pytest.skip(str(error), allow_module_level=True)
if importlib.util.find_spec("bpe_openai") is None:
    pytest.skip("the built-in pools need: pip install '.[local]'", allow_module_level=True)

_FAST = StackOptions(ports=None, speed=50.0)
_REQUESTS = 80


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    file = tmp_path_factory.mktemp("demo") / "report.json"
    assert run_demo(DemoOptions(stack=_FAST, requests=_REQUESTS, seed=5, rate=40.0, json=file)) == 0
    return json.loads(file.read_text())


def test_a_kept_stack_shows_its_page_until_a_signal():
    command = [sys.executable, "-m", "extproc", "demo", "--keep", "--ports", "auto"]
    command += ["--requests", "12", "--rate", "40", "--speed", "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = "".join(iter(process.stdout.readline, "Press Ctrl-C to stop.\n"))
            [url] = re.findall(r"^The page: (\S+)$", said, re.MULTILINE)
            with urllib.request.urlopen(url, timeout=5) as answer:
                assert b"<title>Dualpool" in answer.read()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert "Misrouted:" in said


def test_nothing_is_lost_or_altered(report):
    assert (report["lost"], report["altered"]) == ([], [])


def test_every_request_is_routed_for_a_reason(report):
    reasons = [reason for pool in report["pools"] for reason in pool["reasons"]]
    assert sum(pool["requests"] for pool in report["pools"]) == _REQUESTS
    assert set(reasons) <= {"fits", "capacity", "threshold", "oversize"}


def test_some_requests_have_several_sequences(report):
    assert report["several_sequences"] > 0


def test_both_pools_serve(report):
    assert all(pool["requests"] and pool["completion_tokens"] for pool in report["pools"])


def test_what_was_learnt_stands_beside_the_truth(report):
    categories = {category["name"]: category for category in report["categories"]}
    assert "prose/simulated" in categories
    for category in categories.values():
        assert category["samples"] > 0
        assert 1 < category["true"] < category["without_template"] * 1.05 < 10


def test_envoy_measured_what_the_service_added(report):
    assert report["added_ms"]["count"] == _REQUESTS
    assert 0 < report["added_ms"]["p50"] <= report["added_ms"]["p99"]


def test_all_tokens_are_known(report):
    assert (report["fit"]["known"], report["fit"]["unknown"]) == (_REQUESTS, 0)


def test_the_pools_are_called_simulated(report):
    assert report["simulated"]
    assert all(pool["simulated"] for pool in report["pools"])
