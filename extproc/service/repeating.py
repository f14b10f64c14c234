"""Work that is repeated while the service runs, and that nothing else depends on."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

_log = logging.getLogger(__name__)


@asynccontextmanager
async def repeating(work: Callable[[], None], every_s: float) -> AsyncIterator[None]:
    """Call `work` every so many seconds within this context; an error of it ends the calls."""
    task = asyncio.create_task(_repeat(work, every_s))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _repeat(work: Callable[[], None], every_s: float) -> None:
    try:
        while True:
            await asyncio.sleep(every_s)
            work()
    except Exception:  # noqa: BLE001 - a fault of the page must not end the service
        _log.exception("the page's figures stay as they are")
