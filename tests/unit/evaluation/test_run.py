"""`dualpool evaluate` as a whole, small."""

import json

import pytest

from extproc.cli import main
from extproc.evaluation.options import EvaluateOptions
from extproc.evaluation.run import run_evaluate


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "texts").mkdir()
    for kind in ("owls", "barns"):
        (folder / "texts" / f"{kind}.txt").write_text(f"The {kind} are quiet at night.\n" * 300)
    options = EvaluateOptions(
        texts=folder / "texts", requests=150, thresholds=(2048,), json=folder / "out.json"
    )
    assert run_evaluate(options) == 0
    return json.loads((folder / "out.json").read_text())


def test_every_estimator_is_replayed_on_every_tokenizer(figures):
    ran = [(each["tokenizer"], each["estimator"]) for each in figures["results"]]
    assert len(set(ran)) == len(ran) == 2 * 5


def test_every_class_is_scored(figures):
    assert figures["classes"] == ["barns", "mixed, tools", "owls"]


def test_costs_are_measured_at_two_sizes(figures):
    assert {cost["prompt_bytes"] for cost in figures["costs"]} == {4096, 262_144}
    assert all(cost["estimate"] > 0 for cost in figures["costs"])


def test_a_users_requests_are_replayed(tmp_path, capsys):
    body = {"messages": [{"role": "user", "content": "Where do owls sleep?"}], "max_tokens": 64}
    (tmp_path / "requests.jsonl").write_text(f"{json.dumps(body)}\n" * 60)
    options = EvaluateOptions(texts=tmp_path / "requests.jsonl", thresholds=(2048,))
    assert run_evaluate(options) == 0
    assert "1 classes of text x 2 tokenizers x 60 requests" in capsys.readouterr().out


def test_a_wrong_option_is_one_line_and_exit_code_2(capsys):
    assert main(["evaluate", "--requests", "0"]) == 2
    error = capsys.readouterr().err
    assert error == "--requests: 0 is not allowed: a whole number from 1\n"


def test_the_settings_file_gives_thresholds_target_and_reserve(tmp_path, capsys):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "owls.txt").write_text("The owls are quiet at night.\n" * 300)
    (tmp_path / "dualpool.yaml").write_text(
        "pools: [{name: a, max_model_len: 2000, threshold: 1500}, {name: b, max_model_len: 9000}]\n"
        "budget: {target: 0.05, default_output_tokens: 77}\n"
    )
    options = EvaluateOptions(
        config=tmp_path / "dualpool.yaml",
        texts=tmp_path / "texts",
        requests=60,
        json=tmp_path / "out.json",
    )
    assert run_evaluate(options) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    assert {result["threshold"] for result in found["results"]} == {1500}
    assert (found["target"], found["reserved"]) == (5.0, 77)
    assert "paper reserve 77 tokens" in capsys.readouterr().out
