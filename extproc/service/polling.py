"""Ask the servers of all pools for their load, over and over: `/metrics` of each.

Nothing waits for an answer: it is bounded in time and size, and what is wrong with it is counted.
"""

import asyncio
import errno
import random
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from extproc.config.addresses import host_port
from extproc.routing.load.pool_load import PoolLoad, Tracker
from extproc.routing.load.report import read_report
from extproc.service.repeating import repeating

TOLD_EVERY_S: Final = 0.1
MOST_SERVERS: Final = 256
"""Of a pool; those of an address that resolves to more are left out."""
MOST_BYTES: Final = 1 << 20
"""Of an answer; vLLM's has some 100,000."""
_RESOLVED_EVERY_S: Final = 10.0
_MOST_AT_ONCE: Final = 32
_LONGEST_PAUSE_S: Final = 2.0
_MOST_DOUBLINGS: Final = 8
_HEADERS: Final = {"accept": "text/plain", "accept-encoding": "identity"}

REPORTED: Final = "reported"
OUTCOMES: Final = (REPORTED, "refused", "timeout", "failed", "unreadable", "unresolved")
"""What may become of a question; unreadable: not the metrics of a server, or too long."""

Server = tuple[str, int]
"""An IP address and a port."""


@dataclass(frozen=True, slots=True)
class Polled:
    """A pool, and how its servers are reached; without `tls` in clear."""

    name: str
    addresses: tuple[str, ...]
    tls: ssl.SSLContext | None = None
    tls_name: str = ""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds from one question to a server to the next, and for its answer."""

    every_s: float
    timeout_s: float


class Poller:
    """Passes the load of all pools to `told` ten times a second while `run` does."""

    def __init__(
        self,
        pools: Sequence[Polled],
        pace: Pace,
        tracker: Tracker,
        told: Callable[[Mapping[str, PoolLoad]], None],
        polls: Counter[tuple[str, str]],
    ) -> None:
        """`polls` counts the questions by pool and outcome."""
        self._pools, self._pace, self._tracker, self._told = pools, pace, tracker, told
        self._asking: dict[tuple[str, Server], asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(_MOST_AT_ONCE)
        self._polls = polls

    async def run(self) -> None:
        """Ask until this is cancelled."""
        connector = aiohttp.TCPConnector(limit=_MOST_AT_ONCE)
        timeout = aiohttp.ClientTimeout(total=self._pace.timeout_s)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=_HEADERS, auto_decompress=False
        ) as session:
            finding = [asyncio.create_task(self._find(pool, session)) for pool in self._pools]
            try:
                async with repeating(self._tell, TOLD_EVERY_S):
                    await asyncio.gather(*finding)
            finally:
                tasks = [*finding, *self._asking.values()]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _tell(self) -> None:
        self._told(self._tracker.loads(asyncio.get_running_loop().time()))

    async def _find(self, pool: Polled, session: aiohttp.ClientSession) -> None:
        """Ask the servers that the addresses of a pool stand for now, whichever they are."""
        while True:
            found = await _resolve(pool.addresses)
            if found:  # else its names do not resolve now: its servers may still be there
                self._ask_these(pool, found, session)
            else:
                self._polls[pool.name, "unresolved"] += 1
            await asyncio.sleep(_RESOLVED_EVERY_S * random.uniform(0.8, 1.2))  # noqa: S311

    def _ask_these(
        self, pool: Polled, servers: Mapping[Server, str], session: aiohttp.ClientSession
    ) -> None:
        self._tracker.set_servers(pool.name, servers)
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
        await asyncio.sleep(every_s * random.random())  # noqa: S311 - not all at once
        while True:
            async with self._places:
                outcome = await self._ask(pool, server, address, session)
            self._polls[pool.name, outcome] += 1
            failures = 0 if outcome == REPORTED else min(failures + 1, _MOST_DOUBLINGS)
            pause_s = max(every_s, min(every_s * 2 ** max(failures - 1, 0), _LONGEST_PAUSE_S))
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311

    async def _ask(
        self, pool: Polled, server: Server, address: str, session: aiohttp.ClientSession
    ) -> str:
        """Ask a server once; return the outcome."""
        at_s = asyncio.get_running_loop().time()
        try:
            data = await _get(session, pool, server, address)
        except TimeoutError:
            return "timeout"
        except aiohttp.ClientConnectorError as error:
            if error.os_error.errno != errno.ECONNREFUSED:
                return "failed"
            self._tracker.refuse(pool.name, server)
            return "refused"
        except (aiohttp.ClientError, OSError, ValueError):
            return "failed"
        report = read_report(data) if data is not None else None
        if report is None:
            return "unreadable"
        self._tracker.tell(pool.name, server, report, at_s)
        return REPORTED


async def _get(
    session: aiohttp.ClientSession, pool: Polled, server: Server, address: str
) -> bytes | None:
    """Return the metrics of a server; None for another status, or if they are too long."""
    host = f"[{server[0]}]" if ":" in server[0] else server[0]
    scheme = "https" if pool.tls else "http"
    async with session.get(
        f"{scheme}://{host}:{server[1]}/metrics",
        headers={"host": address},
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
        host, port = host_port(address)
        try:
            loop = asyncio.get_running_loop()
            infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):  # a host name of more than 63 characters between dots
            continue
        for *_, place in infos:
            found.setdefault((str(place[0]), int(place[1])), address)
    return dict(sorted(found.items())[:MOST_SERVERS])
