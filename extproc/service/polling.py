"""Ask the servers of all pools, over and over: for their load, their models, or to count samples.

Nothing waits for an answer: it is bounded in time and size, and what is wrong with it is counted.
"""

import asyncio
import enum
import errno
import random
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import aiohttp

from extproc.config.addresses import host_port
from extproc.routing.load.discovery import Discovery, read_models
from extproc.routing.load.pool_load import Tracker
from extproc.routing.load.priming import Priming
from extproc.routing.load.report import read_report
from extproc.service.repeating import repeating

TOLD_EVERY_S: Final = 0.1
MOST_SERVERS: Final = 256
"""Of a pool; those of an address that resolves to more are left out."""
MOST_BYTES: Final = 1 << 20
"""Of an answer; vLLM's metrics have some 100,000."""
_RESOLVED_EVERY_S: Final = 10.0
_MOST_AT_ONCE: Final = 32
_FIRST_WITHIN_S: Final = 1.0
_MOST_DOUBLINGS: Final = 8
_IDLE_S: Final = 1.0
"""How often a question looks for something to ask, once there is nothing."""

Server = tuple[str, int]
"""An IP address and a port."""


class Outcome(enum.StrEnum):
    """What became of a question."""

    REPORTED = "reported"
    REFUSED = "refused"  # the connection
    TIMEOUT = "timeout"
    FAILED = "failed"
    UNREADABLE = "unreadable"  # no answer of such a server, or a longer one than is read
    UNRESOLVED = "unresolved"  # the names of the pool's addresses: nobody was asked


@dataclass(frozen=True, slots=True)
class Polled:
    """A pool, and how its servers are reached; without `tls` in clear."""

    name: str
    addresses: tuple[str, ...]
    tls: ssl.SSLContext | None = None
    tls_name: str = ""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds from one question to a server to the next, for its answer, and while it fails."""

    every_s: float
    timeout_s: float
    longest_s: float = 2.0
    """The longest pause after a failure, if it is more than every_s."""


class Question(Protocol):
    """What all servers are asked, and who is told their answers."""

    name: str
    path: str
    accept: str
    """The type of an answer."""

    def set_servers(self, pool: str, servers: Iterable[Server]) -> None:
        """Take the servers that a pool has now."""

    def next(self, pool: str, server: Server) -> bytes | None:
        """Return what to post to a server now, empty to get; None: there is nothing to ask."""

    def take(self, pool: str, server: Server, answer: bytes, at_s: float) -> bool:
        """Take an answer, and when it was asked for; return False if it cannot be read."""

    def miss(self, pool: str, server: Server, outcome: Outcome) -> None:
        """Note that a server gave no answer that can be read."""


class LoadQuestion:
    """The load of a server."""

    name, path, accept = "load", "/metrics", "text/plain"

    def __init__(self, tracker: Tracker) -> None:
        self.set_servers = tracker.set_servers
        self._tracker = tracker

    def next(self, pool: str, server: Server) -> bytes:  # noqa: ARG002
        """Always ask."""
        return b""

    def take(self, pool: str, server: Server, answer: bytes, at_s: float) -> bool:
        """Take the metrics of a server."""
        if report := read_report(answer):
            self._tracker.tell(pool, server, report, at_s)
        return report is not None

    def miss(self, pool: str, server: Server, outcome: Outcome) -> None:
        """Note that a server is down if it refused the connection."""
        if outcome is Outcome.REFUSED:
            self._tracker.refuse(pool, server)


class ModelsQuestion:
    """The models of a server, and their windows."""

    name, path, accept = "models", "/v1/models", "application/json"

    def __init__(self, discovery: Discovery) -> None:
        self.set_servers = discovery.set_servers
        self._discovery = discovery

    def next(self, pool: str, server: Server) -> bytes:  # noqa: ARG002
        """Always ask."""
        return b""

    def take(self, pool: str, server: Server, answer: bytes, at_s: float) -> bool:  # noqa: ARG002
        """Take the list of a server's models."""
        if stated := read_models(answer):
            self._discovery.tell(pool, server, stated)
        return stated is not None

    def miss(self, pool: str, server: Server, outcome: Outcome) -> None:
        """Do nothing: what it stated still holds."""


class TokenizeQuestion:
    """The tokens of samples, until the models of a server are known."""

    name, path, accept = "tokenize", "/tokenize", "application/json"

    def __init__(self, priming: Priming) -> None:
        self.set_servers, self.next = priming.set_servers, priming.next
        self._priming = priming

    def take(self, pool: str, server: Server, answer: bytes, at_s: float) -> bool:  # noqa: ARG002
        """Take the count of a sample."""
        return self._priming.take(pool, server, answer)

    def miss(self, pool: str, server: Server, outcome: Outcome) -> None:  # noqa: ARG002
        """Ask again, or another server."""
        self._priming.miss(pool, server)


