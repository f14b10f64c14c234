"""The places of open streams."""

import math

import pytest

from extproc.service.places import Deadline, Places


def patient():
    return Deadline(math.inf)


def ended(deadline):
    return deadline.at < 0.0


def filled(places, peer, count):
    held = [patient() for _ in range(count)]
    assert all(places.take(peer, each) for each in held)
    return held


def test_a_full_house_refuses_a_peer_alone():
    places = Places(2)
    held = filled(places, "a", 2)
    assert not places.take("a", patient())
    assert not any(ended(each) for each in held)


def test_a_newcomer_gets_the_oldest_place_of_who_holds_most():
    places = Places(5)
    few, many = filled(places, "b", 1), filled(places, "a", 4)
    assert places.take("c", patient())
    assert [ended(each) for each in many] == [True, False, False, False]
    assert not ended(few[0])


@pytest.mark.parametrize(("held", "taken"), [(3, 1), (10, 5), (11, 5)])
def test_peers_end_up_with_equal_shares(held, taken):
    places = Places(held)
    filled(places, "a", held)
    got = 0
    while places.take("b", patient()):
        got += 1
    assert got == taken


def test_a_place_that_was_left_is_free():
    places = Places(1)
    [one] = filled(places, "a", 1)
    places.leave("a", one)
    places.leave("a", one)
    assert places.take("b", patient())
    assert not places.take("a", patient())


def test_nobody_holds_a_place_where_there_are_none():
    assert not Places(0).take("a", patient())


def test_a_stream_that_lost_its_place_ends_though_it_goes_on():
    deadline = Deadline(60.0)
    deadline.end()
    deadline.reschedule(None)
    assert ended(deadline)
