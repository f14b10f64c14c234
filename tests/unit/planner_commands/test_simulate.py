"""`dualpool simulate`: options to a report."""

import csv
import json
import random
import re
from pathlib import Path

import pytest

from extproc.cli import main


@pytest.fixture
def lengths(tmp_path: Path) -> Path:
    rng = random.Random(0)
    file = tmp_path / "azure.csv"
    with file.open("w", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(["TIMESTAMP", "ContextTokens", "GeneratedTokens"])
        for second in range(300):
            at = f"2023-11-16 18:{second // 60:02d}:{second % 60:02d}.0000000"
            rows.writerow([at, rng.choice([200, 1000, 3000, 12_000]), rng.randint(1, 300)])
    return file


def dualpool(*arguments: object) -> int:
    return main(["simulate", *map(str, arguments)])


def test_a_trace_is_replayed_at_its_own_times(lengths, capsys):
    assert dualpool(lengths, "--instances", "1,1", "--max-num-seqs", "32,8") == 0
    out = capsys.readouterr().out
    assert "300 requests of" in out
    assert "at the times of the trace" in " ".join(out.split())
    assert "Simulated, over 1 seed" in out


def test_the_planner_sizes_the_pools_where_nobody_does(lengths, capsys):
    assert dualpool(lengths, "--rate", 20, "--requests", 300) == 0
    assert "Poisson" in capsys.readouterr().out


def test_all_rules_have_the_same_gpus(lengths, tmp_path):
    file = tmp_path / "out.json"
    assert dualpool(lengths, "--gpus", 32, "--compare", "--json", file) == 0
    rules = json.loads(file.read_text())["rules"]
    assert {run["fleet"]["gpus"] for runs in rules.values() for run in runs} == {32}
    assert list(rules) == [
        *("dualpool", "one-pool", "paper", "input-length", "random", "oracle", "homogeneous")
    ]


def test_a_comparison_says_what_its_rivals_are(lengths, capsys):
    assert dualpool(lengths, "--gpus", 32, "--compare") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "one-pool: all GPUs in one pool, 256 sequences an instance (vLLM's default)." in text
    assert "homogeneous: all GPUs in one pool, 16 sequences an instance (the papers' rule" in text


def test_the_papers_are_not_blamed_for_given_sequences(lengths, capsys):
    given = ("--window", 65536, "--max-num-seqs", 340, "--instances", 5, "--rule", "homogeneous")
    assert dualpool(lengths, *given) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "340 sequences an instance (that of the largest pool)." in text
    assert "papers' rule" not in text


def test_a_run_that_is_too_short_says_how_long_would_do(lengths, capsys):
    short = ("--rate", 100, "--requests", 100, "--instances", "40,40")
    assert dualpool(lengths, *short) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Note: the run is too short to tell: its arrivals span" in text
    found = re.search(r"give --requests (\d+)", text)
    assert found
    assert dualpool(lengths, *short, "--requests", found[1]) == 0
    assert "too short" not in capsys.readouterr().out


def test_seeds_give_intervals(lengths, tmp_path, capsys):
    file = tmp_path / "out.json"
    few = ("--rate", 20, "--requests", 200, "--instances", "1,1")
    assert dualpool(lengths, *few, "--seeds", 2, "--json", file) == 0
    assert "95 % interval" in capsys.readouterr().out
    assert len(json.loads(file.read_text())["rules"]["dualpool"]) == 2


NEAR = ("--rate", 12, "--requests", 400, "--instances", "1,1", "--max-num-seqs", "16,4")


@pytest.mark.parametrize("flag", [(), ("--spill",)])
def test_a_run_near_its_capacity_is_repeated_with_less_and_with_more(lengths, flag, capsys):
    assert dualpool(lengths, *NEAR, *flag) == 0
    assert "if the capacity were 10 % less or more" in capsys.readouterr().out


def test_a_run_is_not_repeated_where_nobody_wants_it(lengths, capsys):
    assert dualpool(lengths, *NEAR, "--no-sensitivity") == 0
    assert "if the capacity were" not in capsys.readouterr().out


def test_a_plan_is_simulated(lengths, tmp_path, capsys):
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(PLAN))
    assert dualpool(lengths, "--plan", plan) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "short 2 x 64 sequences of 4096 tokens" in out


PLAN = {
    "question": {
        "profile": {
            "name": "mine",
            "pace": {"weights_ms": 8.0, "sequence_ms": 0.1, "chunk_tokens": 512},
            "kv_tokens": 100_000,
            "gpus": 1,
            "price_per_gpu_h": 2.0,
        },
        "max_num_batched_tokens": 2048,
    },
    "plan": {
        "pools": [
            {"name": "short", "max_model_len": 4096, "max_num_seqs": 64, "threshold": 4096,
             "instances": 2},
            {"name": "long", "max_model_len": 65536, "max_num_seqs": 8, "threshold": 65536,
             "instances": 1},
        ]
    },
}  # fmt: skip


