"""Replicas that share what they learn through a store that fails."""

import asyncio
import random
import re
import time
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from extproc.budget.values import Asked, Observation, Outcome
from extproc.service import shared_state as module
from extproc.service.journal import Journal
from extproc.service.shared_state import SharedState, Stored, StoreError
from extproc.state import log as log_module
from extproc.state.snapshot import fingerprint, take
from extproc.stream.metrics import SharedMetrics
from tests.support.answers import paper_estimator, small_learner, sound_answers
from tests.support.memory_store import Connection, MemoryStore
from tests.support.waiting import until

MARK = fingerprint("paper")
ASKED = next(sound_answers(1, 1)).asked
SEEN = [
    Observation(Asked("m", "prose", ASKED.measure, None), Outcome.COMPLETE, 4096, 10 + tokens, 5)
    for tokens in range(300)
]
"""Of one category: the samples of its ratio are their number, and its mean tells their order."""


def paper_learner():
    return small_learner(paper_estimator())


class Replica:
    """One replica; `learnt` lists what it was taught since it was last loaded."""

    def __init__(self, store, clock, build=paper_learner) -> None:
        self.learner, self.registry = build(), CollectorRegistry()
        self.journal = Journal(self.learner, lambda: None)
        self.connection = Connection(store)
        metrics = SharedMetrics(self.registry)
        self.state = SharedState(self.connection, self.journal, lambda: MARK, build, metrics, clock)

    async def cycle(self):
        try:
            await self.state.cycle()
        except StoreError as error:
            self.state._note_fault(error)
        await self.state._drift_if_alone()

    @property
    def held(self):
        return take(self.learner).digest, self.state.log.marks

    def figure(self, name, **labels):
        return self.registry.get_sample_value(f"dualpool_state_{name}", labels)


class Fleet:
    """Replicas at one store, at a time that the test sets."""

    def __init__(self, replicas=3) -> None:
        self.store, self.now, self.numbers = MemoryStore(), 0.0, count(1)
        self.replicas = [Replica(self.store, self.clock) for _ in range(replicas)]

    def clock(self):
        return self.now

    def observe(self, index, number=1):
        for _ in range(number):
            self.replicas[index].state.observe(SEEN[next(self.numbers) % len(SEEN)])

    async def cycle(self, times=1):
        for _ in range(times):
            for replica in self.replicas:
                await replica.cycle()
            self.now += 0.5

    async def settle(self):
        for replica in self.replicas:
            replica.connection.faults = None
        for _ in range(3):
            await self.cycle(20)
            self.now += 100.0
        await self.cycle(10)


def reference(seen):
    learner = paper_learner()
    for each in seen:
        learner.learn(each)
    return take(learner).digest


def test_replicas_hold_what_one_would_that_read_the_log():
    async def main():
        fleet = Fleet()
        await fleet.cycle(20)
        for index in (0, 1, 2):
            fleet.observe(index, 30)
        await fleet.cycle(20)
        log = [each for each in fleet.store.log if each[1]]
        assert len({replica.held for replica in fleet.replicas}) == 1
        in_order = []
        reader = log_module.Log(lambda: b"\0" * 8)
        for position, content in log:
            action = reader.step(position, content)
            in_order += action if isinstance(action, tuple) else ()
        assert len(in_order) == 90
        assert fleet.replicas[0].held[0] == reference(in_order)
        await fleet.settle()
        assert [r.state.describe()["replicas"] for r in fleet.replicas] == [3, 3, 3]
        assert all(r.state.describe()["agree"] for r in fleet.replicas)

    asyncio.run(main())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(10, 60))
def test_nothing_is_lost_or_counted_twice(seed, steps):
    draw = random.Random(seed)

    async def main():
        fleet = Fleet()
        for replica in fleet.replicas:
            replica.connection.faults = draw
        observed, copied = 0, fleet.store.copy()
        await fleet.cycle(20)
        for _ in range(steps):
            match draw.randrange(13):
                case 12:
                    fleet.store.arrive()
                case 0:
                    fleet.store.trim()
                case 1 if draw.random() < 0.3:
                    fleet.store.flush()
                case 2:
                    fleet.store.fail_over(copied)
                case 3:
                    copied = fleet.store.copy()
                case 4:
                    draw.choice(fleet.replicas).state.log.propose()
                case 5:
                    fleet.now += draw.choice((1.0, 10.0, 100.0))
                case 6 | 7:
                    await fleet.cycle()
                case 8:
                    await draw.choice(fleet.replicas).cycle()
                case _:
                    number = draw.randrange(1, 20)
                    observed += number
                    fleet.observe(draw.randrange(3), number)
        await fleet.settle()
        assert len({replica.held for replica in fleet.replicas}) == 1
        assert all(replica.state.log.pending == 0 for replica in fleet.replicas)
        assert all(replica.state.log.agrees for replica in fleet.replicas)
        return fleet, observed

    fleet, observed = asyncio.run(main())
    assert answered(fleet.replicas[0].learner) == observed


def answered(learner):
    return sum(row["samples"] for row in learner.learnt().categories.values())


def test_replicas_that_are_killed_lose_what_they_had_not_appended_alone():
    async def main():
        fleet = Fleet()
        await fleet.cycle(20)
        draw, lost, observed = random.Random(1), 0, 0
        for _ in range(20):
            for index in range(3):
                fleet.replicas[index].connection.faults = draw
                fleet.observe(index, 10)
                observed += 10
            await fleet.cycle(draw.randrange(3))
            index = draw.randrange(3)
            lost += fleet.replicas[index].state.log.pending
            fleet.replicas[index] = Replica(fleet.store, fleet.clock)
        await fleet.settle()
        assert len({replica.held for replica in fleet.replicas}) == 1
        # Some of what it did not know to be appended was.
        assert observed - lost <= answered(fleet.replicas[0].learner) <= observed

    asyncio.run(main())


