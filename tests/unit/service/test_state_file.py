"""The file of what was learnt."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event

import pytest
from prometheus_client import CollectorRegistry

from extproc.service import state_file as module
from extproc.service.journal import Journal
from extproc.service.state_file import StateFile, folder_fault, keeping
from extproc.state.snapshot import encode, fingerprint, take
from extproc.stream.metrics import StateMetrics
from tests.support.answers import answers, small_learner
from tests.support.waiting import until

MARK = fingerprint("calibrated")
SEEN = list(answers(1, 30))


class Given:
    """A service that keeps its state in a file."""

    def __init__(self, path) -> None:
        self.path, self.registry, self.learner = path, CollectorRegistry(), small_learner()
        self.journal = Journal(self.learner, lambda: None)
        metrics = StateMetrics(self.registry)
        self.state = StateFile(path, lambda: MARK, small_learner, metrics)

    def run(self, seen=()) -> None:
        async def main():
            async with keeping(self.state, self.journal):
                for each in seen:
                    self.journal.apply(each)

        asyncio.run(main())

    def figure(self, name, **labels):
        return self.registry.get_sample_value(f"dualpool_state_{name}", labels)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state"


def test_a_service_continues_where_the_last_one_ended(path):
    first, second = Given(path), Given(path)
    first.run(SEEN)
    second.run()
    assert take(second.learner) == take(first.learner)
    assert (
        second.state.describe() == first.state.describe() == {"digest": take(first.learner).digest}
    )
    assert first.figure("snapshots_total", outcome="saved") == 1
    assert first.figure("bytes") == path.stat().st_size


def test_a_folder_that_is_absent_is_named_before_anything_is_learnt(path, caplog):
    Given(path / "state").run()
    fix = "create it, writable by the service"
    assert f"state: {path} is absent or cannot be written; {fix}" in caplog.messages


def test_a_file_is_no_folder_for_the_state(path):
    path.write_text("")
    assert folder_fault(path / "state").startswith(f"{path} is absent or cannot be written")
    assert folder_fault(path) == ""


def test_it_is_said_once_that_saving_works_again(path, caplog):
    caplog.set_level("INFO")
    given = Given(path / "state")

    async def main():
        given.journal.apply(SEEN[0])
        await given.state.save(given.journal)
        path.mkdir()
        for each in SEEN[1:3]:
            given.journal.apply(each)
            await given.state.save(given.journal)

    asyncio.run(main())
    assert f"if the folder {path} is absent, create it, writable by the service" in caplog.text
    assert caplog.messages.count(f"state: {path / 'state'} is saved again") == 1


def test_whether_the_last_snapshot_was_saved_is_a_metric(path):
    given = Given(path / "state")

    async def figures():
        yield given.figure("failing")
        for each in SEEN[:2]:
            given.journal.apply(each)
            await given.state.save(given.journal)
            yield given.figure("failing")
            path.mkdir(exist_ok=True)

    async def main():
        return [figure async for figure in figures()]

    assert asyncio.run(main()) == [0, 1, 0]


def test_without_a_state_nothing_is_kept():
    async def main():
        async with keeping(None, Journal(small_learner(), lambda: None)):
            pass

    asyncio.run(main())


def test_only_its_owner_may_read_it(path):
    Given(path).run(SEEN)
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_new_is_not_saved_again(path):
    Given(path).run(SEEN)
    given = Given(path)
    given.run()
    assert given.figure("snapshots_total", outcome="saved") == 0


def test_it_is_saved_while_the_service_runs(path, monkeypatch):
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    given = Given(path)

    async def main():
        async with keeping(given.state, given.journal):
            given.journal.apply(SEEN[0])
            await until(path.exists)
            before = path.read_bytes()
            given.journal.apply(SEEN[1])
            await until(lambda: path.read_bytes() != before)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "corrupt"),
        (b"\x80" * 1000, "corrupt"),
        (b"dualpool\xff\0\0\0" + b"\0" * 20, "newer"),
        (b"".join(encode(take(small_learner()), fingerprint("paper"))), "foreign"),
    ],
)
def test_what_cannot_be_used_is_set_aside(path, data, fault, caplog):
    path.write_bytes(data)
    given = Given(path)
    given.run(SEEN)
    assert path.with_name(f"state.{fault}").read_bytes() == data
    assert f"is {fault}; set aside" in caplog.text
    assert given.figure("unusable_total", fault=fault) == 1
    assert Given(path).figure("snapshots_total", outcome="saved") == 0
    assert path.exists()


def test_a_file_that_cannot_be_set_aside_is_left(path, caplog):
    path.write_bytes(b"broken")
    (path.with_name("state.corrupt") / "x").mkdir(parents=True)
    Given(path).run()
    assert "cannot be set aside" in caplog.text


def test_a_file_that_cannot_be_read_or_written_costs_the_memory_alone(path, caplog):
    path.mkdir()
    given = Given(path)
    given.run(SEEN)
    assert given.figure("unusable_total", fault="unreadable") == 1
    assert given.figure("snapshots_total", outcome="failed") == 1
    assert "cannot be read" in caplog.text
    assert "cannot be written" in caplog.text


def test_what_is_too_large_is_not_saved(path, monkeypatch, caplog):
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    given = Given(path)
    given.run(SEEN)
    assert os.listdir(path.parent) == []
    assert given.figure("snapshots_total", outcome="too_large") == 1


def test_what_a_killed_process_left_behind_is_no_hindrance(path):
    path.with_name("state.new").write_bytes(b"half")
    Given(path).run(SEEN)
    assert os.listdir(path.parent) == ["state"]


def test_a_write_that_nobody_waits_for_any_more_ends_before_the_next(path):
    begun, goes_on = Event(), Event()

    def slowly():
        yield b"first"
        begun.set()
        goes_on.wait(60)

    with ThreadPoolExecutor() as threads:
        first = threads.submit(module.write_file, path, slowly())
        begun.wait(60)
        second = threads.submit(module.write_file, path, [b"second"])
        wait([second], 0.05)
        goes_on.set()
        assert (first.result(60), second.result(60)) == (5, 6)
    assert path.read_bytes() == b"second"


def test_a_fault_of_the_snapshot_does_not_end_the_service(path, monkeypatch, caplog):
    given = Given(path)

    async def broken():
        raise RuntimeError("a bug")

    monkeypatch.setattr(given.journal, "take", broken)
    given.run(SEEN)
    assert "a bug" in caplog.text
    assert given.figure("snapshots_total", outcome="failed") == 1


def test_a_link_stays_a_link(path, tmp_path):
    path.symlink_to(tmp_path / "target")
    first, second = Given(path), Given(path)
    first.run(SEEN)
    assert path.is_symlink()
    assert (tmp_path / "target").is_file()
    second.run()
    assert take(second.learner) == take(first.learner)


def test_what_is_no_file_is_neither_read_nor_replaced(path, caplog):
    os.mkfifo(path)
    given = Given(path)
    given.run(SEEN)
    assert path.is_fifo()
    assert f"state: {path} cannot be read: it is no regular file" in caplog.messages
    assert f"state: {path} cannot be written: it is no regular file; " in caplog.text
    assert given.figure("snapshots_total", outcome="failed") == 1
