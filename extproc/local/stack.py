"""Runs pools, service and Envoy on this machine, started in that order and stopped together.

Invariant: when this process or one of its children ends, for whatever reason, all of them end.
Every wait has a timeout.
"""

import asyncio
import importlib.util
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import aiohttp

from extproc.config.load import load
from extproc.envoy.render import render_envoy
from extproc.local.children import Child, Children, Command, Log, StackError
from extproc.local.connection_error import describe
from extproc.local.envoy import Upstream, envoy_command, find_envoy
from extproc.local.fleet import (
    PAPER_SIZES,
    PoolSize,
    StackPool,
    describe_pools,
    server_url,
    simulated_pools,
)
from extproc.local.ports import Ports, free_ports, read_listener, require_free
from extproc.names import install_hint

_POLL_S = 0.1
_SAY_S = 2.0
"""Seconds until it is said which part is waited for, and what it answers."""
# Settings that name places and secrets of another machine; the stack has their defaults. What a
# demo teaches must not reach the state of a service.
_ELSEWHERE = ("http_token_file", "metrics", "service")
_LEFT_OUT = ("rows", "state", "state_password_file", "state_ca_file")

Say = Callable[[str], None]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """Options of the local stack.

    pools: base URLs of real servers; empty for simulated pools of these `sizes`.
    named: whether real servers are named as the sizes are, too.
    ports: on 127.0.0.1; None for any free ones. listen: HOST:PORT of Envoy; "" is that of `ports`.
    speed, seed: of the simulated pools; a speed of 2 halves the time of every iteration.
    ready_s: seconds that each part may take to become ready.
    settings: settings of the service and of Envoy, of which the addresses are replaced.
    logs: a folder in which the logs of all parts stay; None: they end with the stack.
    """

    pools: tuple[str, ...] = ()
    sizes: tuple[PoolSize, ...] = PAPER_SIZES
    named: bool = False
    listen: str = ""
    ports: Ports | None = field(default_factory=Ports)
    speed: float = 1.0
    seed: int = 0
    ready_s: float = 60.0
    settings: Mapping[str, object] = field(default_factory=dict)
    logs: Path | None = None


@dataclass(frozen=True, slots=True)
class StackGateway:
    """A running Envoy and service; URLs without a trailing slash."""

    url: str
    admin_url: str
    service_url: str
    envoy: Child
    service: Child


