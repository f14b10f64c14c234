"""What the comparison needs of a folder with vLLM."""

import asyncio
from pathlib import Path

import pytest

from extproc.local.children import StackError
from extproc.profiling.starting import start_pools


def start(folder: Path | None) -> None:
    async def enter() -> None:
        async with start_pools(folder):
            raise AssertionError("started")

    asyncio.run(enter())


@pytest.mark.parametrize("folder", [None, Path("nowhere")])
def test_a_folder_without_vllm_is_named_with_what_to_set(folder):
    with pytest.raises(StackError, match=r"no venv/bin/vllm; set DUALPOOL_VLLM"):
        start(folder)
