"""Waiting for what other processes do."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], timeout_s: float = 100.0) -> None:
    """Wait until `condition` holds; raises TimeoutError after timeout_s."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)
