"""The real Envoy's access log as an input of the planner."""

import pytest

from extproc.planner_commands.inputs import InputOptions, read_inputs
from tests.support.local_stack import running, wait_for

ASK = {"prompt": "Where do owls sleep at noon?", "max_tokens": 40}


@pytest.fixture(scope="module")
def reading(tmp_path_factory):
    with running() as stack:
        log = stack.gateway.envoy.output
        for _ in range(3):
            stack.post("/v1/completions", ASK | {"model": stack.model})
        stack.post("/v1/models", None)
        wait_for(lambda: log.read().count(b"\n") >= 4)
        file = tmp_path_factory.mktemp("log") / "access.log"
        file.write_bytes(log.read())
    return read_inputs(InputOptions(files=(file,)))


def test_requests_have_their_budgets(reading):
    assert reading.count == 3
    assert reading.requests.total.min() > 40


def test_a_request_without_a_budget_is_left_out(reading):
    assert reading.notes[0].endswith(": 1 requests of no output or of unknown length are left out")
