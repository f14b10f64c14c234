"""The service's rule with spill, in a simulated fleet."""

import pytest

from extproc.config.settings import Settings
from extproc.planner.simulation.fleet import FleetSpec
from extproc.planner.simulation.records import Fate, Records
from extproc.planner.simulation.rules import RuleName, make_rule
from extproc.planner.simulation.run import Conduct, simulate
from extproc.planner.simulation.spilling import Reporting, Spilling
from tests.support.small_fleets import incoming, pool

FLEET = FleetSpec((pool("short", 2048), pool("long", 16384, instances=2)))
OVERLOAD = [(0.15, 20, 80)] * 200


PROMPT = Reporting()


def run(reporting: Reporting = PROMPT) -> tuple[Records, Spilling]:
    rule = Spilling(FLEET.routing(), Settings(), 0, reporting)
    arrivals = incoming(OVERLOAD, max_tokens=128)
    return simulate(FLEET, arrivals, rule, Conduct(), watch=rule.watch), rule


def worst_s(records: Records) -> float:
    return float(records.ttft_s.max())


def without() -> Records:
    return simulate(
        FLEET,
        incoming(OVERLOAD, max_tokens=128),
        make_rule(RuleName.DUALPOOL, FLEET, 0),
        Conduct(),
    )


def test_an_overloaded_pool_is_relieved_by_one_that_is_not():
    records, rule = run()
    assert 0 < sum(rule.moved) < len(OVERLOAD)
    assert worst_s(records) < worst_s(without()) / 2


@pytest.mark.parametrize("late_s", [0.5, 1.0])
def test_late_reports_to_many_replicas_relieve_it_too(late_s):
    records, _ = run(Reporting(replicas=20, delay_s=late_s))
    assert worst_s(records) < worst_s(without())


def test_without_reports_nothing_moves():
    records, rule = run(Reporting(garble=lambda pool, report: None))
    assert sum(rule.moved) == 0
    assert worst_s(records) == worst_s(without())


def test_what_moves_at_once_is_more_than_what_is_drawn():
    (_, drawn), (_, at_once) = (
        run(Reporting(replicas=20, delay_s=1.0, at_once=each)) for each in (False, True)
    )
    assert sum(at_once.moved) > sum(drawn.moved)


def test_no_request_that_moved_exceeds_its_window():
    records, rule = run()
    assert {Fate(f) for f, moved in zip(records.fate, rule.moved, strict=True) if moved} == {
        Fate.COMPLETED
    }


def test_a_conversation_stays_where_its_first_request_went():
    arrivals = [
        each._replace(prefix=(number % 40,))
        for number, each in enumerate(incoming(OVERLOAD, max_tokens=128))
    ]

    def pools_of_each(conversations):
        rule = Spilling(FLEET.routing(), Settings(), 0, Reporting(conversations=conversations))
        records = simulate(FLEET, arrivals, rule, Conduct(), watch=rule.watch)
        return [set(records.pool[number::40].tolist()) for number in range(40)]

    assert any(len(pools) > 1 for pools in pools_of_each(0))
    assert all(len(pools) == 1 for pools in pools_of_each(40))
