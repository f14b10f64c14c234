"""The places of open streams."""

import asyncio

import pytest

from extproc.service.grpc_server import TimedPatience
from extproc.service.h2_calls import Deadline
from extproc.service.places import Places


class Patience:
    """The patience of a stream that says nothing."""

    def __init__(self):
        self.ended = False

    def end(self):
        self.ended = True


def filled(places, peer, count):
    held = [Patience() for _ in range(count)]
    assert all(places.take(peer, each) for each in held)
    return held


def test_a_full_house_refuses_a_peer_alone():
    places = Places(2)
    held = filled(places, "a", 2)
    assert not places.take("a", Patience())
    assert not any(each.ended for each in held)


def test_a_newcomer_gets_the_oldest_place_of_who_holds_most():
    places = Places(5)
    few, many = filled(places, "b", 1), filled(places, "a", 4)
    assert places.take("c", Patience())
    assert [each.ended for each in many] == [True, False, False, False]
    assert not few[0].ended


@pytest.mark.parametrize(("held", "taken"), [(3, 1), (10, 5), (11, 5)])
def test_peers_end_up_with_equal_shares(held, taken):
    places = Places(held)
    filled(places, "a", held)
    got = 0
    while places.take("b", Patience()):
        got += 1
    assert got == taken


def test_a_place_that_was_left_is_free():
    places = Places(1)
    [one] = filled(places, "a", 1)
    places.leave("a", one)
    places.leave("a", one)
    assert places.take("b", Patience())
    assert not places.take("a", Patience())


def test_nobody_holds_a_place_where_there_are_none():
    assert not Places(0).take("a", Patience())


def test_a_stream_that_lost_its_place_ends_though_it_goes_on():
    deadline = Deadline(60.0)
    deadline.end()
    deadline.reschedule(None)
    assert deadline.at < 0.0


def test_a_call_that_lost_its_place_ends_though_it_goes_on():
    async def main():
        async with asyncio.timeout(60) as timeout:
            patience = TimedPatience(timeout)
            patience.end()
            patience.reschedule(None)
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        asyncio.run(main())


def test_a_call_whose_time_is_over_may_lose_its_place_too():
    async def main():
        async with asyncio.timeout(0.0) as timeout:
            try:
                await asyncio.sleep(60)
            finally:
                TimedPatience(timeout).end()

    with pytest.raises(TimeoutError):
        asyncio.run(main())
