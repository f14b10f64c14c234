"""Starts the two vLLM servers on the CPU that the simulator is compared with.

Both run on one core, and only one is under load at a time; client and API servers use the other
cores. KV caches are small, so that sequences are preempted. Prefix caching is off: a preempted
sequence would find its own prefix again, which the engine model does not model.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp

from extproc.local.children import Child, Children, Command, StackError
from extproc.local.ports import free_ports

_MODEL: Final = "tiny-qwen"
_POOLS: Final = ((512, 32), (2048, 16))  # max_model_len and max_num_seqs of the short and the long
_BLOCK, _BLOCKS = 32, 97  # one of the blocks is the null block
_START_S: Final = 300
_ENVIRONMENT: Final = (
    "HF_HUB_OFFLINE=1",
    "VLLM_NO_USAGE_STATS=1",
    "VLLM_CPU_KVCACHE_SPACE=1",
    "VLLM_CPU_OMP_THREADS_BIND=0",
    "SPIN_SLEEP=0.0003",  # if the installation supports it: its queues sleep instead of spinning
)


@asynccontextmanager
async def start_pools(folder: Path | None) -> AsyncIterator[tuple[str, str]]:
    """Run both servers from `folder`/venv and `folder`/models. Raises StackError."""
    if folder is None or not (folder / "venv/bin/vllm").exists():
        raise StackError(f"{folder}: no venv/bin/vllm; set DUALPOOL_VLLM to a folder with vLLM")
    children = Children()
    short, long = free_ports().pools
    try:
        for port, (window, seqs) in zip((short, long), _POOLS, strict=True):
            child = await children.start(_command(folder, port, window, seqs))
            await _wait_until_healthy(child, port)
        yield f"http://127.0.0.1:{short}", f"http://127.0.0.1:{long}"
    finally:
        await children.stop()


def _command(folder: Path, port: int, window: int, seqs: int) -> Command:
    flags = {
        "served-model-name": _MODEL,
        "host": "127.0.0.1",
        "port": port,
        "max-model-len": window,
        "max-num-seqs": seqs,
        "dtype": "bfloat16",
        "block-size": _BLOCK,
        "num-gpu-blocks-override": _BLOCKS,
    }
    switches = ("--enforce-eager", "--no-enable-prefix-caching", "--disable-uvicorn-access-log")
    given = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    vllm = (str(folder / "venv/bin/vllm"), "serve", str(folder / "models" / _MODEL))
    return Command(f"vLLM {window}", ("env", *_ENVIRONMENT, *vllm, *given, *switches), 30)


async def _wait_until_healthy(child: Child, port: int) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(_START_S):
            if not child.running:
                raise StackError(child.describe_end())
            try:
                async with session.get(f"http://127.0.0.1:{port}/health") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(1)
    raise StackError(f"{child.name} did not become ready.{child.quote_log()}")
