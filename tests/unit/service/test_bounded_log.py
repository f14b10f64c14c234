"""Logging at a bounded rate."""

import logging

import pytest

from extproc.service.bounded_log import MOST_LINES, PERIOD_S, BoundedLog, BoundedRecords


@pytest.fixture
def log(clock):
    return BoundedLog(logging.getLogger("bounded"), logging.WARNING, clock)


def test_a_period_has_at_most_so_many_lines(log, caplog):
    for number in range(1000):
        log.write("fault %d", number)
    assert caplog.messages == [f"fault {number}" for number in range(MOST_LINES)]


def test_the_next_period_begins_with_how_many_were_left_out(log, clock, caplog):
    for _ in range(MOST_LINES + 3):
        log.write("fault")
    clock.now = PERIOD_S
    log.write("late")
    assert caplog.messages[MOST_LINES:] == ["3 more lines like the last were not logged", "late"]


def test_nothing_is_said_of_a_period_that_was_logged_whole(log, clock, caplog):
    log.write("one")
    clock.now = PERIOD_S
    log.write("two")
    assert caplog.messages == ["one", "two"]


def test_the_traceback_is_logged(log, caplog):
    log.write("failed", error=ValueError("a bug"))
    assert "ValueError: a bug" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_a_log_may_have_fewer_lines(clock, caplog):
    log = BoundedLog(logging.getLogger("bounded"), logging.WARNING, clock, most=1)
    for clock.now in (0.0, 30.0, PERIOD_S):
        log.write("fault at %d", clock.now)
    left_out = "1 more lines like the last were not logged"
    assert caplog.messages == ["fault at 0", left_out, f"fault at {PERIOD_S:.0f}"]


def test_the_lines_of_another_logger_are_bounded_in_each_period(clock, caplog, request):
    log, bound = logging.getLogger("of another"), BoundedRecords(clock)
    log.addFilter(bound)
    request.addfinalizer(lambda: log.removeFilter(bound))
    for _ in range(MOST_LINES + 3):
        log.error("fault")
    assert len(caplog.records) == MOST_LINES
    clock.now = PERIOD_S
    log.error("late")
    assert caplog.messages[MOST_LINES:] == ["late"]