def test_a_plot_is_drawn(lengths, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "plot.png"
    assert dualpool(lengths, "--instances", "1,1", "--plot", file) == 0
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seeds", 0], "--seeds: allowed: at least 1"),
        (["--rate", "nan"], "--rate: allowed: requests per second"),
        (["--stated", 1.5], "--stated: allowed: a share from 0 to 1"),
        (["--instances", "1,2,3"], "--instances: 3 given; allowed: 2 of at least 1"),
        (["--window", "8192,4096"], "--window: allowed: rising windows"),
        (["--instances", "1,1", "--gpus", 4], "--gpus: not allowed together with --instances"),
        (["--gpus", 8], "--gpus: enough for 1 instances"),
        (["--profile", "b200"], "b200"),
        (["--plan", "/nowhere.json"], "/nowhere.json: No such file or directory; allowed: a file"),
        (["--window", "8192,99999999", "--instances", "1,1"], "not one sequence of 99999999"),
        (["--rate", "1e9"], "requests per second; allowed: up to 1e+06; see the unit"),
        (["--warmup", "99999", "--instances", "1,1"], "--warmup: 99999 s leaves out"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(lengths, flags, message, capsys):
    assert dualpool(lengths, *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_workload_without_times_needs_a_rate(tmp_path, capsys):
    file = tmp_path / "cdf.csv"
    file.write_text("tokens,cdf\n1024,0.5\n8192,1\n")
    assert dualpool(file) == 2
    assert "--rate: needed" in capsys.readouterr().err


SETTINGS = """\
pools:
  - {name: small, max_model_len: 4096, threshold: 3000}
  - {name: large, max_model_len: 32768}
budget: {estimator: paper, default_output_tokens: 4000}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "dualpool.yaml"
    file.write_text(SETTINGS)
    return file


def test_the_settings_file_names_the_pools(lengths, settings, capsys):
    assert dualpool(lengths, "--config", settings, "--instances", "1,1") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "sequences of 4096 tokens, up to 3000, large 1 x" in out


def test_the_settings_file_decides_the_rule(lengths, settings, tmp_path):
    file = tmp_path / "out.json"
    few = ("--stated", 0, "--instances", "1,1", "--json", file)
    assert dualpool(lengths, "--config", settings, *few) == 0
    # Each request without a limit reserves 4,000 tokens, so none fits 3,000.
    small = json.loads(file.read_text())["rules"]["dualpool"][0]["pools"][0]
    assert (small["name"], small["requests"]) == ("small", 0)


def test_a_flag_may_repeat_the_settings_file(lengths, settings):
    same = ("--window", "4096,32768", "--threshold", "3000", "--instances", "1,1")
    assert dualpool(lengths, "--config", settings, *same) == 0


@pytest.mark.parametrize(
    ("flags", "flag"),
    [(["--window", "8192,32768"], "--window"), (["--threshold", "2000"], "--threshold")],
)
def test_a_flag_that_contradicts_the_settings_file_is_refused(
    lengths, settings, flags, flag, capsys
):
    assert dualpool(lengths, "--config", settings, *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{flag}: pools of ")
    assert error.endswith(
        "differ from the pools of 4096 tokens up to 3000, 32768 tokens up to 32768 of --config; "
        "give one of them\n"
    )


def test_a_plan_for_other_pools_than_the_settings_is_refused(lengths, settings, tmp_path, capsys):
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(PLAN))
    assert dualpool(lengths, "--config", settings, "--plan", plan) == 2
    assert capsys.readouterr().err.startswith("--plan: pools of 4096 tokens up to 4096, 65536")


@pytest.mark.parametrize(
    ("columns", "row", "sequences"),
    [
        # All sequences together need 600 + 8 x 512 and 17,000 + 100 x 128 tokens.
        ("prompt_tokens,completion_tokens,n", "600,2400,8", 8),
        ("prompt_tokens,completion_tokens,prompts", "17000,1600,100", 100),
    ],
    ids=["n = 8", "100 prompts"],
)
@pytest.mark.parametrize("rule", ["dualpool", "oracle", "input-length"])
def test_a_request_is_routed_by_its_largest_sequence(tmp_path, columns, row, sequences, rule):
    file, out = tmp_path / "lengths.csv", tmp_path / "out.json"
    file.write_text(f"{columns},at_s\n" + "".join(f"{row},{second}\n" for second in range(20)))
    fleet = ("--window", "4096,16384", "--instances", "1,1", "--rule", rule)
    assert dualpool(file, *fleet, "--stated", 1, "--warmup", 0, "--json", out) == 0
    ((run,),) = json.loads(out.read_text())["rules"].values()
    short, long = run["pools"]
    assert (short["requests"], long["requests"]) == (20 * sequences, 0)


def test_requests_that_come_at_once_need_a_given_fleet(tmp_path, capsys):
    file = tmp_path / "burst.csv"
    row = "2023-11-16 18:00:00.0000000,100,20\n"
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + 20 * row)
    assert dualpool(file) == 2
    assert "--instances: needed" in capsys.readouterr().err
    assert dualpool(file, "--instances", "1,1") == 0
