"""Runs what is measured: the pool, the service and one Envoy at a time, as processes."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import aiohttp
import yaml

from benchmarks.forms import FormRow
from extproc.config.settings import Form, Settings, Transport
from extproc.envoy.render import render_envoy
from extproc.local.children import Child, Children, Command, Log, StackError
from extproc.local.envoy import envoy_command
from extproc.local.ports import Ports, free_ports

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
        self.url = f"http://127.0.0.1:{ports.listener}/v1/chat/completions"
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
        start = self._cpu_s()
        result = await load
        await asyncio.sleep(settle_s)
        end = self._cpu_s()
        after = await self._counters(session)
        if after.failures:
            raise BenchmarkError(f"{after.failures} answers of the service were late or failed")
        messages = after.messages - before.messages
        return result, LoadCost(end[0] - start[0], end[1] - start[1], messages)

    def service_cpu_s(self) -> float:
        """Return the CPU seconds that the service has used."""
        return _cpu_s(self._service.pid)

    def _cpu_s(self) -> tuple[float, float]:
        return _cpu_s(self._envoy.pid), self.service_cpu_s()

    async def _counters(self, session: aiohttp.ClientSession) -> _Counters:
        async with session.get(f"{self._admin}/stats?format=json&filter=ext_proc") as answer:
            stats = json.loads(await answer.read())["stats"]
        found = {each["name"]: each["value"] for each in stats if "value" in each}
        return _Counters(
            _sum(found, "stream_msgs_sent") + _sum(found, "stream_msgs_received"),
            _sum(found, "failure_mode_allowed") + _sum(found, "message_timeouts"),
        )


class Rig:
    """Runs the pool and the service as long as the benchmark.

    By default no request times out: it would pass without a decision.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        message_timeout_ms: int = 10_000,
        module: str = "extproc",
        transport: Transport = Transport.AUTO,
    ) -> None:
        self._session = session
        self._message_timeout_ms = message_timeout_ms
        self._serve = ("-m", module, "serve", "--transport", str(transport), "--config")
        self._children = Children()
        self._ports = free_ports()
        self._service: Child | None = None

    async def __aenter__(self) -> Self:
        pool = str(self._ports.pools[0])
        upstream = await self._start("the pool", "-m", "benchmarks.upstream", pool)
        await _answers(self._session, f"http://127.0.0.1:{pool}/health", upstream)
        with closing(Log()) as file:
            file.write(json.dumps(self._settings(Form.OBSERVED, self._ports)))
            path = str(file.path())
            service = await self._start("service", *self._serve, path)
            await _answers(self._session, f"http://127.0.0.1:{self._ports.http}/readyz", service)
        self._service = service
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._children.stop()

    @asynccontextmanager
    async def gateway(self, row: FormRow) -> AsyncIterator[BenchmarkEnvoy]:
        """Run an Envoy with this row's form; raises StackError if it does not become ready."""
        assert self._service is not None, "entered"  # noqa: S101 - for the type
        own, children = free_ports(), Children()
        settings = Settings.model_validate(self._settings(row.form, own))
        document = row.change(yaml.safe_load(render_envoy(settings)))
        try:
            envoy = await children.start(envoy_command(yaml.safe_dump(document)))
            gateway = BenchmarkEnvoy(envoy, self._service, own)
            await gateway.ready(self._session)
            yield gateway
        finally:
            await children.stop()

    async def _start(self, name: str, *arguments: str) -> Child:
        return await self._children.start(Command(name, (sys.executable, *arguments)))

    def _settings(self, form: Form, envoy: Ports) -> dict[str, object]:
        pool = f"127.0.0.1:{self._ports.pools[0]}"
        windows = {"short": 8192, "long": 65536}
        listen = {"grpc": self._ports.grpc, "http": self._ports.http}
        return {
            "listen": {key: f"127.0.0.1:{port}" for key, port in listen.items()} | {"notice_s": 0},
            "pools": [
                {"name": name, "max_model_len": window, "address": pool}
                for name, window in windows.items()
            ],
            # The service asks every stream for usage.
            "requests": {"observe_sample": 1.0},
            "envoy": {
                "form": str(form),
                "listen": f"127.0.0.1:{envoy.listener}",
                "admin": f"127.0.0.1:{envoy.admin}",
                "message_timeout_ms": self._message_timeout_ms,
            },
        }


async def _answers(session: aiohttp.ClientSession, url: str, child: Child) -> None:
    end = time.monotonic() + _READY_S
    while not await _is_up(session, url):
        if not child.running:
            raise StackError(child.describe_end())
        if time.monotonic() > end:
            raise StackError(f"{child.name} is not ready: {url}{child.quote_log()}")
        await asyncio.sleep(_POLL_S)


async def _is_up(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def _sum(counters: Mapping[str, Any], name: str) -> int:
    return sum(value for key, value in counters.items() if key.endswith(f".{name}"))


def _cpu_s(pid: int) -> float:
    # The CPU clock of the process, in nanoseconds, see clock_getcpuclockid(3);
    # /proc/PID/stat has hundredths of a second only.
    return time.clock_gettime((~pid << 3) | 2)
