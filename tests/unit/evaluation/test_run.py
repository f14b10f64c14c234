"""`dualpool evaluate` as a whole, small."""

import json

import pytest

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


def test_a_fault_is_one_message(capsys):
    assert run_evaluate(EvaluateOptions(requests=0)) == 2
    assert capsys.readouterr().err.startswith("dualpool: --requests: 0 is not allowed")
