"""The last hour of live services."""

import json

import pytest

from extproc.planner_commands.live import read_hour
from tests.unit.planner_commands.test_inputs import serving

NOW = {
    "seconds": 3600.0,
    "judged": 50,
    "misrouted": 2,
    "pools": [
        {"name": "short", "reasons": {"fits": 80.0, "spill": 1.0}},
        {"name": "long", "reasons": {"budget": 20.0}},
    ],
    "rate": 0.03,
}
RATES = {"short": [0.0] * 10 + [1.0] * 6, "long": [0.5] * 16}


def events(now: object = NOW, rates: object = RATES, *, before: str = "") -> bytes:
    hour = {"times": [], "pools": rates, "misrouted": []}
    sent = f"event: now\ndata: {json.dumps(now)}\n\nevent: hour\ndata: {json.dumps(hour)}\n\n"
    return (before + sent).encode()


def hour(*bodies: bytes):
    if not bodies:
        return read_hour(())
    first, *rest = bodies
    with serving(first, "/page/events") as address:
        if rest:
            with serving(rest[0], "/page/events") as other:
                return read_hour((address, f"{other}/lengths"))
        return read_hour((address,))


def test_the_decisions_of_the_hour_are_counted_by_pool():
    found = hour(events())
    assert found.by_pool == {"short": 81, "long": 20}
    assert (found.requests, found.misrouted, found.judged) == (101, 2, 50)
    assert found.mean_per_s == pytest.approx(101 / 3600)


def test_the_busiest_minute_is_six_points_of_the_series():
    assert hour(events()).busiest_per_s == 1.5
    assert hour(events(rates={"short": [3.0, 1.0]})).busiest_per_s == 2.0
    assert hour(events(rates={})).busiest_per_s == 0


def test_replicas_are_added_up():
    found = hour(events(), events({**NOW, "seconds": 60.0}))
    assert found.by_pool == {"short": 162, "long": 40}
    assert (found.seconds, found.busiest_per_s, found.judged) == (3600, 3.0, 100)


def test_other_events_are_passed_over():
    assert hour(events(before="event: learnt\ndata: {}\n\n: comment\n")).requests == 101


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"event: now\ndata: {}\n\n",
        events({**NOW, "seconds": 0}),
        events({**NOW, "pools": []}),
        events({"pools": "?"}),
        events(before="\n" * 100),
        b"data: " + b"x" * (1 << 23),
    ],
)
def test_what_is_no_hour_is_none(body):
    assert hour(body) is None


def test_a_service_that_does_not_tell_leaves_none():
    with serving(b"", "/lengths") as address:
        assert read_hour((address,)) is None