class Stack:
    """Async context manager that owns the stack's processes and stops them all on exit.

    Call open_pools, then open_gateway; `say` is called with what is being waited for.
    """

    def __init__(self, options: StackOptions, session: aiohttp.ClientSession, say: Say) -> None:
        check_platform()
        self._options = options
        self._ports = _ports(options)
        self._session = session
        self._say = say
        self._children = Children(options.logs)
        self._files = ExitStack()

    async def __aenter__(self) -> Self:
        find_envoy()
        if not self._options.pools:
            check_tokenizer()
        if self._options.logs:
            self._options.logs.mkdir(parents=True, exist_ok=True)
        require_free(self._ports, with_pools=not self._options.pools)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._children.stop()
        self._files.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of all children."""
        return self._children.pids

    async def open_pools(self) -> tuple[StackPool, ...]:
        """Start the simulated pools, or wait for the real ones.

        Returns them in ascending order of max_model_len. Raises StackError if one does not become
        ready or cannot be used.
        """
        urls = self._pool_urls()
        self._say(f"Waiting for the pools: {', '.join(urls)}")
        if self._options.pools:
            ready = [self._ready(f"{url}/health") for url in urls]
        else:
            options = self._options
            commands = simulated_pools(
                self._ports.pools, options.speed, options.seed, options.sizes
            )
            children = [await self._children.start(command) for command in commands]
            ready = [
                self._ready(f"{url}/health", child)
                for url, child in zip(urls, children, strict=True)
            ]
        await self.unless_ended(asyncio.gather(*ready))
        names = [size.name for size in self._options.sizes] if self._options.named else ()
        if names and len(names) != len(urls):
            raise StackError(f"--pools: {len(urls)} servers, but --config has {len(names)} pools")
        return await describe_pools(self._session, urls, names)

    async def open_gateway(
        self, pools: Sequence[StackPool], upstreams: Sequence[Upstream]
    ) -> StackGateway:
        """Start the service and Envoy; `upstreams` are the addresses Envoy uses for the pools.

        Raises StackError if one does not become ready.
        """
        self._say("Waiting for the service and Envoy")
        # An unnamed file. It stays while the service may load it again: its path is that of a file
        # descriptor, which another file would have after it.
        file = self._files.enter_context(closing(Log()))
        document = service_settings(self._ports, pools, upstreams, self._options.settings)
        file.write(json.dumps(document))
        service = await self._children.start(_service_command(file))
        url = f"http://127.0.0.1:{self._ports.http}"
        # Before Envoy, which checks the service's health before it routes the first request.
        await self.unless_ended(self._ready(f"{url}/readyz", service))
        configuration = render_envoy(load(file.path()))
        envoy = await self._children.start(envoy_command(configuration))
        admin_url = f"http://127.0.0.1:{self._ports.admin}"
        await self.unless_ended(self._ready(f"{admin_url}/ready", envoy))
        return StackGateway(self._ports.url, admin_url, url, envoy, service)

    async def unless_ended(self, work: Awaitable[Result]) -> Result:
        """Await the work and return its result; raises StackError once a child has ended."""
        task = asyncio.ensure_future(work)
        end = asyncio.ensure_future(self._children.first_end())
        try:
            await asyncio.wait((task, end), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise StackError(end.result().describe_end())
            return task.result()
        finally:
            # Awaited after the cancel, or the work could outlive this call and use what is closed
            # next.
            task.cancel()
            end.cancel()
            await asyncio.gather(task, end, return_exceptions=True)

    def _pool_urls(self) -> tuple[str, ...]:
        if self._options.pools:
            return tuple(server_url("--pools", text) for text in self._options.pools)
        return tuple(f"http://127.0.0.1:{port}" for port in self._ports.pools)

    async def _ready(self, url: str, child: Child | None = None) -> None:
        answer, ready_s = "no answer", self._options.ready_s
        waiting = asyncio.get_running_loop().call_later(
            _SAY_S, lambda: self._say(f"Waiting up to {ready_s:g} s for {url}: {answer}")
        )
        try:
            async with asyncio.timeout(ready_s):
                # Another process becomes ready, so there is no event to wait for.
                while (answer := await self._status(url)) != "200":  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            log = child.quote_log() if child else ""
            raise StackError(f"{url} is not ready after {ready_s:g} s ({answer}).{log}") from None
        finally:
            waiting.cancel()

    async def _status(self, url: str) -> str:
        try:
            async with self._session.get(url) as response:
                return str(response.status)
        except aiohttp.ClientError as error:
            return describe(error)


def _ports(options: StackOptions) -> Ports:
    ports = options.ports or free_ports(len(options.sizes))
    if not options.listen:
        return ports
    host, port = read_listener(options.listen)
    return replace(ports, listener=port, listener_host=host, listener_given=True)


def check_platform() -> None:
    """Raise StackError if the local stack cannot run on this platform."""
    if sys.platform != "linux":
        raise StackError(f"the local stack runs Envoy's Linux binary; this is {sys.platform}")


def check_tokenizer() -> None:
    """Raise StackError if the tokenizer of the simulated pools is not installed."""
    if importlib.util.find_spec("bpe_openai") is None:
        raise StackError(
            f"the built-in pools need the package bpe-openai: {install_hint('local')}, or "
            "use real servers with --pools URL,URL"
        )


def service_settings(
    ports: Ports,
    pools: Sequence[StackPool],
    upstreams: Sequence[Upstream],
    further: Mapping[str, object],
) -> dict[str, object]:
    """Return the content of the settings file for the service and for Envoy.

    Of the further settings all addresses are replaced, and what only they are used for. A row's
    pools are `pools` there too; its names are left out, as the stack's servers have other models.
    """
    rows = [
        {"name": pool.name, "max_model_len": pool.max_model_len, "address": upstream.address}
        | _threshold(pool, further)
        for pool, upstream in zip(pools, upstreams, strict=True)
    ]
    listen = {
        **_section(further, "listen"),
        "grpc": f"127.0.0.1:{ports.grpc}",
        "http": f"127.0.0.1:{ports.http}",
        # The only Envoy stops at the same time, so nobody needs notice.
        "notice_s": 0,
        "drain_s": 2,
    }
    host = f"[{ports.listener_host}]" if ":" in ports.listener_host else ports.listener_host
    envoy = {
        **_section(further, "envoy"),
        "listen": f"{host}:{ports.listener}",
        "admin": f"127.0.0.1:{ports.admin}",
    }
    kept = {key: value for key, value in further.items() if key not in _LEFT_OUT}
    return {**kept, "listen": listen, "pools": rows, "envoy": envoy}


def _section(settings: Mapping[str, object], name: str) -> Mapping[str, object]:
    section = settings.get(name)
    given = section if isinstance(section, Mapping) else {}
    return {key: value for key, value in given.items() if key not in _ELSEWHERE}


def _threshold(pool: StackPool, further: Mapping[str, object]) -> dict[str, object]:
    """Return the pool's own threshold, where the settings have one that its window allows."""
    rows = further.get("pools")
    for row in rows[:-1] if isinstance(rows, Sequence) else ():
        if row["name"] == pool.name and row["threshold"] < pool.max_model_len:
            return {"threshold": row["threshold"]}
    return {}


def _service_command(settings: Log) -> Command:
    argv = (sys.executable, "-m", "extproc", "serve", "--config", str(settings.path()))
    return Command("service", argv)