class Poller:
    """Asks a question, and calls `told` ten times a second, while `run` runs."""

    def __init__(
        self,
        pools: Sequence[Polled],
        pace: Pace,
        question: Question,
        told: Callable[[], None],
        polls: Counter[tuple[str, str, str]],
    ) -> None:
        """`polls` counts the questions by pool, question and outcome."""
        self._pools, self._pace, self._question, self._told = pools, pace, question, told
        self._asking: dict[tuple[str, Server], asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(_MOST_AT_ONCE)
        self._polls = polls

    async def run(self) -> None:
        """Ask until this is cancelled."""
        connector = aiohttp.TCPConnector(limit=_MOST_AT_ONCE)
        timeout = aiohttp.ClientTimeout(total=self._pace.timeout_s)
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            headers={"accept": self._question.accept, "accept-encoding": "identity"},
            auto_decompress=False,
        ) as session:
            finding = [asyncio.create_task(self._find(pool, session)) for pool in self._pools]
            try:
                async with repeating(self._told, TOLD_EVERY_S):
                    await asyncio.gather(*finding)
            finally:
                tasks = [*finding, *self._asking.values()]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _find(self, pool: Polled, session: aiohttp.ClientSession) -> None:
        """Ask the servers that the addresses of a pool stand for now, whichever they are."""
        while True:
            found = await _resolve(pool.addresses)
            if found:  # else its names do not resolve now: its servers may still be there
                self._ask_these(pool, found, session)
            else:
                self._polls[pool.name, self._question.name, Outcome.UNRESOLVED] += 1
            await asyncio.sleep(_RESOLVED_EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311

    def _ask_these(
        self, pool: Polled, servers: Mapping[Server, str], session: aiohttp.ClientSession
    ) -> None:
        self._question.set_servers(pool.name, servers)
        for name, server in [key for key in self._asking if key[0] == pool.name]:
            if server not in servers:
                self._asking.pop((name, server)).cancel()
        for server, address in servers.items():
            if (pool.name, server) not in self._asking:
                asking = self._keep_asking(pool, server, address, session)
                self._asking[pool.name, server] = asyncio.create_task(asking)

    async def _keep_asking(
        self, pool: Polled, server: Server, address: str, session: aiohttp.ClientSession
    ) -> None:
        every_s, failures = self._pace.every_s, 0
        first_s = min(every_s, _FIRST_WITHIN_S)
        await asyncio.sleep(first_s * random.random())  # noqa: S311 - not all at once
        while True:
            body = self._question.next(pool.name, server)
            if body is None:
                await asyncio.sleep(max(every_s, _IDLE_S))
                continue
            async with self._places:
                outcome = await self._ask(pool, server, address, session, body)
            self._polls[pool.name, self._question.name, outcome] += 1
            if outcome is not Outcome.REPORTED:
                self._question.miss(pool.name, server, outcome)
            failures = 0 if outcome is Outcome.REPORTED else min(failures + 1, _MOST_DOUBLINGS)
            longer_s = min(every_s * 2 ** max(failures - 1, 0), self._pace.longest_s)
            pause_s = max(every_s, longer_s)
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311

    async def _ask(
        self,
        pool: Polled,
        server: Server,
        address: str,
        session: aiohttp.ClientSession,
        body: bytes,
    ) -> Outcome:
        """Ask a server once; return the outcome."""
        at_s = asyncio.get_running_loop().time()
        try:
            data = await _fetch(session, self._question.path, pool, server, address, body)
        except TimeoutError:
            return Outcome.TIMEOUT
        except aiohttp.ClientConnectorError as error:
            refused = error.os_error.errno == errno.ECONNREFUSED
            return Outcome.REFUSED if refused else Outcome.FAILED
        except (aiohttp.ClientError, OSError, ValueError):
            return Outcome.FAILED
        if data is None or not self._question.take(pool.name, server, data, at_s):
            return Outcome.UNREADABLE
        return Outcome.REPORTED


async def _fetch(
    session: aiohttp.ClientSession,
    path: str,
    pool: Polled,
    server: Server,
    address: str,
    body: bytes,
) -> bytes | None:
    """Return the answer of a server; None for another status, or if it is too long."""
    host = f"[{server[0]}]" if ":" in server[0] else server[0]
    scheme = "https" if pool.tls else "http"
    async with session.request(
        "POST" if body else "GET",
        f"{scheme}://{host}:{server[1]}{path}",
        data=body or None,
        headers={"host": address, **({"content-type": "application/json"} if body else {})},
        ssl=pool.tls or True,
        server_hostname=(pool.tls_name or host_port(address)[0]) if pool.tls else None,
        allow_redirects=False,
    ) as answer:
        if answer.status != 200:
            return None
        data = bytearray()
        async for piece in answer.content.iter_any():
            data += piece
            if len(data) > MOST_BYTES:
                return None
        return bytes(data)


async def _resolve(addresses: Iterable[str]) -> dict[Server, str]:
    """Return the servers that addresses stand for, each with the first address of it."""
    found: dict[Server, str] = {}
    for address in addresses:
        for server in await _look_up(*host_port(address)):
            found.setdefault(server, address)
    return dict(sorted(found.items())[:MOST_SERVERS])


async def _look_up(host: str, port: int) -> list[Server]:
    """Return the servers of a name; none if it does not resolve.

    In a thread that nothing waits for: where a network policy drops questions to the name server,
    an answer takes up to a minute, and the end of an event loop waits for its own threads.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Server]] = loop.create_future()

    def look_up() -> None:
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # a host name of more than 63 characters between dots
            infos = []
        servers = [(str(place[0]), int(place[1])) for *_, place in infos]
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(give, servers)

    def give(servers: list[Server]) -> None:
        if not answer.done():
            answer.set_result(servers)

    threading.Thread(target=look_up, daemon=True).start()
    return await answer
