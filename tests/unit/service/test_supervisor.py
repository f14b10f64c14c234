"""The supervisor, with programs in place of workers that do what a worker should not."""

import asyncio
import errno
import sys
import tempfile
from contextlib import asynccontextmanager

import msgspec
import pytest

from extproc.budget.features import FEATURES
from extproc.budget.learner import Learner
from extproc.budget.values import Asked, Measure, Observation, Outcome
from extproc.build import build_learner
from extproc.config.settings import BudgetSettings, ListenSettings, Settings
from extproc.page.digest import Digest
from extproc.service import supervisor as module
from extproc.service import worker_process
from extproc.service.build import build_mark
from extproc.service.certificates import CertificateError
from extproc.service.channel import (
    CHANGE,
    LINE_BYTES,
    SNAPSHOT,
    Order,
    decode_snapshot,
    encode,
    encode_digest,
    encode_replicas,
)
from extproc.service.reload import Source
from extproc.service.stopping import Stop
from extproc.service.supervisor import Supervisor
from extproc.service.worker_process import WorkerProcess
from extproc.state.snapshot import decode
from tests.support.waiting import until

ASKED = Asked("m", "prose", Measure(2800, 0, (1.0,) * len(FEATURES)), 100)
OBSERVATION = encode(Observation(ASKED, Outcome.COMPLETE, 8192, 560, 1))
SERVES = "channel.sendall(b'\\n')\n"
HEARS = "while data := channel.recv(65536): heard.write(data), heard.flush()\n"


DIES_ONCE = "if not start: channel.sendall(b'\\n'), channel.recv(1), sys.exit(1)\n"
CLOSES_ONCE = "if not start: channel.close(), time.sleep(60)\n"


class Fleet:
    """A supervisor of scripted workers, one for each script.

    A script sees `channel`, its socket; `start`, how often it was started before; and `heard`, a
    file. What worker N hears is in `heard(N)`.
    """

    def __init__(self, folder, scripts):
        self.folder = folder
        for index, script in enumerate(scripts):
            (folder / f"script{index}.py").write_text(script)
        self.settings = Settings(
            listen=ListenSettings(
                grpc=f"unix:{folder}/s", http="127.0.0.1:0", notice_s=0, drain_s=0
            ),
            workers=len(scripts),
        )
        self.next = self.settings
        self.supervisor = Supervisor(self.settings, Source(None, lambda: self.next))
        self.stop = Stop()

    def command(self):
        program = (
            "import json, pathlib, socket, sys, time\n"
            "channel = socket.socket(fileno=int(sys.argv[1]))\n"
            "order = b''\n"
            "while not order.endswith(b'\\n'): order += channel.recv(1)\n"
            "place = json.loads(order)['address'].rpartition('.')[2]\n"
            "index = int(place) if place.isdigit() else 0\n"
            f"folder = pathlib.Path({str(self.folder)!r})\n"
            "starts = folder / f'starts{index}'\n"
            "start = len(starts.read_text()) if starts.exists() else 0\n"
            "starts.open('a').write('x')\n"
            "heard = (folder / f'heard{index}').open('wb')\n"
            "exec((folder / f'script{index}.py').read_text())\n"
        )
        file = self.folder / "program.py"
        file.write_text(program)
        return sys.executable, str(file)

    def starts(self, index):
        file = self.folder / f"starts{index}"
        return len(file.read_text()) if file.exists() else 0

    def heard(self, index):
        file = self.folder / f"heard{index}"
        return file.read_bytes() if file.exists() else b""

    def figure(self, name):
        return self.supervisor._registry.get_sample_value(f"dualpool_{name}")

    def ready(self):
        return self.figure("workers_ready")

    def is_ready(self):
        return self.supervisor._is_ready()

    def reasons(self):
        return self.supervisor._page.overview.now()["pools"][0]["reasons"]

    def samples(self):
        return samples(self.supervisor._learner)

    def samples_in(self, path):
        mark = build_mark(self.settings, self.supervisor._tenant_secret)
        learner = build_learner(self.settings)
        decode(path.read_bytes(), mark).load(learner)
        return samples(learner)


def samples(learner):
    return learner.learnt().categories.get("prose/m", {}).get("samples", 0)


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    """A context manager that runs a supervisor of scripts and stops it at the end."""
    monkeypatch.setattr(module, "_RESTART_S", 0.05)
    for each in (module, worker_process):
        monkeypatch.setattr(each, "EXIT_S", 0.3)

    @asynccontextmanager
    async def running(*scripts):
        given = Fleet(tmp_path, scripts)
        monkeypatch.setattr(worker_process, "COMMAND", given.command())
        task = asyncio.create_task(given.supervisor.run(given.stop))
        given.task = task
        try:
            yield given
        finally:
            given.stop.ask()
            await asyncio.wait_for(task, 60)

    return running


