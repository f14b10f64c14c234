"""How the service ends: on a signal, with a notice to Envoy and a bounded drain."""

import asyncio
import logging
import signal
from typing import Any

from extproc.config.addresses import is_of_this_machine
from extproc.config.settings import ListenSettings
from extproc.service.streams import Server

_log = logging.getLogger(__name__)


class Stop:
    """A request to end the service; a second one skips the notice and the drain."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.at_once = asyncio.Event()

    def ask(self) -> None:
        """Ask for the end."""
        (self.at_once if self.asked.is_set() else self.asked).set()

    def ask_at_once(self) -> None:
        """Ask for the end without notice or drain."""
        self.asked.set()
        self.at_once.set()


def stop_on_signals(stop: Stop) -> None:
    """Call `stop.ask` on each SIGTERM and SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)


def log_stopping(listen: ListenSettings) -> None:
    """Log how long the end may take."""
    if is_of_this_machine(listen.grpc):
        _log.info(
            "stopping: serving on for up to %d s, until the answers that are observed have ended, "
            "and for up to %d s more, until what is due is decided; a second signal stops at once",
            listen.notice_s,
            listen.drain_s,
        )
        return
    _log.info(
        "stopping: accepting streams for %d s more, then draining for up to %d s; "
        "a second signal stops at once",
        listen.notice_s,
        listen.drain_s,
    )


async def leave(server: Server, listen: ListenSettings, stop: Stop) -> None:
    """End a server: let replicas take over, or serve to the end where there are none.

    With replicas: report NOT_SERVING for notice_s, then refuse new streams and drain for drain_s.
    """
    if is_of_this_machine(listen.grpc):
        # Nobody takes over: whatever is refused, or not sent here, passes on undecided.
        settled = asyncio.create_task(server.settle(listen.notice_s, listen.drain_s))
        await first_of(stop.at_once, settled)
        settled.cancel()
        await server.drain(0)
        return
    # In this order: Envoy stops choosing this server only after its next health check has failed,
    # and streams that are refused before fail open.
    await server.announce_end()
    await first_of(stop.at_once, timeout_s=listen.notice_s)
    drained = asyncio.create_task(server.drain(listen.drain_s))
    await first_of(stop.at_once, drained)
    if not drained.done():
        await server.drain(0)
    await drained


async def first_of(
    event: asyncio.Event, *work: asyncio.Future[Any], timeout_s: float | None = None
) -> None:
    """Wait until the event is set, any of the work is done, or the time is over."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([waiting, *work], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
