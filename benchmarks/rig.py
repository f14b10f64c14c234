"""Runs what is measured: the pool, the service and one Envoy at a time, as processes."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import aiohttp
import yaml

from benchmarks.forms import FormRow, without_health_checks
from extproc.config.settings import Form, Settings, Transport
from extproc.envoy.render import render_envoy
from extproc.local.children import Child, Children, Command, Log, StackError
from extproc.local.envoy import envoy_command
from extproc.local.ports import Ports, free_ports

PATH: Final = "/v1/chat/completions"

_READY_S = 30.0
_POLL_S = 0.05

Result = TypeVar("Result")


class BenchmarkError(Exception):
    """The figures would be invalid; the message says why."""


@dataclass(frozen=True, slots=True)
class LoadCost:
    """The cost of a load: CPU seconds, and gRPC messages in both directions."""

    envoy_s: float
    service_s: float
    messages: int


@dataclass(frozen=True, slots=True)
class _Counters:
    """Envoy's ext_proc counters, summed over its filters."""

    messages: int
    failures: int


class BenchmarkEnvoy:
    """One Envoy in front of the service, and the counters of both."""

    def __init__(self, envoy: Child, service: Child, ports: Ports) -> None:
        self.port = ports.listener
        self.url = f"http://127.0.0.1:{ports.listener}{PATH}"
        self._admin = f"http://127.0.0.1:{ports.admin}"
        self._envoy = envoy
        self._service = service

    async def ready(self, session: aiohttp.ClientSession) -> None:
        """Wait until Envoy answers; raises StackError if it does not."""
        await _answers(session, f"{self._admin}/ready", self._envoy)

    async def measure(
        self, session: aiohttp.ClientSession, load: Awaitable[Result], settle_s: float
    ) -> tuple[Result, LoadCost]:
        """Await the load; return its result and its cost up to `settle_s` after its end.

        Raises BenchmarkError if a request passed without a decision.
        """
        before = await self._counters(session)
        # The CPU seconds must not include Envoy's answers about its counters.
        start = self._spent_s()
        result = await load
        await asyncio.sleep(settle_s)
        end = self._spent_s()
        after = await self._counters(session)
        if after.failures:
            raise BenchmarkError(f"{after.failures} answers of the service were late or failed")
        messages = after.messages - before.messages
        return result, LoadCost(end[0] - start[0], end[1] - start[1], messages)

    def service_cpu_s(self) -> float:
        """Return the CPU seconds that the service has used."""
        return cpu_s(self._service.pid)

    def _spent_s(self) -> tuple[float, float]:
        return cpu_s(self._envoy.pid), self.service_cpu_s()

    async def _counters(self, session: aiohttp.ClientSession) -> _Counters:
        async with session.get(f"{self._admin}/stats?format=json&filter=ext_proc") as answer:
            stats = json.loads(await answer.read())["stats"]
        found = {each["name"]: each["value"] for each in stats if "value" in each}
        return _Counters(
            _sum(found, "stream_msgs_sent") + _sum(found, "stream_msgs_received"),
            _sum(found, "failure_mode_allowed") + _sum(found, "message_timeouts"),
        )


@dataclass(frozen=True, slots=True)
class Service:
    """The service, or a module that runs it, on a transport; `root`: a folder to import it from."""

    transport: Transport = Transport.AUTO
    module: str = "extproc"
    root: Path | None = None


@dataclass(frozen=True, slots=True)
class Null:
    """A program that answers each message with the same bytes (`recorded.py`)."""

    program: Path
    answers: Path


