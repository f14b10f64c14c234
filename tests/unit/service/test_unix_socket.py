"""The file of a Unix socket."""

import asyncio
import os
import socket
import stat
import subprocess
import sys
from functools import partial

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extproc.service.streams import Bounds
from extproc.service.unix_socket import PathLock, require_free, reserve
from tests.support.conversation import stages
from tests.support.production_stack import fronted, wait_for

BOUNDS = Bounds(message_bytes=1 << 20)


@pytest.fixture
def serving(serve_on):
    return partial(_serving, serve_on)


def _serving(serve_on, path, scenario):
    """Run a coroutine function beside a server on `path`."""

    async def main():
        server = serve_on(stages(), f"unix:{path}", BOUNDS)
        await server.start()
        try:
            return await asyncio.wait_for(scenario(), 60)
        finally:
            await server.drain(0)

    return asyncio.run(main())


def asked(path):
    async def scenario():
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            return (await stub.Check(health_pb2.HealthCheckRequest())).status

    return scenario


def abandoned(path):
    """Leave behind what a killed server does."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def test_it_serves(serving, tmp_path):
    path = tmp_path / "s"
    assert serving(path, asked(path)) == health_pb2.HealthCheckResponse.SERVING


def test_the_file_of_a_dead_server_is_replaced(serving, tmp_path):
    path = tmp_path / "s"
    abandoned(path)
    assert serving(path, asked(path)) == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_owner_and_group_may_connect(serving, tmp_path, umask):
    async def scenario():
        return stat.S_IMODE((tmp_path / "s").stat().st_mode)

    before = os.umask(umask)
    try:
        assert serving(tmp_path / "s", scenario) == 0o660
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_the_file_is_gone_at_the_end(serving, tmp_path):
    serving(tmp_path / "s", asked(tmp_path / "s"))
    assert list(tmp_path.iterdir()) == []


def test_a_second_server_is_refused_and_the_first_serves_on(serving, serve_on, tmp_path):
    path = tmp_path / "s"

    async def scenario():
        with pytest.raises(OSError, match=f"another server listens on {path}; stop it, or choose"):
            await serve_on(stages(), f"unix:{path}", BOUNDS).start()
        return await asked(path)()

    assert serving(path, scenario) == health_pb2.HealthCheckResponse.SERVING


def test_a_server_that_has_no_time_to_answer_lives(tmp_path):
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(tmp_path / "s"))
        busy.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(tmp_path / "s"))
            with pytest.raises(OSError, match="another server listens on"):
                require_free(tmp_path / "s")


def test_a_file_of_another_kind_is_kept(tmp_path):
    (tmp_path / "s").write_text("mine")
    with pytest.raises(OSError, match="is not a socket; remove it, or choose another path"):
        require_free(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "mine"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OSError, match=f"{tmp_path}/none is not a folder; create it"):
        require_free(tmp_path / "none" / "s")


def test_a_path_that_no_file_can_have_is_named_with_the_fix(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=f"{tmp_path}/file/s: Not a directory; choose another path"):
        require_free(tmp_path / "file" / "s")


@pytest.mark.parametrize("workers", [1, 2], ids=["one process", "workers"])
def test_envoy_is_answered(tmp_path, workers):
    with fronted(tmp_path, {"grpc": f"unix:{tmp_path}/s"}, workers=workers) as stack:
        wait_for(lambda: stack.pool() == "short")


def test_a_path_is_locked_before_anything_listens_there(tmp_path):
    lock = reserve(tmp_path / "s")
    with pytest.raises(OSError, match="another server listens on"):
        reserve(tmp_path / "s")
    lock.release()
    lock.release()
    reserve(tmp_path / "s").release()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_server_does_not_last(tmp_path):
    code = f"from extproc.service.unix_socket import *; PathLock(Path({str(tmp_path / 's')!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "s.lock").exists()
    reserve(tmp_path / "s").release()


def test_a_lock_of_a_file_that_was_removed_meanwhile_does_not_count(tmp_path, monkeypatch):
    gone = os.open(tmp_path / "old", os.O_RDWR | os.O_CREAT)
    monkeypatch.setattr("extproc.service.unix_socket._open", lambda _: gone)
    with pytest.raises(OSError, match="another server listens on"):
        PathLock(tmp_path / "s")


def test_a_lock_that_cannot_be_made_is_named_with_the_fix(tmp_path):
    (tmp_path / "s.lock").mkdir()
    with pytest.raises(OSError, match=f"{tmp_path}/s.lock: Is a directory; choose another path"):
        reserve(tmp_path / "s")
