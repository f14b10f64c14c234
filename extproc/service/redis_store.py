"""The store of a shared state: one stream and one hash in Redis 6.2 or Valkey.

    dualpool:{...}:log         a stream: its entries have one field, `e`
    dualpool:{...}:snapshot    a hash: position, marks and data

The name in braces is that of the snapshots' fingerprint and of the versions, so that services whose
states cannot be exchanged do not meet; both keys are on one node of a cluster.
"""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError, ResponseError

from extproc.service.shared_state import Found, StoreAddress, Stored, StoreError
from extproc.state.log import VERSION as LOG_VERSION
from extproc.state.log import order_of
from extproc.state.snapshot import MOST_BYTES
from extproc.state.snapshot import VERSION as SNAPSHOT_VERSION

TIMEOUT_S: Final = 2.0
"""For an answer, and for a connection."""
MOST_ENTRIES: Final = 20_000
"""Beyond them the log loses its oldest entries, if no snapshot can be stored that replaces them."""
FORGOTTEN_S: Final = 7 * 24 * 3600
"""How long the store keeps a state that no replica uses."""
_READ: Final = 100
_POSITION: Final = re.compile(rb"([0-9]{1,20})-([0-9]{1,20})\Z")
# The client begins the error of a command in a pipeline with that command.
_CODE: Final = re.compile(r"(?:\A|of pipeline caused error: \W{0,2})([A-Z]{2,20})\b")
_MOST_PART: Final = (1 << 64) - 1
_PASSWORD_BYTES: Final = 4096


# Of the client, whatever the store answers.
_FAULTS: Final = (
    RedisError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)


class _OtherTypeError(StoreError):
    """A key of the store is of another type."""


class _Credentials(CredentialProvider):
    def __init__(self, user: str, file: Path) -> None:
        self._user, self._file = user, file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        with self._file.open("rb") as file:
            password = file.read(_PASSWORD_BYTES).decode().strip()
        return (self._user, password) if self._user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