def test_all_workers_name_a_tenant_alike(fleet):
    told = "(folder / f'order{index}').write_bytes(order)\n"

    async def main():
        async with fleet(told + SERVES + HEARS, told + SERVES + HEARS) as given:
            await until(lambda: given.ready() == 2)
            orders = [(given.folder / f"order{index}").read_bytes() for index in (0, 1)]
            one, other = (msgspec.json.decode(each, type=Order).tenant_secret for each in orders)
            assert one == other
            assert len(bytes.fromhex(one)) == 32

    asyncio.run(main())


def test_it_is_ready_once_all_workers_have_served(fleet):
    waits = "while not (folder / 'go').exists(): time.sleep(0.01)\n"

    async def main():
        async with fleet(SERVES + HEARS, waits + SERVES + HEARS) as given:
            await until(lambda: given.ready() == 1)
            assert not given.is_ready()
            (given.folder / "go").touch()
            await until(lambda: given.ready() == 2)
            assert given.is_ready()
            given.stop.ask()
            await until(lambda: not given.is_ready())

    asyncio.run(main())


def test_it_stays_ready_while_one_worker_serves(fleet):
    async def main():
        async with fleet(SERVES + HEARS, DIES_ONCE + SERVES + HEARS) as given:
            await until(given.is_ready)
            given.supervisor._workers[1].send(b"x\n")
            await until(lambda: given.ready() == 1)
            assert given.is_ready()
            await until(lambda: given.ready() == 2)
            assert given.figure("workers") == 2
            assert given.figure("worker_restarts_total") == 1

    asyncio.run(main())


def test_no_worker_left_is_not_ready(fleet):
    async def main():
        async with fleet(DIES_ONCE + HEARS) as given:
            await until(given.is_ready)
            given.supervisor._workers[0].send(b"x\n")
            await until(lambda: given.starts(0) == 2)
            assert not given.is_ready()

    asyncio.run(main())


def test_an_observation_reaches_the_learner_and_all_workers(fleet):
    speaks = SERVES + f"channel.sendall({OBSERVATION!r})\n" + HEARS

    async def main():
        async with fleet(speaks, SERVES + HEARS, SERVES + HEARS) as given:
            await until(lambda: given.samples() == 1)
            await until(lambda: {given.heard(n) for n in range(3)} == {OBSERVATION})

    asyncio.run(main())


def test_a_digest_reaches_the_page_alone(fleet):
    line = encode_digest(Digest({"dualpool_decisions_total short fits": 3.0}))
    speaks = SERVES + f"channel.sendall({line!r})\n" + HEARS

    async def main():
        async with fleet(speaks, speaks, SERVES + HEARS) as given:
            await until(lambda: given.reasons() == {"fits": 6})
            await until(given.is_ready)
            assert given.heard(2) == b""

    asyncio.run(main())


@pytest.mark.parametrize("line", [b"=broken\n", b"=[]\n", b'={"counts": {"a": "b"}}\n'])
def test_an_unreadable_digest_is_dropped(fleet, line, caplog):
    speaks = SERVES + f"channel.sendall({line + OBSERVATION!r})\n" + HEARS

    async def main():
        async with fleet(speaks) as given:
            await until(lambda: given.samples() == 1)
            assert given.figure("worker_lines_dropped_total") == 1

    asyncio.run(main())
    assert "worker 0 sent a digest that cannot be read; dropping it" in caplog.text


def test_a_restarted_worker_continues_from_what_was_learnt_before(fleet):
    speaks = SERVES + f"if not start: channel.sendall({OBSERVATION!r}), sys.exit(1)\n" + HEARS

    async def main():
        async with fleet(speaks) as given:
            await until(lambda: given.heard(0).startswith(SNAPSHOT))
            assert given.samples_in(decode_snapshot(given.heard(0))) == 1

    asyncio.run(main())


def full(path, chunks):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("write", [full, lambda path, chunks: None], ids=["full", "too large"])
def test_a_worker_serves_without_a_copy_that_cannot_be_written(fleet, write, caplog, monkeypatch):
    monkeypatch.setattr(module, "write_file", write)
    says = f"channel.sendall({OBSERVATION!r})\n"
    speaks = SERVES + says + f"if not start: sys.exit(1)\n{says}" + HEARS

    async def main():
        async with fleet(speaks) as given:
            await until(lambda: given.heard(0) == 2 * OBSERVATION)
            assert given.samples() == 3
            assert given.starts(0) == 2

    asyncio.run(main())
    assert "a worker goes on without what was learnt before" in caplog.text


