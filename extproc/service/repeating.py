"""Work that goes on beside the service, and that nothing else depends on."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress

_log = logging.getLogger(__name__)


@asynccontextmanager
async def beside(*works: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Run coroutines within this context, and cancel them at its end."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def repeating(work: Callable[[], None], every_s: float) -> AsyncIterator[None]:
    """Call `work` every so many seconds within this context; an error of it ends the calls."""
    async with beside(_repeat(work, every_s)):
        yield


async def _repeat(work: Callable[[], None], every_s: float) -> None:
    try:
        while True:
            await asyncio.sleep(every_s)
            work()
    except Exception:  # noqa: BLE001 - a fault of it must not end the service
        _log.exception("%s is not called any more", work.__qualname__)
