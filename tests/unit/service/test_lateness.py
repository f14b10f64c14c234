"""How late the server answers."""

import asyncio
import logging

import grpc
import pytest

from extproc.service.lateness import PAUSE_S, Lateness, SelfCheck


@pytest.fixture
def lateness(clock):
    return Lateness(0.5, clock)


def answered_after(seconds, clock):
    async def ask():
        clock.now += seconds

    return ask


async def once(lateness, ask):
    task = asyncio.create_task(lateness.measure(ask))
    await asyncio.sleep(PAUSE_S / 2)
    task.cancel()


def test_nothing_is_late_before_the_first_question(lateness):
    assert not lateness.is_over()


@pytest.mark.parametrize(("seconds", "late"), [(0.4, False), (0.5, False), (0.6, True)])
def test_an_answer_is_late_over_the_limit(lateness, clock, seconds, late):
    asyncio.run(once(lateness, answered_after(seconds, clock)))
    assert lateness.is_over() is late


def test_a_question_without_an_answer_is_late_when_its_time_is_over(lateness, clock):
    async def main():
        never = asyncio.Event()
        task = asyncio.create_task(lateness.measure(never.wait))
        await asyncio.sleep(0)
        clock.now = 0.4
        early = lateness.is_over()
        clock.now = 0.6
        late = lateness.is_over()
        task.cancel()
        return early, late

    assert asyncio.run(main()) == (False, True)


def test_the_next_answer_in_time_ends_it(lateness, clock):
    asyncio.run(once(lateness, answered_after(1, clock)))
    asyncio.run(once(lateness, answered_after(0.1, clock)))
    assert not lateness.is_over()


def test_a_question_that_fails_is_the_last(clock):
    async def ask():
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata()
        )

    asyncio.run(asyncio.wait_for(Lateness(1, clock).measure(ask), 60))


def test_without_a_folder_nothing_is_measured(clock, monkeypatch, caplog):
    monkeypatch.setattr("tempfile.tempdir", "/none")

    async def main():
        check = SelfCheck(Lateness(1, clock))
        check.listen(grpc.aio.server())
        check.start()
        await check.stop()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert "cannot measure how late streams are answered" in caplog.text
    assert "set TMPDIR to a folder that this user may write to" in caplog.text
