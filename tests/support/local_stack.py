"""The local stack for tests: the real Envoy, the service and two pools, on free ports."""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import aiohttp
import yaml

from extproc.config.settings import Settings
from extproc.envoy.render import render_envoy
from extproc.local.children import Children, StackError
from extproc.local.envoy import envoy_command, find_envoy
from extproc.local.fleet import StackPool
from extproc.local.ports import Ports, free_ports
from extproc.local.stack import Stack, StackGateway, StackOptions, service_settings

FAST = 50.0  # times the speed of a real engine


@dataclass
class Running:
    """A running stack; `url` is that of Envoy."""

    url: str
    gateway: StackGateway
    pools: tuple[StackPool, ...]
    ports: Ports

    @property
    def model(self):
        return self.pools[0].model

    def state(self):
        """Return what the service has learnt, by category."""
        return json.loads(fetch(f"{self.gateway.service_url}/state").body)["categories"]

    def metrics(self):
        return fetch(f"{self.gateway.service_url}/metrics").body.decode()

    def post(self, path, body, **headers):
        return fetch(f"{self.url}{path}", body, **headers)

    def rss_mb(self):
        """Return the resident memory of the service in MiB."""
        with open(f"/proc/{self.gateway.service.pid}/status") as file:
            [line] = [line for line in file if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1024


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def pool(self):
        return self.headers.get("x-llm-pool", "")


def fetch(url, body=None, **headers):
    data = json.dumps(body).encode() if isinstance(body, dict | list) else body
    named = {"content-type": "application/json"} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    request = urllib.request.Request(url, data, named)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return Answer(answer.status, lowered(answer.headers), answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, lowered(error.headers), error.read())


def lowered(headers):
    return {key.lower(): value for key, value in headers.items()}


def wait_for(condition, seconds=100):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


@contextmanager
def in_background() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@dataclass(frozen=True)
class OwnEnvoy:
    """An Envoy that replaces the stack's: its binary, settings, and changed configuration.

    change: maps the parsed configuration to the one that Envoy gets.
    """

    binary: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    change: Callable[[dict], dict] = lambda document: document

    def command(self, ports, pools, settings):
        document = service_settings(ports, pools, [pool.upstream for pool in pools], settings)
        document["envoy"] |= self.settings
        text = render_envoy(Settings.model_validate(document))
        command = envoy_command(yaml.safe_dump(self.change(yaml.safe_load(text))))
        return replace(command, argv=(self.binary or str(find_envoy()), *command.argv[1:]))


@contextmanager
def running(pools=(), envoy=None, envoy_settings=None, **settings) -> Iterator[Running]:
    """Run a stack; `pools` are URLs of real servers, `envoy` an OwnEnvoy.

    All answers are observed, so that every one is counted as it comes.
    """
    ports = free_ports()
    settings["requests"] = {"observe_sample": 1.0} | settings.get("requests", {})
    settings |= {"envoy": envoy_settings} if envoy_settings else {}
    if envoy is not None and (large := envoy.settings.get("large_body_bytes")) is not None:
        # What the service knows of its Envoy.
        settings["envoy"] = (envoy_settings or {}) | {"large_body_bytes": large}
    options = StackOptions(pools=tuple(pools), ports=ports, speed=FAST, settings=settings)
    with in_background() as loop:

        def wait(work):
            return asyncio.run_coroutine_threadsafe(work, loop).result(120)

        session = wait(_session())
        stack = Stack(options, session, lambda _: None)
        others = Children()
        try:
            wait(stack.__aenter__())
            found = wait(stack.open_pools())
            gateway = wait(stack.open_gateway(found, [pool.upstream for pool in found]))
            url = gateway.url
            if envoy is not None:
                own = _with(free_ports(), ports)
                wait(others.start(envoy.command(own, found, settings)))
                url = f"http://127.0.0.1:{own.listener}"
                wait_for(lambda: answers(f"http://127.0.0.1:{own.admin}/ready"))
            yield Running(url, gateway, found, ports)
        finally:
            wait(others.stop())
            wait(stack.__aexit__(None, None, None))
            wait(session.close())


async def _session():
    return aiohttp.ClientSession()


def _with(own, ports):
    return Ports(own.listener, own.admin, ports.grpc, ports.http, ports.pools)


def answers(url):
    """Return whether a GET is answered with 200."""
    try:
        return fetch(url).status == 200
    except OSError:
        return False


__all__ = ["Answer", "OwnEnvoy", "Running", "StackError", "answers", "fetch", "running", "wait_for"]