def test_workers_continue_from_a_snapshot_that_was_loaded(fleet):
    async def main():
        async with fleet(SERVES + f"channel.sendall({OBSERVATION!r})\n" + HEARS) as given:
            await until(lambda: given.heard(0) == OBSERVATION)
            given.supervisor._journal.load(build_learner(Settings()))
            await until(lambda: SNAPSHOT in given.heard(0))

    asyncio.run(main())


def test_workers_are_told_how_many_replicas_there_are(fleet):
    async def main():
        async with fleet(SERVES + HEARS) as given:
            await until(lambda: given.ready() == 1)
            given.supervisor._share(3)
            given.supervisor._share(3)
            await until(lambda: given.heard(0) == encode_replicas(3))

    asyncio.run(main())


def test_a_worker_that_is_too_far_behind_continues_from_a_copy(fleet, caplog, monkeypatch):
    lost, send = list[bytes](), worker_process.Outbox.send_soon

    def behind_once(outbox, line):
        if line == OBSERVATION and not lost:
            lost.append(line)
            return False
        return send(outbox, line)

    monkeypatch.setattr(worker_process.Outbox, "send_soon", behind_once)
    speaks = SERVES + f"channel.sendall({OBSERVATION!r})\n" + HEARS

    async def main():
        async with fleet(speaks) as given:
            await until(lambda: given.heard(0).endswith(b"\n"))
            assert given.samples_in(decode_snapshot(given.heard(0))) == 1

    asyncio.run(main())
    assert "worker 0 continues from a copy" in caplog.text


@pytest.mark.parametrize("line", [b"broken\n", b"\xff\xfe\n", b"{}\n"])
def test_an_unreadable_line_is_dropped_and_the_next_is_read(fleet, line, caplog):
    speaks = SERVES + f"channel.sendall({line + OBSERVATION!r})\n" + HEARS

    async def main():
        async with fleet(speaks, SERVES + HEARS) as given:
            await until(lambda: given.samples() == 1)
            assert given.figure("worker_lines_dropped_total") == 1
            assert given.starts(0) == 1

    asyncio.run(main())
    assert "worker 0 sent a line that cannot be read; dropping it" in caplog.text


def test_an_overlong_line_restarts_its_worker_alone(fleet, caplog):
    shouts = SERVES + f"if not start: channel.sendall(b'x' * {3 * LINE_BYTES})\n" + HEARS

    async def main():
        async with fleet(shouts, SERVES + HEARS) as given:
            await until(lambda: given.starts(0) == 2 and given.ready() == 2)
            assert given.figure("worker_lines_dropped_total") == 1
            assert given.starts(1) == 1

    asyncio.run(main())
    assert f"worker 0 sent a line of more than {LINE_BYTES} bytes; killing it" in caplog.text


def test_a_fault_while_learning_drops_the_observation(fleet, caplog, monkeypatch):
    speaks = SERVES + f"channel.sendall({OBSERVATION!r})\n" + HEARS

    def broken(self, observation):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Learner, "learn", broken)

    async def main():
        async with fleet(speaks, SERVES + HEARS) as given:
            await until(lambda: given.figure("worker_lines_dropped_total") == 1)
            await until(given.is_ready)
            assert (given.starts(0), given.heard(1)) == (1, b"")

    asyncio.run(main())
    assert "RuntimeError: a bug" in caplog.text


def test_a_worker_that_cannot_be_restarted_is_tried_again_and_again(fleet, caplog, monkeypatch):
    async def main():
        async with fleet(SERVES + HEARS, DIES_ONCE + SERVES + HEARS) as given:
            await until(given.is_ready)
            command = worker_process.COMMAND
            monkeypatch.setattr(worker_process, "COMMAND", ("/none/python",))
            given.supervisor._workers[1].send(b"x\n")
            await until(lambda: given.figure("worker_restarts_total") >= 2)
            assert given.is_ready()
            monkeypatch.setattr(worker_process, "COMMAND", command)
            await until(lambda: given.ready() == 2)

    asyncio.run(main())
    assert "cannot run worker 1" in caplog.text


def test_a_worker_that_never_serves_ends_the_service(fleet):
    async def main():
        async with fleet(SERVES + HEARS, "sys.exit(1)") as given:
            await asyncio.wait([given.task])

    with pytest.raises(OSError, match="worker 1 could not start; its own message is above"):
        asyncio.run(main())