def test_a_snapshot_that_cannot_be_used_is_replaced_in_time():
    async def main():
        fleet = Fleet(1)
        [replica] = fleet.replicas
        await fleet.cycle(20)
        fleet.observe(0, 5)
        await fleet.cycle(5)
        fleet.store.snapshot = Stored(fleet.store.log[-1][0], b"\x80", b"broken")
        replica.state.log.lose_place()
        await fleet.cycle(20)
        assert replica.figure("unusable_total", fault="corrupt") == 20
        await fleet.settle()
        assert answered(replica.learner) == 5

    asyncio.run(main())


def test_one_that_differs_loads_the_stored_snapshot():
    async def main():
        fleet = Fleet(2)
        one, other = fleet.replicas
        await fleet.cycle(20)
        other.learner.learn(SEEN[0])  # as a faulty machine might
        one.state.log.propose()
        await fleet.cycle(3)
        assert one.held == other.held
        assert other.figure("reloads_total", reason="diverged") == 1

    asyncio.run(main())


def test_one_with_other_windows_has_all_compare_what_they_hold_at_once_and_again():
    async def main():
        fleet = Fleet(2)
        one, other = fleet.replicas
        await fleet.cycle(20)
        other.learner.learn(SEEN[0])  # as it might between two moments of a change
        other.state.retuned()
        await fleet.cycle(6)
        assert one.held == other.held
        assert one.figure("reloads_total", reason="diverged") == 1
        assert not one.state.log.agrees
        await fleet.cycle(24)  # 12 s
        assert one.state.log.agrees

    asyncio.run(main())


def test_a_snapshot_that_was_decoded_for_other_windows_is_decoded_again():
    async def main():
        fleet = Fleet(1)
        await fleet.cycle(20)
        built = list[object]()

        def build():
            built.append(None)
            if len(built) == 1:
                joining.state.retuned()
            return paper_learner()

        joining = Replica(fleet.store, fleet.clock)
        joining.state._build = build
        await joining.cycle()
        assert joining.state.log.position is None
        await joining.cycle()
        assert joining.state.log.position is not None
        assert len(built) == 2

    asyncio.run(main())


def test_what_is_too_large_is_not_stored(monkeypatch):
    async def main():
        fleet = Fleet(1)
        [replica] = fleet.replicas
        await fleet.cycle(20)
        monkeypatch.setattr(module, "MOST_BYTES", 10)
        before = fleet.store.snapshot
        replica.state.log.propose()
        await fleet.cycle(3)
        assert replica.figure("snapshots_total", outcome="too_large") == 1
        assert fleet.store.snapshot == before

    asyncio.run(main())


def test_the_figures_and_the_number_of_replicas_are_told(monkeypatch):
    monkeypatch.setattr(log_module, "FRESH_S", 0.0)

    async def main():
        store, told = MemoryStore(), []
        one, other = (Replica(store, time.monotonic) for _ in range(2))
        one.state.on_replicas = told.append
        async with one.state.sharing(), other.state.sharing():
            one.state.observe(SEEN[0])
            await until(lambda: answered(other.learner) == 1)
            await until(lambda: told[-1] == 2)
            assert one.figure("connected") == 1
            one.state.observe(SEEN[1])
        assert answered(one.learner) + answered(other.learner) in {3, 4}
        assert sum(one.state.log._marks.origins.values()) == 2  # appended while it left

    asyncio.run(main())


def test_a_bug_does_not_end_the_service(monkeypatch, caplog):
    monkeypatch.setattr(module, "LEAVE_S", 0.2)

    async def main():
        replica = Replica(MemoryStore(), time.monotonic)

        async def broken():
            raise RuntimeError("a bug")

        replica.connection.find = broken
        async with replica.state.sharing():
            pass

    asyncio.run(main())
    assert caplog.text.count("RuntimeError: a bug") == 2


def test_a_store_that_is_away_is_logged_once_and_so_is_its_return(monkeypatch, caplog):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    monkeypatch.setattr(module, "LEAVE_S", 0.2)
    caplog.set_level("INFO")

    async def main():
        replica = Replica(MemoryStore(), time.monotonic)
        replica.connection.faults = AlwaysFailing()
        async with replica.state.sharing():
            await asyncio.sleep(0.2)
            replica.connection.faults = None
            await until(lambda: "answers again" in caplog.text)

    asyncio.run(main())
    assert caplog.text.count("going on from memory") == 1
    assert re.search("the store answers again, after [0-9]+ failures", caplog.text)


class AlwaysFailing(random.Random):
    def random(self):
        return 0.0


def test_a_store_that_stays_away_is_not_connected():
    async def main():
        fleet = Fleet(1)
        await fleet.cycle(20)
        [one] = fleet.replicas
        assert one.state.describe()["connected"]
        one.connection.faults = AlwaysFailing()
        one.state.observe(SEEN[0])
        await fleet.cycle(4)
        assert not one.state.describe()["connected"]
        assert not one.state.describe()["agree"]
        fleet.now += 60.0
        await fleet.cycle()
        assert one.state.describe()["pending"] == 1  # learnt, and not in the log
        await fleet.settle()
        assert one.state.describe()["pending"] == 0
        assert one.state.describe()["connected"]

    asyncio.run(main())
