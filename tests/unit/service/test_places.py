"""The places of open streams."""

import asyncio

import pytest

from extproc.service.places import Places


class Patience:
    """An asyncio.Timeout as places use it."""

    def __init__(self, *, expired=False):
        self._expired = expired
        self.ended = False

    def expired(self):
        return self._expired

    def reschedule(self, when):
        assert not self._expired
        self.ended = when == 0.0


def filled(places, peer, count, **given):
    held = [Patience(**given) for _ in range(count)]
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


def test_a_stream_that_ends_by_itself_gives_its_place_too():
    places = Places(3)
    filled(places, "a", 3, expired=True)
    assert places.take("b", Patience())


def test_nobody_holds_a_place_where_there_are_none():
    assert not Places(0).take("a", Patience())


def test_a_real_timeout_ends_at_once():
    async def main():
        places = Places(2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60) as patience:
                places.take("a", patience)
                places.take("a", Patience())
                assert places.take("b", Patience())
                await asyncio.sleep(60)

    asyncio.run(main())
