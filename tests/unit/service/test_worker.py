"""A worker: in this process over a channel of its own, and as a program."""

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

from extproc.budget.learner import Learner
from extproc.build import build_learner
from extproc.config.settings import ListenSettings, PoolSettings, RowSettings, Settings
from extproc.service import worker as module
from extproc.service.build import build_mark
from extproc.service.channel import (
    CHANGE,
    DIGEST,
    EMPTY,
    LINE_BYTES,
    Order,
    decode,
    decode_digest,
    encode,
    encode_snapshot,
)
from extproc.service.worker import work
from extproc.state.snapshot import encode as encode_file
from extproc.state.snapshot import take
from tests.support.answers import answers
from tests.support.running_service import consecutive_ports, play

SETTINGS = Settings(listen=ListenSettings(notice_s=0, drain_s=5))


@asynccontextmanager
async def working(settings=SETTINGS):
    """Run a worker; yield its address, its supervisor's end of the channel, and its task."""
    address = f"127.0.0.1:{consecutive_ports(1)[0]}"
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_BYTES)
    writer.write(encode(Order(settings.model_dump_json(), address, "")))
    inner_reader, inner_writer = await asyncio.open_connection(sock=theirs, limit=LINE_BYTES)
    task = asyncio.create_task(work(inner_reader, inner_writer))
    try:
        assert await reader.readline() == EMPTY
        yield address, reader, writer, task
    finally:
        writer.close()
        await task
        inner_writer.close()
        await inner_writer.wait_closed()


async def observed(reader):
    """Return the next line that holds an observation."""
    while (line := await reader.readline()).startswith(DIGEST):
        pass
    return line


def run(scenario, settings=SETTINGS):
    async def main():
        async with asyncio.timeout(20), working(settings) as given:
            return await scenario(*given)

    return asyncio.run(main())


def test_what_it_learns_it_shares():
    async def scenario(address, reader, writer, task):
        await play(address, "observed")
        return decode(await observed(reader))

    observation = run(scenario)
    assert (observation.asked.model, observation.prompt_tokens) == ("m", 560)


def test_what_it_decides_it_tells_the_page(monkeypatch):
    monkeypatch.setattr(module, "EVERY_S", 0.01)

    async def scenario(address, reader, writer, task):
        await play(address, "observed")
        while True:
            line = await reader.readline()
            if line.startswith(DIGEST) and "dualpool_answers_total learnt" in (
                counts := decode_digest(line).counts
            ):
                return counts

    assert run(scenario)["dualpool_answers_total learnt"] == 1


def test_an_empty_line_asks_it_to_drain():
    async def scenario(address, reader, writer, task):
        writer.write(EMPTY)
        await task

    run(scenario)


def test_the_end_of_its_channel_ends_it_without_notice():
    async def scenario(address, reader, writer, task):
        writer.write_eof()
        await task

    run(scenario, Settings(listen=ListenSettings(notice_s=600, drain_s=600)))


def test_it_learns_what_its_supervisor_sends_and_nothing_else(monkeypatch):
    learnt = []
    monkeypatch.setattr(Learner, "learn", lambda self, observation: learnt.append(observation))

    async def scenario(address, reader, writer, task):
        await play(address, "observed")
        line = await observed(reader)
        writer.write(line)
        writer.write(EMPTY)
        await task
        return decode(line)

    assert [run(scenario)] == learnt


def test_it_continues_from_the_snapshot_that_its_supervisor_names(tmp_path, monkeypatch):
    learnt, path = build_learner(SETTINGS), tmp_path / "learnt"
    for seen in answers(1, 20):
        learnt.learn(seen)
    path.write_bytes(b"".join(encode_file(take(learnt), build_mark(SETTINGS, b""))))
    found = []
    monkeypatch.setattr(Learner, "replace", lambda self, other: found.append(take(other)))

    async def scenario(address, reader, writer, task):
        writer.write(encode_snapshot(path))
        writer.write(EMPTY)
        await task

    run(scenario)
    assert found == [take(learnt)]


def test_its_settings_may_be_longer_than_other_lines():
    names = tuple(f"{'m' * 200}{number}" for number in range(600))
    pools = (PoolSettings(name="a", max_model_len=4096), PoolSettings(name="b", max_model_len=8192))
    rows = (RowSettings(models=names, pools=pools),) * 10
    given = SETTINGS.model_copy(update={"rows": rows})
    order = Order(given.model_dump_json(), "127.0.0.1:1", "")
    assert len(encode(order)) > LINE_BYTES

    async def scenario(address, reader, writer, task):
        writer.write(CHANGE + encode(order))
        writer.write(EMPTY)
        await task

    run(scenario, given)


def program(order):
    """Run the program on a channel; return its exit code and what it wrote to standard error."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-m", "extproc.service.worker", str(theirs.fileno())]
        with subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True, env=os.environ
        ) as process:
            ours.sendall(encode(order))
            _, text = process.communicate(timeout=20)
            return process.returncode, text


def test_an_address_that_is_taken_is_one_clear_message():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, text = program(Order(SETTINGS.model_dump_json(), address, ""))
    assert code == 1
    assert f"dualpool: cannot listen on {address} for gRPC" in text
    assert "Traceback" not in text


def test_a_certificate_that_is_gone_is_one_clear_message(tmp_path):
    listen = ListenSettings(tls_cert=f"{tmp_path}/none", tls_key=f"{tmp_path}/none")
    code, text = program(Order(Settings(listen=listen).model_dump_json(), "127.0.0.1:0", ""))
    assert code == 1
    assert text.startswith(f"dualpool: {tmp_path}/none: cannot be read")