class RedisStore:
    """A Store in Redis. `mark` tells the fingerprint of the snapshots."""

    most_read = _READ

    def __init__(self, address: StoreAddress, mark: Callable[[], bytes]) -> None:
        self._mark, self._place = mark, f"{address.host}:{address.port}"
        self._redis, *self._sentinels = _clients(address)

    async def exchange(self, entries: Sequence[bytes], position: str) -> list[tuple[str, bytes]]:
        """See Store."""
        log = self._key("log")
        async with self._pipeline(transaction=False) as pipe:
            for entry in entries:
                pipe.xadd(log, {"e": entry}, maxlen=MOST_ENTRIES, nomkstream=True)
            pipe.xrange(log, position, "+", count=_READ)
            *_, found = await pipe.execute()
        return [_entry(each) for each in found]

    async def find(self) -> Found:
        """See Store."""
        try:
            return await self._find()
        except _OtherTypeError:
            return Found(None, None, empty=False)

    async def _find(self) -> Found:
        log, snapshot = self._key("log"), self._key("snapshot")
        async with self._pipeline(transaction=True) as pipe:
            pipe.exists(log)
            pipe.hstrlen(snapshot, "data")
            pipe.hmget(snapshot, ["position", "marks"])
            has_log, size, (position, marks) = await pipe.execute()
            if not _is_position(position) or marks is None or not 0 < size <= MOST_BYTES:
                return Found(None, None, empty=not has_log and position is None)
            pipe.hmget(snapshot, ["position", "marks", "data"])
            pipe.xrange(log, position, position, count=1)
            (at, marks, data), found = await pipe.execute()
        # Another one may have been stored meanwhile: its place in the log was not looked for.
        if at != position or marks is None or data is None:
            raise StoreError("another snapshot is being stored")
        content = _entry(found[0])[1] if found else None
        return Found(Stored(position.decode(), marks, data), content, empty=False)

    async def save(self, stored: Stored) -> None:
        """See Store."""
        log, snapshot = self._key("log"), self._key("snapshot")
        async with self._pipeline(transaction=True) as pipe:
            await pipe.watch(snapshot)
            before = await self._position(pipe)
            if before and order_of(before) >= order_of(stored.position):
                raise StoreError("a later snapshot is stored")
            pipe.multi()  # type: ignore[no-untyped-call]
            self._put(pipe, stored)
            if before:
                # Those between the two are for replicas that have not read them yet.
                pipe.xtrim(log, minid=before, approximate=False)
            await pipe.execute()

    async def seed(self, found: Found, marks: bytes, data: bytes) -> None:
        """See Store."""
        log, snapshot = self._key("log"), self._key("snapshot")
        async with self._pipeline(transaction=True) as pipe:
            await pipe.watch(log, snapshot)
            position = await self._position(pipe)
            known = found.stored.position if found.stored else ""
            if position != known or (found.empty and await pipe.exists(log)):
                raise StoreError("another replica was quicker")
            seconds, micros = await pipe.time()
            begin = f"{seconds * 1000 + micros // 1000}-0"
            pipe.multi()  # type: ignore[no-untyped-call]
            pipe.delete(log, snapshot)
            pipe.xadd(log, {"e": b""}, id=begin)
            self._put(pipe, Stored(begin, marks, data))
            await pipe.execute()

    async def close(self) -> None:
        """See Store."""
        for client in (self._redis, *self._sentinels):
            with suppress(RedisError, OSError):
                await client.aclose()

    async def _position(self, pipe: Pipeline) -> str:
        """Return that of the stored snapshot; empty if there is none, or none that can be one."""
        try:
            found: Any = await pipe.hget(self._key("snapshot"), "position")
        except ResponseError:  # it is of another type; else what follows is refused too
            return ""
        return found.decode() if _is_position(found) else ""

    def _put(self, pipe: Pipeline, stored: Stored) -> None:
        log, snapshot = self._key("log"), self._key("snapshot")
        values: dict[Any, Any] = {
            "position": stored.position,
            "marks": stored.marks,
            "data": stored.data,
        }
        pipe.hset(snapshot, mapping=values)
        pipe.expire(snapshot, FORGOTTEN_S)
        pipe.expire(log, FORGOTTEN_S)

    def _key(self, name: str) -> str:
        return f"dualpool:{{{self._mark().hex()}.{SNAPSHOT_VERSION}.{LOG_VERSION}}}:{name}"

    @asynccontextmanager
    async def _pipeline(self, *, transaction: bool) -> AsyncIterator[Pipeline]:
        try:
            async with self._redis.pipeline(transaction=transaction) as pipe:
                yield pipe
        except ResponseError as error:
            # The text of some servers repeats the arguments of a command, of AUTH as well.
            code = _CODE.search(str(error))
            if code and code[1] == "WRONGTYPE":
                raise _OtherTypeError("a key of the store is of another type") from None
            told = code[1] if code else "an error"
            raise StoreError(f"the store at {self._place} refuses: {told}") from None
        except _FAULTS as error:
            told = type(error).__name__
            raise StoreError(f"the store at {self._place} fails: {told}") from None


def _clients(address: StoreAddress) -> tuple[Redis, ...]:
    """Return the client of the store, and those of its Sentinels."""
    credentials = None
    if address.password_file:
        credentials = _Credentials(address.user, address.password_file)
    options: dict[str, Any] = {
        "db": address.database,
        "credential_provider": credentials,
        "max_connections": 2,
        **_patience(),
    }
    if address.master:
        # They are asked for each connection: after a failover the next one is to the new master.
        servers = [(address.host, address.port), *address.sentinels]
        sentinel: Any = Sentinel(servers, sentinel_kwargs=_patience())  # type: ignore[no-untyped-call]
        return sentinel.master_for(address.master, **options), *sentinel.sentinels
    if address.tls:
        ca = str(address.ca_file) if address.ca_file else None
        options |= {"ssl": True, "ssl_ca_certs": ca, "ssl_check_hostname": True}
    return (Redis(host=address.host, port=address.port, **options),)


def _patience() -> dict[str, Any]:
    return {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
    }


def _entry(found: tuple[bytes, dict[bytes, bytes]]) -> tuple[str, bytes]:
    position, fields = found
    return position.decode(), fields.get(b"e", b"")


def _is_position(value: bytes | None) -> bool:
    found = _POSITION.match(value) if value is not None else None
    return found is not None and all(int(part) <= _MOST_PART for part in found.groups())