class Rig:
    """Runs a pool and a server of Envoy's streams as long as the benchmark.

    pool: the command of the pool, without its port. more: settings of the service. socket: its Unix
    socket, in place of a port. No request times out: it would pass without a decision.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        server: Service | Null | None = None,
        *,
        pool: Sequence[str] = (sys.executable, "-m", "benchmarks.upstream"),
        more: Mapping[str, object] | None = None,
        socket: Path | None = None,
        message_timeout_ms: int = 10_000,
    ) -> None:
        self._session = session
        self._server = server or Service()
        self._pool = pool
        self._more = more or {}
        self._socket = socket
        self._message_timeout_ms = message_timeout_ms
        self._children = Children()
        self._ports = free_ports()
        self._child: Child | None = None

    @property
    def server(self) -> Child:
        """The process of the server."""
        assert self._child is not None, "entered"  # noqa: S101 - for the type
        return self._child

    @property
    def grpc_port(self) -> int:
        """The port of the server's streams."""
        return self._ports.grpc

    @property
    def http_url(self) -> str:
        """The URL of the service's HTTP side."""
        return f"http://127.0.0.1:{self._ports.http}"

    async def __aenter__(self) -> Self:
        try:
            port = str(self._ports.pools[0])
            pool = await self._children.start(Command("the pool", (*self._pool, port)))
            await _listens(int(port), pool)
            match self._server:
                case Service():
                    self._child = await self._start_service(self._server)
                case Null(program, answers):
                    argv = (str(program), str(self._ports.grpc), str(answers))
                    self._child = await self._children.start(Command(program.name, argv))
                    await _listens(self._ports.grpc, self._child)
        except BaseException:
            await self._children.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._children.stop()

    async def _start_service(self, server: Service) -> Child:
        with closing(Log()) as file:
            file.write(json.dumps(self._settings(Form.AUTO, self._ports)))
            arguments = ("serve", "--transport", str(server.transport), "--config")
            python: tuple[str, ...] = (sys.executable,)
            if server.root:
                python = ("env", f"PYTHONPATH={server.root}", sys.executable, "-P")
            argv = (*python, "-m", server.module, *arguments, str(file.path()))
            child = await self._children.start(Command("service", argv))
            await _answers(self._session, f"{self.http_url}/readyz", child)
        return child

    @asynccontextmanager
    async def gateway(self, row: FormRow) -> AsyncIterator[BenchmarkEnvoy]:
        """Run an Envoy with this row's form; raises StackError if it does not become ready."""
        own, children = free_ports(), Children()
        settings = Settings.model_validate(self._settings(row.form, own))
        document = row.change(yaml.safe_load(render_envoy(settings)))
        if isinstance(self._server, Null):
            document = without_health_checks(document)
        try:
            envoy = await children.start(envoy_command(yaml.safe_dump(document)))
            gateway = BenchmarkEnvoy(envoy, self.server, own)
            await gateway.ready(self._session)
            yield gateway
        finally:
            await children.stop()

    def _settings(self, form: Form, envoy: Ports) -> dict[str, object]:
        pool = f"127.0.0.1:{self._ports.pools[0]}"
        windows = {"short": 8192, "long": 65536}
        grpc = f"unix:{self._socket}" if self._socket else f"127.0.0.1:{self._ports.grpc}"
        http = f"127.0.0.1:{self._ports.http}"
        return {
            "listen": {"grpc": grpc, "http": http, "notice_s": 0},
            "pools": [
                {"name": name, "max_model_len": window, "address": pool}
                for name, window in windows.items()
            ],
            "envoy": {
                "form": str(form),
                "listen": f"127.0.0.1:{envoy.listener}",
                "admin": f"127.0.0.1:{envoy.admin}",
                "message_timeout_ms": self._message_timeout_ms,
            },
            **self._more,
        }


async def _answers(session: aiohttp.ClientSession, url: str, child: Child) -> None:
    end = time.monotonic() + _READY_S
    while not await _is_up(session, url):
        if not child.running:
            raise StackError(child.describe_end())
        if time.monotonic() > end:
            raise StackError(f"{child.name} is not ready: {url}{child.quote_log()}")
        await asyncio.sleep(_POLL_S)


async def _listens(port: int, child: Child) -> None:
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if not child.running:
                raise StackError(child.describe_end()) from None
            await asyncio.sleep(_POLL_S)
        else:
            writer.close()
            return
    raise StackError(f"{child.name} does not listen on port {port}{child.quote_log()}")


async def _is_up(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def _sum(counters: Mapping[str, Any], name: str) -> int:
    return sum(value for key, value in counters.items() if key.endswith(f".{name}"))


def cpu_s(pid: int) -> float:
    """Return the user and system time of a process so far, of all its threads."""
    # The CPU clock of the process, in nanoseconds, see clock_getcpuclockid(3);
    # /proc/PID/stat has hundredths of a second only.
    return time.clock_gettime((~pid << 3) | 2)


def rss_kib(pid: int) -> int:
    """Return the resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
