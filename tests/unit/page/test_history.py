"""The last hour of counters."""

from extproc.page.history import MOST_KEYS, POINTS, STEP_S, History


def test_all_counters_were_0_at_the_start():
    history = History(100.0)
    assert history.before(0.0) == {}
    assert history.times == [100.0]


def test_a_counter_that_is_new_was_0_before():
    history = History(0.0)
    history.add(10.0, {"a": 1.0})
    history.add(20.0, {"a": 2.0, "b": 3.0})
    assert history.before(15.0) == {"a": 1.0}
    assert history.sums("b") == [0, 0, 3]


def test_before_is_the_newest_point_that_is_old_enough():
    history = History(0.0)
    for at in (10.0, 20.0, 30.0):
        history.add(at, {"a": at})
    assert history.before(25.0) == {"a": 20.0}
    assert history.before(30.0) == {"a": 30.0}


def test_an_hour_is_kept():
    history = History(0.0)
    for i in range(1, 1000):
        history.add(i * STEP_S, {"a": float(i)})
    assert len(history.times) == POINTS
    assert history.newest - history.times[0] == 3600
    # Older than all: the oldest counts.
    assert history.before(0.0) == {"a": 999.0 - 360}


def test_the_number_of_counters_is_bounded():
    history = History(0.0)
    history.add(10.0, {f"k{i}": 1.0 for i in range(2 * MOST_KEYS)})
    assert len(history.before(10.0)) == MOST_KEYS
