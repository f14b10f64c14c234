"""Scenarios that are run, small."""

import json

import pytest

from extproc.build import build_estimator
from extproc.cli import main
from extproc.config.settings import EstimatorName, Settings
from extproc.evaluation.cases import TEMPLATES
from extproc.evaluation.options import EvaluateOptions, EvaluationError
from extproc.evaluation.priming import prime
from extproc.evaluation.run import run_evaluate
from extproc.evaluation.scenario_run import Fared, count_rows, run_scenarios, serve_scenario
from extproc.evaluation.scenarios import Scenario
from extproc.evaluation.serving import ServedRow
from extproc.evaluation.tokenizer import load_tokenizers
from extproc.routing.pools import Verdict
from tests.support.evaluation_cases import Words, case


def row(verdict: Verdict, *, near=False, long=False, weight=1, counted=False) -> ServedRow:
    return ServedRow(verdict, near, long, weight, counted)


def serve(**more):
    scenario = Scenario(name="s", phases=(), windows=(1000,), **more)
    cases = [case(words, output=10) for words in range(550, 950)]
    return serve_scenario(scenario, scenario.over(Settings()), cases, "words", Words().count)


def serve_quarters(**more):
    """Serve prompts of a tokenizer that has a token for four bytes."""
    scenario = Scenario(name="s", phases=(), windows=(1000,), lag=400, **more)
    cases = []
    for words in range(400, 800):
        tokens = case(words).asked.measure.text_bytes // 4 + 20
        cases.append(case(words, output=10, prompt_tokens=tokens))
    (result,) = serve_scenario(
        scenario, scenario.over(Settings()), cases, "quarters", lambda text: len(text.encode()) // 4
    )
    return result


def test_rows_are_counted():
    rows = [
        row(Verdict.MISROUTED, near=True, long=True, weight=50, counted=True),
        row(Verdict.MISROUTED, long=True, weight=0, counted=True),
        row(Verdict.OVER_ROUTED, near=True),
        row(Verdict.RIGHT, long=True),
    ]
    assert count_rows(rows) == Fared(
        requests=4, misrouted=2, over_routed=1, near=2, near_misrouted=1, long=3,
        long_misrouted=2, reserved=0, seen=52, counted=50,
    )  # fmt: skip


def test_parts_add_up():
    assert Fared(requests=2, seen=2) + Fared(requests=3, near=1) == Fared(
        requests=5, near=1, seen=2
    )


def test_a_scenario_is_served_by_ours_and_by_an_exact_tokenizer():
    (result,) = serve()
    assert (result.ours.requests, result.exact.requests) == (400, 400)
    assert result.exact.over_routed < result.ours.over_routed
    assert result.later.requests == 200
    assert 0 < result.forecast < 0.001


def test_fewer_are_over_routed_once_servers_have_counted_samples():
    plain, primed = serve_quarters(), serve_quarters(primed=True)
    assert primed.ours.over_routed < plain.ours.over_routed
    assert primed.ours.misrouted == 0
    assert primed.exact == plain.exact


@pytest.mark.parametrize("make", load_tokenizers(()))
@pytest.mark.parametrize("template", TEMPLATES)
def test_what_a_real_tokenizer_counts_is_believed(make, template):
    estimator = build_estimator(Settings(), name=EstimatorName.CALIBRATED)
    prime(estimator, ["m"], make().count, template)
    assert estimator.knows("m")


def test_servers_that_count_words_change_nothing():
    (plain,), (primed,) = (serve(lag=400, primed=primed) for primed in (False, True))
    assert primed == plain


def test_the_first_requests_can_be_reported_apart():
    first, rest = serve(apart=100)
    assert (first.part, first.ours.requests, first.forecast) == ("first 100", 100, None)
    assert (rest.part, rest.ours.requests) == ("after 100", 300)
    assert rest.forecast is not None


def test_a_name_that_no_scenario_has_is_a_fault():
    with pytest.raises(EvaluationError, match="none has 'nosuch' in its name"):
        run_scenarios(EvaluateOptions(scenarios="nosuch"), None)


def test_the_command_prints_a_table_and_writes_the_figures(tmp_path, capsys):
    options = EvaluateOptions(
        scenarios="4 pools", requests=20, json=tmp_path / "out.json", texts=_texts(tmp_path)
    )
    assert run_evaluate(options) == 0
    assert "4 pools" in capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())
    assert [(each["scenario"], each["ours"]["requests"]) for each in found] == [("4 pools", 20)] * 2


@pytest.mark.parametrize(
    "words", [("--threshold", "9"), ("--stated", "0.5"), ("--poison",), ("--by-class",)]
)
def test_options_without_effect_are_faults(words, capsys):
    assert main(["evaluate", "--scenarios", "base", *words]) == 2
    assert f"{words[0]}: has no effect on --scenarios" in capsys.readouterr().err


def _texts(folder):
    texts = folder / "texts"
    texts.mkdir()
    (texts / "owls.txt").write_text("The owls are quiet at night.\n" * 300)
    return texts
