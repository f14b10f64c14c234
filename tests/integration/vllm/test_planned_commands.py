"""vLLM's own parser takes the commands that `dualpool plan --out` writes."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from extproc.planner.proof.tails import shape_of
from extproc.planner.report.running import running_files
from extproc.planner.sizing.search import Planner
from tests.support.planning_cases import ask

# .ci/run sets it: a folder with an environment in which vLLM is installed.
PYTHON = Path(os.environ.get("DUALPOOL_VLLM", "/nowhere")) / "venv" / "bin" / "python"

PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser

parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(sys.argv[2:])
validate_parsed_serve_args(parsed)
names = "max_model_len", "max_num_seqs", "long_prefill_token_threshold", "tensor_parallel_size"
print(json.dumps([getattr(parsed, name) for name in names]))
"""


@pytest.mark.skipif(not PYTHON.exists(), reason="no real vLLM: set DUALPOOL_VLLM")
def test_vllm_takes_the_command_of_a_pool(tmp_path):
    question = ask()
    pool = Planner(question).at((8192,)).pools[0]
    shape = replace(shape_of(pool.name, pool, question), long_prefill_token_threshold=512)
    script = tmp_path / "vllm.sh"
    script.write_text(running_files([shape], [1])["vllm.sh"])
    tool = tmp_path / "vllm"
    tool.write_text(f'#!/bin/sh\nexec {PYTHON} -c "$PARSE" "$@"\n')
    tool.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "MODEL": "some/model", "PARSE": PARSE}
    argv = ["sh", script, "short"]
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [8192, pool.max_num_seqs, 512, 8]