def test_a_worker_that_cannot_be_run_ends_the_service(fleet, monkeypatch):
    async def main():
        async with fleet(SERVES + HEARS) as given:
            await asyncio.wait([given.task])

    monkeypatch.setattr(Fleet, "command", lambda self: ("/none/python",))
    with pytest.raises(FileNotFoundError):
        asyncio.run(main())


def test_a_worker_that_ignores_the_end_is_killed(fleet):
    async def main():
        async with fleet(SERVES + "time.sleep(60)\n") as given:
            await until(given.is_ready)

    asyncio.run(main())


def test_a_worker_that_closes_its_channel_and_lives_on_is_killed(fleet):
    async def main():
        async with fleet(SERVES + CLOSES_ONCE + HEARS) as given:
            await until(lambda: given.starts(0) == 2 and given.ready() == 1)

    asyncio.run(main())


def test_a_worker_that_is_starting_ends_with_the_others(fleet):
    async def main():
        async with fleet("channel.recv(1)\n") as given:
            await until(lambda: given.starts(0) == 1)

    asyncio.run(main())


def test_a_worker_that_starts_during_the_end_is_told_to_end(fleet):
    async def main():
        async with fleet(SERVES + HEARS) as given:
            await until(given.is_ready)
            given.stop.ask()
            await asyncio.wait([given.task])
            await given.supervisor._run_one(0, given.folder)
            assert given.supervisor._workers == {}

    asyncio.run(main())


def test_no_folder_for_the_metrics_is_an_error_with_a_fix(fleet, monkeypatch):
    def full(prefix):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)

    async def main():
        async with fleet(SERVES) as given:
            await asyncio.wait([given.task])

    with pytest.raises(OSError, match="metrics: No space left on device; set TMPDIR to a folder"):
        asyncio.run(main())


def test_unusable_certificates_are_one_message(tmp_path):
    listen = ListenSettings(tls_cert=f"{tmp_path}/none", tls_key=f"{tmp_path}/none")
    with pytest.raises(CertificateError, match="cannot be read"):
        Supervisor(Settings(listen=listen, workers=2), Source(None, Settings))


def test_a_worker_that_was_told_to_end_is_sent_nothing(tmp_path, monkeypatch):
    file = tmp_path / "program.py"
    file.write_text(
        "import socket, sys\n"
        "channel = socket.socket(fileno=int(sys.argv[1]))\n"
        "channel.sendall(b''.join(iter(lambda: channel.recv(65536), b'')))\n"
    )
    monkeypatch.setattr(worker_process, "COMMAND", (sys.executable, str(file)))
    order = Order("{}", "unix:s", "")

    async def main():
        worker = await WorkerProcess.start(order, tmp_path)
        worker.end()
        worker.end()
        worker.send(OBSERVATION)
        lines = [line async for line in worker.lines()]
        await worker.wait(tmp_path)
        worker.kill()
        worker.end()
        worker.ask_to_drain()
        return lines

    assert asyncio.run(main()) == [encode(order)]


def test_workers_are_sent_settings_that_have_changed(fleet):
    async def main():
        async with fleet(SERVES + HEARS, SERVES + HEARS) as given:
            await until(lambda: given.ready() == 2)
            given.next = changed(given.settings)
            await given.supervisor._reloader.reload()
            await until(lambda: given.heard(0) and given.heard(1))
            return [order(given.heard(index)) for index in (0, 1)]

    orders = asyncio.run(main())
    assert [Settings.model_validate_json(each.settings).budget.target for each in orders] == [
        0.002,
        0.002,
    ]
    assert orders[0].address != orders[1].address


def test_a_worker_that_starts_while_settings_change_is_sent_them(fleet, monkeypatch):
    start = WorkerProcess.start

    async def starting(sent, folder):
        worker = await start(sent, folder)
        if not given.changed:
            given.changed = True
            given.next = changed(given.settings)
            await given.supervisor._reloader.reload()
        return worker

    async def main():
        nonlocal given
        async with fleet(SERVES + HEARS) as given:
            given.changed = False
            await until(lambda: given.heard(0))
            return order(given.heard(0))

    given = None
    monkeypatch.setattr(WorkerProcess, "start", starting)
    assert Settings.model_validate_json(asyncio.run(main()).settings).budget.target == 0.002


def changed(settings):
    return settings.model_copy(update={"budget": BudgetSettings(target=0.002)})


def order(line):
    assert line.startswith(CHANGE)
    return msgspec.json.decode(line.removeprefix(CHANGE), type=Order)
