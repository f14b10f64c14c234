"""What the store's client says of faults, where no server is."""

import asyncio

import pytest

from extproc.config.errors import UserError
from extproc.config.settings import Settings
from extproc.service import build
from extproc.service.redis_store import RedisStore
from extproc.service.shared_state import StoreAddress, StoreError

MARK = b"\x01" * 16


def fault_of(answer, **more):
    """What `find` says of a server that answers everything so."""

    async def serve(reader, writer):
        try:
            while await reader.read(4096):
                writer.write(answer)
        finally:
            writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        store = RedisStore(StoreAddress("127.0.0.1", port, **more), lambda: MARK)
        with pytest.raises(StoreError) as fault:
            await store.find()
        await store.close()
        server.close()
        return str(fault.value)

    return asyncio.run(main())


def test_an_error_is_told_by_its_code_alone(tmp_path):
    password = tmp_path / "password"
    password.write_text("secret")
    answer = b"-ERR unknown command AUTH, with args beginning with: secret\r\n"
    told = fault_of(answer, password_file=password)
    assert told.startswith("the store ")
    assert "secret" not in told


@pytest.mark.parametrize(
    "answer",
    [b"nonsense\r\n", b"*1\r\n", b"", b":1\r\n" * 9, b"\xff" * 100, b"*1\r\n" * 5000 + b":1\r\n"],
)
def test_what_is_no_answer_is_a_fault(answer, monkeypatch):
    monkeypatch.setattr("extproc.service.redis_store.TIMEOUT_S", 0.2)
    assert fault_of(answer).startswith("the store ")


def test_an_answer_to_the_greeting_that_is_none_is_a_fault(tmp_path):
    password = tmp_path / "password"
    password.write_text("secret")
    assert fault_of(b"+OK\r\n" * 30, password_file=password).startswith("the store ")


def test_a_store_that_is_not_there_is_a_fault():
    async def main():
        store = RedisStore(StoreAddress("127.0.0.1", 1), lambda: MARK)
        with pytest.raises(StoreError, match=r"the store at 127\.0\.0\.1:1 fails: ConnectionError"):
            await store.find()

    asyncio.run(main())


def test_a_password_that_cannot_be_read_is_a_fault(tmp_path):
    told = fault_of(b"+OK\r\n", password_file=tmp_path / "absent")
    assert told.endswith(" fails: FileNotFoundError")


@pytest.mark.parametrize(
    ("state", "address"),
    [
        ("redis://store:6379", StoreAddress("store", 6379)),
        ("rediss://user@[::1]:6380/2", StoreAddress("::1", 6380, 2, user="user", tls=True)),
        ("redis+sentinel://a:26379/llm", StoreAddress("a", 26379, master="llm")),
        (
            "redis+sentinel://user@a:1,[::1]:2/llm/3",
            StoreAddress("a", 1, 3, user="user", master="llm", sentinels=(("::1", 2),)),
        ),
    ],
)
def test_the_address_is_that_of_the_settings(state, address):
    assert build._store_address(Settings(state=state)) == address


def test_the_package_is_an_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "extproc.service.redis_store", None)
    with pytest.raises(UserError, match=r"pip install '.\[redis\]'"):
        build.build_shared(Settings(state="redis://store:6379"), None, None, None, None)


def test_a_file_is_shared_with_nobody():
    assert build.build_shared(Settings(state="file:/state"), None, None, None, None) is None
