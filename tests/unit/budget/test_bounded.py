"""A map that cannot be thrashed."""

from hypothesis import given
from hypothesis import strategies as st

from extproc.budget.bounded import IDLE, BoundedMap


def touched(most, keys):
    given = BoundedMap(most)
    for key in keys:
        if given.has_room(key):
            given.touch(key, key.upper())
    return given


def test_keys_that_take_turns_do_not_push_each_other_out():
    given = touched(2, "abc" * 100)
    assert [given.get(key) for key in "abc"] == ["A", "B", None]
    assert given.evicted == 0


def test_a_key_is_evicted_once_it_is_idle():
    given = touched(2, "ab" + "b" * (2 * IDLE + 1) + "c")
    assert [key for key, _ in given.items()] == ["b", "c"]
    assert given.evicted == 1


def test_a_key_is_not_idle_before():
    assert touched(2, "ab" + "b" * (2 * IDLE - 1) + "c").get("c") is None


def test_a_touch_names_what_it_evicted():
    given = touched(1, "a" * (IDLE + 2))
    assert given.touch("b", "B") == "a"
    assert given.touch("b", "B") is None


def test_a_dropped_key_makes_room():
    given = touched(1, "a")
    given.drop("a")
    assert given.has_room("b")


@given(st.lists(st.sampled_from("abcdefgh"), max_size=300), st.integers(1, 4))
def test_it_never_keeps_more_than_its_bound(keys, most):
    assert len(list(touched(most, keys).items())) <= most


def test_a_smaller_map_evicts_what_was_touched_first():
    given = touched(3, "abca")
    assert given.resize(1) == ["b", "c"]
    assert [key for key, _ in given.items()] == ["a"]
    assert given.evicted == 2


def test_a_larger_map_has_room():
    given = touched(1, "a")
    assert given.resize(2) == []
    assert given.has_room("b")
