"""How late what is read has become."""

import asyncio

import pytest

from extproc.service.turns import FULL_BYTES, Backlog, Turns


@pytest.fixture
def turns(clock):
    return Turns(0.5, clock)


async def turn(turns, clock, seconds, backlog=None):
    """Read of a socket and process it for a time; return whether that was too late."""
    turns.read(backlog or Backlog(clock))
    clock.now += seconds
    late = turns.is_over()
    await asyncio.sleep(0)
    return late


@pytest.mark.parametrize(("seconds", "late"), [(0.4, False), (0.5, False), (0.6, True)])
def test_what_is_read_last_in_a_long_turn_is_late(turns, clock, seconds, late):
    async def main():
        turns.read(Backlog(clock))
        clock.now += seconds
        return await turn(turns, clock, 0)

    assert asyncio.run(main()) is late


def test_what_came_during_the_turn_before_is_as_old_as_that(turns, clock):
    async def main():
        await turn(turns, clock, 0.4)
        return await turn(turns, clock, 0.2)

    assert asyncio.run(main())


def test_what_came_while_the_loop_waited_is_new(turns, clock):
    async def main():
        await turn(turns, clock, 10)
        clock.now += 1
        return await turn(turns, clock, 0.1)

    assert not asyncio.run(main())


def test_a_socket_that_is_never_empty_is_late_alone(turns, clock):
    backlog = Backlog(clock)

    async def main():
        for _ in range(10):
            backlog.read(FULL_BYTES)
            clock.now += 0.1
        behind = await turn(turns, clock, 0, backlog)
        return behind, await turn(turns, clock, 0, Backlog(clock))

    assert asyncio.run(main()) == (True, False)


def test_a_socket_that_was_emptied_is_not_behind(clock):
    backlog = Backlog(clock)

    async def main():
        for size in (FULL_BYTES, FULL_BYTES, FULL_BYTES - 1):
            backlog.read(size)

    asyncio.run(main())
    assert backlog.since is None


def test_a_socket_that_is_found_empty_is_not_behind(clock):
    backlog = Backlog(clock)

    async def main():
        backlog.read(FULL_BYTES)
        await asyncio.sleep(0.01)  # the loop waits for a socket
        clock.now += 10
        backlog.read(FULL_BYTES)
        return backlog.since

    assert asyncio.run(main()) == 10
