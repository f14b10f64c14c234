"""The load of a pool from the reports of its servers."""

import pytest

from extproc.routing.load.pool_load import PoolLoad, State, Tracker, describe
from extproc.routing.load.report import Report

EVERY_S = 0.25


def report(
    running: float = 0, waiting: float = 0, finished: float = 0, kv: float = 0, preempted: float = 0
) -> Report:
    return Report(running, waiting, finished, kv, preempted)


def tracker(*servers: str) -> Tracker:
    made = Tracker(["short"], 2.0)
    made.set_servers("short", servers or ("a",))
    return made


def load(of: Tracker, now_s: float = 0.0) -> PoolLoad:
    return of.loads(now_s)["short"]


def steady(of: Tracker, seconds: float, **figures: float) -> PoolLoad:
    """Tell of ten answers a second, for so many seconds; return the load after the last."""
    count = int(seconds / EVERY_S)
    for step in range(count + 1):
        at_s = step * EVERY_S
        of.tell("short", "a", report(finished=10 * at_s, **figures), at_s)
    return load(of, seconds)


def test_nothing_is_known_of_a_pool_before_the_first_report():
    assert load(tracker()).state is State.UNKNOWN
    assert load(Tracker(["short"], 2.0)).state is State.UNKNOWN


def test_requests_of_all_servers_add_up():
    of = tracker("a", "b")
    of.tell("short", "a", report(3, 1, kv=0.2), 0.0)
    of.tell("short", "b", report(5, 2, kv=0.4), 1.0)
    found = load(of, 1.0)
    assert (found.state, found.running, found.waiting, found.known) == (State.KNOWN, 8, 3, 2)
    assert found.kv_usage == pytest.approx(0.3)
    assert found.age_s == 0.5


def test_servers_that_do_not_report_are_taken_to_be_like_the_others():
    of = tracker("a", "b")
    of.tell("short", "a", report(3, 1), 0.0)
    assert (load(of).running, load(of).known, load(of).state) == (6, 1, State.KNOWN)


def test_a_pool_is_unknown_if_fewer_than_half_report():
    of = tracker("a", "b", "c")
    of.tell("short", "a", report(3, 1), 0.0)
    assert load(of).state is State.UNKNOWN


def test_a_report_gets_stale():
    of = tracker()
    of.tell("short", "a", report(3), 0.0)
    assert load(of, 2.0).state is State.KNOWN
    assert load(of, 2.1) == PoolLoad(servers=1)


def test_a_pool_is_down_once_all_of_its_servers_refuse_connections():
    of = tracker("a", "b")
    for server in ("a", "b"):
        of.tell("short", server, report(3), 0.0)
        of.refuse("short", server)
    assert load(of).state is State.KNOWN
    of.refuse("short", "a")
    assert (load(of).state, load(of).running) == (State.KNOWN, 3)
    of.refuse("short", "b")
    assert load(of).state is State.DOWN
    of.tell("short", "b", report(), 1.0)
    assert load(of, 1.0).state is State.KNOWN


def test_a_server_that_has_never_reported_is_not_down():
    of = tracker()
    for _ in range(9):
        of.refuse("short", "a")
    assert load(of).state is State.UNKNOWN


def test_servers_that_left_are_forgotten_and_the_others_are_kept():
    of = tracker("a", "b")
    of.tell("short", "a", report(3), 0.0)
    of.set_servers("short", ["a", "c"])
    of.tell("short", "b", report(9), 0.0)
    of.refuse("short", "b")
    assert (load(of).servers, load(of).running) == (2, 6)


def test_what_comes_and_what_is_answered_is_counted_per_second():
    found = steady(tracker(), 10.0, running=4)
    assert found.arrivals == pytest.approx(10)
    assert found.rate == pytest.approx(10)


def test_a_queue_that_grows_counts_as_arrivals():
    of = tracker()
    of.tell("short", "a", report(4, 0), 0.0)
    of.tell("short", "a", report(4, 5), 1.0)
    of.tell("short", "a", report(4, 2), 2.0)  # three were aborted
    assert load(of, 2.0).arrivals == pytest.approx(2.5, rel=0.1)


def test_a_queue_empties_by_what_starts_and_not_by_what_ends():
    of = tracker()
    for step in range(9):
        of.tell("short", "a", report(running=10 * step, waiting=30), step * 1.0)
    assert load(of, 8.0).rate == pytest.approx(10, rel=0.1)


def test_a_rate_is_above_zero_though_nothing_is_answered():
    of = tracker()
    of.tell("short", "a", report(), 0.0)
    of.tell("short", "a", report(), 1.0)
    assert load(of, 1.0).rate > 0


def test_a_lasting_queue_shows_how_many_requests_run_at_once():
    found = steady(tracker(), 2.0, running=32, waiting=20)
    assert found.room == 32


def test_requests_that_only_wait_for_the_next_iteration_do_not():
    assert steady(tracker(), 2.0, running=32, waiting=1).room == 0


def test_a_queue_while_more_and_more_run_does_not():
    of = tracker()
    for step in range(9):
        of.tell("short", "a", report(running=10 * step, waiting=30), step * EVERY_S)
    assert load(of, 2.0).room == 0


def test_more_that_run_than_ever_before_show_that_there_is_room_for_them():
    of = tracker()
    steady(of, 2.0, running=32, waiting=20)
    of.tell("short", "a", report(running=40, finished=20), 2.25)
    assert load(of, 2.25).room == 40


def test_the_room_of_a_pool_is_known_if_that_of_all_its_servers_is():
    of = tracker("a", "b")
    of.tell("short", "b", report(), 2.0)
    assert steady(of, 2.0, running=32, waiting=20).room == 0


def test_preemptions_are_counted_per_second():
    of = tracker()
    of.tell("short", "a", report(preempted=5), 0.0)
    of.tell("short", "a", report(preempted=8), 1.0)
    assert load(of, 1.0).preemptions == pytest.approx(3)


def test_what_is_known_of_a_server_ends_with_its_restart():
    of = tracker()
    steady(of, 2.0, running=32, waiting=20)
    of.tell("short", "a", report(running=1, finished=1), 3.0)
    found = load(of, 3.0)
    assert (found.room, found.arrivals, found.running) == (0, 0, 1)


def test_a_report_that_is_not_newer_is_left():
    of = tracker()
    of.tell("short", "a", report(3), 1.0)
    of.tell("short", "a", report(9), 1.0)
    assert load(of, 1.0).running == 3


def test_what_is_unknown_is_shown_without_figures():
    assert describe(PoolLoad(servers=2)) == {"state": "unknown", "servers": 2, "reporting": 0}
    assert describe(PoolLoad(servers=1, known=1, running=3.0004))["running"] == 3.0
