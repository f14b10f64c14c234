"""How the service ends."""

import asyncio
import os
import signal

import pytest

from extproc.config.settings import ListenSettings
from extproc.service.stopping import Stop, first_of, leave, log_stopping, stop_on_signals


class Draining:
    """A server that notes what it is asked for; drains take as long as they may."""

    def __init__(self):
        self.asked = []
        self._end = asyncio.Event()

    async def announce_end(self):
        self.asked.append("announce")

    async def settle(self, answers_s, decisions_s):
        self.asked.append((answers_s, decisions_s))
        await self._end.wait()

    async def drain(self, seconds):
        self.asked.append(seconds)
        if seconds == 0:
            self._end.set()
        await self._end.wait()


def test_the_second_request_is_to_stop_at_once():
    stop = Stop()
    stop.ask()
    assert (stop.asked.is_set(), stop.at_once.is_set()) == (True, False)
    stop.ask()
    assert stop.at_once.is_set()


def test_stopping_at_once_is_stopping():
    stop = Stop()
    stop.ask_at_once()
    assert stop.asked.is_set()
    assert stop.at_once.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_for_the_end(number):
    async def main():
        stop = Stop()
        stop_on_signals(stop)
        os.kill(os.getpid(), number)
        async with asyncio.timeout(10):
            await stop.asked.wait()
        return stop.at_once.is_set()

    assert asyncio.run(main()) is False


def replica(**seconds):
    """Return the settings of one of several replicas."""
    return ListenSettings(grpc="0.0.0.0:50051", **seconds)


def left(listen, *, at_once):
    async def main():
        stop, server = Stop(), Draining()
        stop.ask()
        leaving = asyncio.create_task(leave(server, listen, stop))
        if at_once:
            await asyncio.sleep(0)
            stop.ask()
        else:
            asyncio.get_running_loop().call_later(0.05, stop.ask)
        async with asyncio.timeout(10):
            await leaving
        return server.asked

    return asyncio.run(main())


def test_a_second_request_in_the_notice_skips_the_drain():
    assert left(replica(notice_s=600, drain_s=600), at_once=True) == ["announce", 600, 0]


def test_a_second_request_in_the_drain_cuts_it_short():
    assert left(replica(notice_s=0, drain_s=600), at_once=False) == ["announce", 600, 0]


def test_a_drain_that_is_done_ends_it():
    assert left(replica(notice_s=0, drain_s=0), at_once=False) == ["announce", 0]


@pytest.mark.parametrize("grpc", ["127.0.0.1:50051", "unix:/run/dualpool/s"])
def test_a_service_without_replicas_settles_and_gives_no_notice(grpc):
    listen = ListenSettings(grpc=grpc, notice_s=3, drain_s=30)
    assert left(listen, at_once=False) == [(3, 30), 0]


def test_work_that_ends_first_ends_the_wait():
    async def main():
        event = asyncio.Event()
        done = asyncio.create_task(asyncio.sleep(0))
        await first_of(event, done)
        return done.done(), event.is_set()

    assert asyncio.run(main()) == (True, False)


def test_the_wait_ends_with_its_time():
    async def main():
        never = asyncio.create_task(asyncio.sleep(60))
        await first_of(asyncio.Event(), never, timeout_s=0)
        return never.cancel()

    assert asyncio.run(main())


def test_the_log_says_how_long_it_takes(caplog):
    with caplog.at_level("INFO"):
        log_stopping(replica(notice_s=3, drain_s=30))
    assert caplog.messages == [
        "stopping: accepting streams for 3 s more, then draining for up to 30 s; "
        "a second signal stops at once"
    ]


def test_the_log_says_how_long_a_service_without_replicas_takes(caplog):
    with caplog.at_level("INFO"):
        log_stopping(ListenSettings(notice_s=3, drain_s=30))
    assert caplog.messages == [
        "stopping: serving on for up to 3 s, until the answers that are observed have ended, "
        "and for up to 30 s more, until what is due is decided; a second signal stops at once"
    ]
