"""The files of a plan are valid and start what was planned."""

import subprocess
from dataclasses import replace

import pytest
import yaml

from extproc.config.load import load
from extproc.planner.proof.tails import shape_of
from extproc.planner.report.running import running_files
from extproc.planner.sizing.search import Planner
from tests.support.planning_cases import ask

QUESTION = ask()
POOLS = Planner(QUESTION).at((8192,)).pools
SHAPES = [shape_of(pool.name, pool, QUESTION) for pool in POOLS]
FILES = running_files(SHAPES, [3, 1])
WINDOWS = [("short", 8192), ("long", 65_536)]


@pytest.fixture
def start(tmp_path):
    """Run vllm.sh with a vllm that prints its arguments."""
    tool = tmp_path / "vllm"
    tool.write_text('#!/bin/sh\necho "$@"\n')
    tool.chmod(0o755)

    def run(text: str, *words: str, model: str = "some/model") -> subprocess.CompletedProcess[str]:
        script = tmp_path / "vllm.sh"
        script.write_text(text)
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin", "MODEL": model}
        argv = ["sh", script, *words]
        return subprocess.run(argv, capture_output=True, text=True, env=path, check=False)

    return run


def test_the_settings_are_valid_and_have_the_windows_of_the_plan(tmp_path):
    file = tmp_path / "dualpool.yaml"
    file.write_text(FILES["dualpool.yaml"])
    assert [(pool.name, pool.max_model_len) for pool in load(file).pools] == WINDOWS


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.name)
def test_the_script_starts_an_instance_of_a_pool(start, pool):
    done = start(FILES["vllm.sh"], pool.name, "--port", "8001")
    assert done.stdout == (
        f"serve some/model --max-model-len {pool.max_model_len} --max-num-seqs {pool.max_num_seqs}"
        " --max-num-batched-tokens 2048 --tensor-parallel-size 8 --port 8001\n"
    )


@pytest.mark.parametrize(("words", "model"), [((), "m"), (("middle",), "m"), (("short",), "")])
def test_the_script_says_how_it_is_used(start, words, model):
    done = start(FILES["vllm.sh"], *words, model=model)
    assert "usage: MODEL=NAME sh vllm.sh short|long [OPTION...]" in done.stderr
    assert done.returncode == 2


def test_the_script_says_how_many_instances_there_are():
    assert "# short: 3 x 8 GPU, a100-llama70b\n" in FILES["vllm.sh"]


def test_a_limit_on_prefills_is_an_option_of_vllm(start):
    limited = replace(SHAPES[0], long_prefill_token_threshold=512)
    done = start(running_files([limited], [1])["vllm.sh"], "short")
    assert "--long-prefill-token-threshold 512" in done.stdout


def test_the_name_of_a_profile_runs_nothing(start):
    profile = replace(QUESTION.profile, name="h100\necho broken")
    done = start(running_files([replace(SHAPES[0], profile=profile)], [1])["vllm.sh"], "short")
    assert done.stdout.startswith("serve ")


def test_the_chart_gets_the_pools_with_the_addresses_of_their_services():
    pools = yaml.safe_load(FILES["values.yaml"])["settings"]["pools"]
    assert [(pool["name"], pool["max_model_len"]) for pool in pools] == WINDOWS
    assert pools[0]["address"] == "vllm-short.llm.svc.cluster.local:8000"


def test_compose_has_the_variables_of_both_pools():
    assert "SHORT_MAX_MODEL_LEN=8192\n" in FILES[".env"]
    assert f"LONG_MAX_NUM_SEQS={POOLS[1].max_num_seqs}\n" in FILES[".env"]


def test_one_pool_has_no_variables_for_compose():
    assert running_files(SHAPES[1:], [1]).keys() == {"dualpool.yaml", "vllm.sh", "values.yaml"}
