"""`dualpool plan`: what it prints and writes, and what it refuses."""

import json
import runpy
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from extproc.cli import main
from extproc.planner.proof import tails
from extproc.planner.traffic.published import LMSYS
from extproc.simulator.engine.profiles import read_profile, write_profile
from tests.support.paths import ROOT
from tests.support.planning_cases import A100

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture
def lengths(tmp_path):
    file = tmp_path / "lmsys.csv"
    rows = (f"{tokens},{share}" for tokens, share in LMSYS)
    file.write_text("\n".join(("tokens,cdf", *rows)))
    return str(file)


def run(*words):
    return main(["plan", *words])


def test_the_report_says_what_to_buy(lengths, capsys):
    assert run(lengths, "--rate", "200") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(
        "Do not split: max_num_seqs 256 (vLLM's default; the KV cache holds 252) will do. One pool "
    )
    assert "8760 hours a year" in text
    assert "20% of each is taken for output" in text


def test_a_plan_by_formula_loads_neither_settings_nor_simulations_nor_http(lengths):
    code = "import sys; from extproc.cli import main; main(sys.argv[1:]); print('=', *sys.modules)"
    words = [sys.executable, "-c", code, "plan", lengths, "--rate", "200"]
    out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    slow = {"pydantic", "yaml", "http.client", "extproc.build", "extproc.planner.simulation.run"}
    assert slow.isdisjoint(out.partition("= ")[2].split())


def test_json_has_the_same_figures(lengths, capsys):
    assert run(lengths, "--rate", "200", "--json", "-") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["plan"]["gpus"] == sum(pool["gpus"] for pool in document["plan"]["pools"])
    assert document["question"]["rate_per_s"] == 200
    assert document["plan"]["verdict"].startswith("Do not split")


def test_a_given_threshold_and_hours_are_used(lengths, tmp_path):
    file = tmp_path / "plan.json"
    words = ("--rate", "200", "--threshold", "8192", "--hours", "1", "--price", "1")
    assert run(lengths, *words, "--json", str(file)) == 0
    plan = json.loads(file.read_text())["plan"]
    assert plan["thresholds"] == [8192]
    assert plan["usd_per_year"] == plan["gpus"]


@pytest.fixture
def settings(tmp_path):
    file = tmp_path / "dualpool.yaml"
    file.write_text(
        "pools:\n- {name: a, max_model_len: 8192, threshold: 7000}\n"
        "- {name: b, max_model_len: 16384}\n- {name: c, max_model_len: 32768}\n"
        "budget: {estimator: paper}\n"
    )
    return str(file)


def test_the_pools_and_the_estimator_may_be_those_of_the_settings(lengths, settings, capsys):
    words = ("--threshold", "7000", "--threshold", "16384", "--window", "32768")
    for flags in ((), words):
        assert run(lengths, "--rate", "20", "--config", settings, *flags, "--json", "-") == 0
        document = json.loads(capsys.readouterr().out)
        assert document["plan"]["thresholds"] == [7000, 16384]
        assert [pool["name"] for pool in document["plan"]["pools"]] == ["a", "b", "c"]
        assert document["question"]["window"] == 32768
        assert document["question"]["estimator"] == "paper"


def test_settings_of_one_pool_are_not_split(lengths, tmp_path, capsys):
    file = tmp_path / "one.yaml"
    file.write_text("pools: [{name: all, max_model_len: 32768}]\n")
    assert run(lengths, "--rate", "20", "--config", str(file), "--json", "-") == 0
    assert len(json.loads(capsys.readouterr().out)["plan"]["pools"]) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--window", "65536"), "--window: 65536 differs from the 32768 of --config"),
        (("--threshold", "8192"), "--threshold: 8192 differs from the 7000, 16384 of --config"),
    ],
)
def test_a_flag_that_contradicts_the_settings_is_an_error(lengths, settings, words, says, capsys):
    assert run(lengths, "--rate", "20", "--config", settings, *words) == 2
    assert capsys.readouterr().err == f"{says}; give one of them\n"


def test_the_page_needs_nothing_from_elsewhere(lengths, tmp_path):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    page, picture = tmp_path / "plan.html", tmp_path / "plan.png"
    assert run(lengths, "--rate", "200", "--html", str(page), "--plot", str(picture)) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert links(page.read_text()) == []
    assert "<svg" in page.read_text()


def links(text):
    found = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attrs):
            outside = {"src", "href", "xlink:href"}
            found.extend(v for k, v in attrs if k in outside and not v.startswith("#"))

    Links().feed(text)
    return found


def test_an_objective_that_fails_is_exit_code_1(lengths, capsys):
    assert run(lengths, "--rate", "200", "--slo-ttft-ms", "5") == 1
    assert "no number of GPUs changes that" in " ".join(capsys.readouterr().out.split())


