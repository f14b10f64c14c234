"""What is learnt in one order, and held back while a snapshot is taken."""

import asyncio

import pytest

from extproc.budget.learner import Learner
from extproc.service import journal as module
from extproc.service.journal import Journal
from extproc.state.snapshot import take
from tests.support.answers import answers, small_learner

SEEN = list(answers(1, 40))


class Given:
    def __init__(self) -> None:
        self.learner, self.lost, self.told = small_learner(), [], []
        self.journal = Journal(self.learner, lambda: self.lost.append(1), self.told.append)


@pytest.fixture
def given():
    return Given()


def reference(seen):
    learner = small_learner()
    for each in seen:
        learner.learn(each)
    return take(learner)


def test_it_learns_at_once_and_tells(given):
    given.journal.apply(SEEN[0])
    assert given.told == SEEN[:1]
    assert given.journal.changes == 1


def test_what_comes_during_a_snapshot_is_learnt_after_it(given):
    async def main():
        for seen in SEEN[:20]:
            given.journal.apply(seen)
        async with given.journal.held():
            for seen in SEEN[20:]:
                given.journal.apply(seen)
            snapshot = await given.journal.take()
            assert given.journal.changes == 20
        return snapshot

    assert asyncio.run(main()) == reference(SEEN[:20])
    assert take(given.learner) == reference(SEEN)
    assert given.told == SEEN


def test_what_was_held_back_is_learnt_in_slices(given, monkeypatch):
    monkeypatch.setattr(module, "SLICE_S", 0.0)

    async def main():
        async with given.journal.held():
            given.journal.apply(SEEN[0])
            given.journal.apply(SEEN[1])

    asyncio.run(main())
    assert given.told == SEEN[:2]


def test_what_was_held_back_is_learnt_though_its_holder_is_cancelled(given, monkeypatch):
    monkeypatch.setattr(module, "SLICE_S", 0.0)

    async def hold(taken):
        async with given.journal.held():
            await taken.wait()

    async def main():
        taken = asyncio.Event()
        holder = asyncio.create_task(hold(taken))
        await asyncio.sleep(0)
        for seen in SEEN[:5]:
            given.journal.apply(seen)
        taken.set()
        while not given.told:
            await asyncio.sleep(0)
        holder.cancel()
        await asyncio.wait([holder])
        given.journal.apply(SEEN[5])

    asyncio.run(main())
    assert given.told == SEEN[:6]


def test_another_change_keeps_its_place(given):
    async def main():
        async with given.journal.held():
            given.journal.apply(SEEN[0])
            given.journal.run(lambda: given.told.append("changed"))
            given.journal.apply(SEEN[1])
        given.journal.run(lambda: given.told.append("changed"))

    asyncio.run(main())
    assert given.told == [SEEN[0], "changed", SEEN[1], "changed"]
    assert given.journal.changes == 2


def test_several_are_learnt_after_a_snapshot_that_is_taken(given):
    async def main():
        async with given.journal.held():
            several = asyncio.create_task(given.journal.apply_all(SEEN[1:30]))
            await asyncio.sleep(0)
            given.journal.apply(SEEN[0])
        await several

    asyncio.run(main())
    assert given.told == SEEN[:30]


def test_at_most_so_many_are_held_back(given, monkeypatch):
    monkeypatch.setattr(module, "MOST_HELD", 1)

    async def main():
        async with given.journal.held():
            given.journal.apply(SEEN[0])
            given.journal.apply(SEEN[1])

    asyncio.run(main())
    assert (given.told, given.lost) == (SEEN[:1], [1])


def test_a_fault_drops_the_observation(given, monkeypatch, caplog):
    monkeypatch.setattr(Learner, "learn", lambda self, seen: 1 / 0)
    given.journal.apply(SEEN[0])
    assert (given.told, given.lost, given.journal.changes) == ([], [1], 0)
    assert "ZeroDivisionError" in caplog.text
