import pytest

from extproc.local.demo import DemoOptions, run_demo
from extproc.local.stack import StackOptions


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"requests": 0}, "--requests: 0 is not allowed: must be a whole number from 1"),
        ({"rate": 0.0}, "--rate: 0.0 is not allowed: must be above 0"),
        ({"concurrency": 0}, "--concurrency: 0 is not allowed: must be a whole number from 1"),
        ({"exceeding": 1.5}, "--exceeding: 1.5 is not allowed: must be between 0 and 1"),
        ({"compose": "h:1/api"}, "--compose: 'h:1/api' is not http://HOST:PORT"),
    ],
)
def test_a_bad_option_is_refused(fields, message, capsys):
    assert run_demo(DemoOptions(**fields)) == 1
    assert capsys.readouterr().err == f"{message}\n"


def test_a_running_stack_and_pools_are_not_asked_for_at_once(capsys):
    stack = StackOptions(pools=("http://h:1",))
    assert run_demo(DemoOptions(stack=stack, compose="http://h:2")) == 1
    assert capsys.readouterr().err.startswith("--compose: a running stack has its own pools")


def test_a_report_that_could_not_be_written_is_refused_at_once(tmp_path, capsys):
    assert run_demo(DemoOptions(json=tmp_path / "absent" / "r.json")) == 1
    assert "--json: no such folder" in capsys.readouterr().err


def test_a_folder_without_texts_is_refused(tmp_path, capsys):
    assert run_demo(DemoOptions(texts=tmp_path)) == 1
    assert "holds no text files" in capsys.readouterr().err