def test_a_profile_may_be_a_file(lengths, tmp_path, capsys):
    file = tmp_path / "mine.json"
    file.write_text(write_profile(A100))
    assert run(lengths, "--rate", "20", "--profile", str(file)) == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "--rate: missing; the input has no arrival times"),
        (("--rate", "0"), "--rate: 0 is not allowed"),
        (("--rate", "1", "--profile", "b200"), "b200: no such profile; allowed: a100-llama70b"),
        (("--rate", "1", "--pools", "0"), "--pools: 0 is not allowed: from 1 to 8"),
        (("--rate", "1", "--threshold", "70000"), "--threshold: 70000; allowed: rising"),
        (("--rate", "1", "--window", "2000000"), "take a smaller --window"),
        (("--rate", "1", "--errors", "a,b"), "--errors: a,b is not allowed: two shares"),
        (("--rate", "1", "--hours", "0"), "the hours of a year must be above 0"),
        (("--rate", "1", "--utilisation", "2"), "the utilisation below 1"),
        (("--rate", "1", "--price", "-1"), "--price: -1 is not allowed"),
    ],
)
def test_what_cannot_be_planned_is_one_line_and_exit_code_2(lengths, words, says, capsys):
    assert run(lengths, *words) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_broken_profile_is_named(lengths, tmp_path, capsys):
    file = tmp_path / "mine.json"
    file.write_text("{}")
    assert run(lengths, "--rate", "1", "--profile", str(file)) == 2
    assert f"{file}: Object missing required field" in capsys.readouterr().err


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(example, capsys):
    runpy.run_path(str(example))
    assert capsys.readouterr().out.startswith(("Split at", "Do not split"))


def test_the_page_on_planning_shows_what_the_command_prints(capsys, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parents[1])
    shown = (EXAMPLES.parent / "planning.md").read_text().split("$ dualpool plan ")[1]
    command, text = shown.split("```")[0].split("\n", 1)
    assert run(*command.split()) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == text.splitlines()


def test_the_profile_on_the_page_is_one():
    page = (EXAMPLES.parent / "planning.md").read_text()
    profile = read_profile(page.split("```json\n")[1].split("```")[0])
    assert profile.gpus == 8


LONG = str(EXAMPLES / "long-prompts.csv")
MIX = ("--weight", "0.9", "--weight", "0.1", "--rate", "4", "--window", "131072")
GOALS = ("--slo-ttft-ms", "4000", "--slo-long-ttft-ms", "60000", "--slo-tpot-ms", "900")


def test_tails_are_simulated_and_come_first(lengths, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tails, "SHARES", (0.05,))
    words = (lengths, LONG, *MIX, *GOALS, "--tails", "--requests", "200", "--jobs", "1")
    assert run(*words, "--slots", "window", "--plot", str(tmp_path / "plan.png")) in {0, 1}
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(("Split at 8192", "Do not split", "No fleet tried"))
    assert "one pool with --long-prefill-token-threshold" in text
    assert (tmp_path / "plan.png").stat().st_size


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--threshold", "8"), "of the requests have at most 8 tokens"),
        (("--requests", "9"), "of 9 --requests fewer than 10 would be short"),
    ],
)
def test_tails_need_both_classes(lengths, words, says, capsys):
    assert run(lengths, "--rate", "20", "--tails", *words) == 2
    assert says in capsys.readouterr().err


def test_pools_of_several_accelerators_are_searched(lengths, tmp_path, capsys):
    words = (lengths, LONG, *MIX, *GOALS, "--requests", "200", "--jobs", "1")
    words = (*words, "--threshold", "8192")
    offers = ("--pool", "short=l40s", "--pool", "long=h100")
    files = ("--json", str(tmp_path / "a.json"), "--plot", str(tmp_path / "a.png"))
    assert run(*words, *offers, *files, "--out", str(tmp_path / "files")) == 0
    assert "GPU, Llama-3-8B on 1 x" in (tmp_path / "files" / "vllm.sh").read_text()
    assert capsys.readouterr().out.startswith(("Buy l40s + h100", "Do not mix"))
    assert (tmp_path / "a.png").stat().st_size
    assert run(*words, *offers, "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "a.json").read_text())


@pytest.mark.parametrize(
    ("offers", "says"),
    [
        (("short=h100",), "--pool: 1 given; allowed: two"),
        (("h100", "h100"), "--pool: h100 is not allowed: for example short=l4,l40s"),
        (("a=h100,", "b=h100"), "--pool: a=h100, is not allowed"),
        (("a=b200", "b=h100"), "b200: no such profile"),
    ],
)
def test_wrong_offers_are_refused(lengths, offers, says, capsys):
    words = [word for offer in offers for word in ("--pool", offer)]
    assert run(lengths, "--rate", "20", *words) == 2
    assert says in capsys.readouterr().err


def test_the_files_that_start_the_pools_are_written(lengths, tmp_path):
    out = tmp_path / "made" / "here"
    assert run(lengths, "--rate", "200", "--threshold", "8192", "--out", str(out)) in {0, 1}
    names = [".env", "dualpool.yaml", "values.yaml", "vllm.sh"]
    assert sorted(file.name for file in out.iterdir()) == names
