"""The files of a plan are valid and start what was planned."""

import pytest

from extproc.config.load import load
from extproc.planner.report.running import running_files
from extproc.planner.sizing.search import Planner
from tests.support.planning_cases import ask

QUESTION = ask()
SPLIT = Planner(QUESTION).at((8192,))
FILES = running_files(SPLIT, QUESTION)


def test_the_settings_are_valid_and_have_the_windows_of_the_plan(tmp_path):
    file = tmp_path / "dualpool.yaml"
    file.write_text(FILES["dualpool.yaml"])
    assert [pool.max_model_len for pool in load(file).pools] == [8192, 65_536]


@pytest.mark.parametrize("pool", SPLIT.pools, ids=lambda pool: pool.name)
def test_each_pool_has_the_command_that_starts_it(pool):
    commands = FILES["vllm.sh"]
    assert f"# {pool.name}: {pool.instances} instances of 8 GPUs" in commands
    assert (
        f"--max-model-len {pool.max_model_len} --max-num-seqs {pool.max_num_seqs} "
        "--max-num-batched-tokens 2048 --tensor-parallel-size 8"
    ) in commands


def test_compose_has_the_variables_of_both_pools():
    assert "SHORT_MAX_MODEL_LEN=8192\n" in FILES[".env"]
    assert f"LONG_MAX_NUM_SEQS={SPLIT.pools[1].max_num_seqs}\n" in FILES[".env"]


def test_one_pool_has_no_variables_for_compose():
    assert running_files(Planner(QUESTION).one_pool, QUESTION).keys() == {
        "dualpool.yaml",
        "vllm.sh",
    }
