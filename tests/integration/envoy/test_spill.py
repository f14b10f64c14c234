"""A burst on a small pool, through the real Envoy, with and without spill."""

import argparse
import asyncio
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest

from benchmarks import spill_vllm
from tests.support.local_stack import answers, wait_for
from tests.support.running_service import consecutive_ports

pytestmark = pytest.mark.slow


@contextmanager
def pool(name, port, window, slots):
    flags = {
        "name": name,
        "port": port,
        "max-model-len": window,
        "max-num-seqs": slots,
        "num-blocks": 4096,
        "model": "m",
        "speed": 4,
        "seed": 0,
    }
    command = [sys.executable, "-m", "extproc.simulator.pool.server"]
    command += [text for key, value in flags.items() for text in (f"--{key}", str(value))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"), 60)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def test_a_burst_spills_and_no_request_exceeds_its_window():
    short, long = consecutive_ports(1)
    with ExitStack() as stack:
        urls = [
            stack.enter_context(pool("short", short, 2048, 2)),
            stack.enter_context(pool("long", long, 16_384, 32)),
        ]
        options = argparse.Namespace(
            pools=",".join(urls), seeds=1, requests=60, warm=2, seconds=3.0
        )
        bursts = {name: burst for name, _, burst in asyncio.run(spill_vllm.run(options))}
    assert not bursts["without"].spilled
    assert bursts["spill"].spilled
    assert bursts["spill"].exceeded == 0
    assert {answer.status for burst in bursts.values() for answer in burst.answers} == {200}
