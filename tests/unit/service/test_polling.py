"""The servers of the pools, asked for their load over real connections."""

import asyncio
import socket
import ssl
import threading
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import uvloop
from aiohttp import web

from extproc.routing.load.discovery import Discovery
from extproc.routing.load.pool_load import PoolLoad, State, Tracker
from extproc.routing.load.priming import MOST_MISSED, Priming, samples
from extproc.routing.pools import Pool
from extproc.service import polling as module
from extproc.service.polling import (
    MOST_BYTES,
    LoadQuestion,
    ModelsQuestion,
    Pace,
    Polled,
    Poller,
    TokenizeQuestion,
)
from extproc.simulator.pool.answer import describe_models
from tests.support.certificate_authority import Authority
from tests.support.counts import count
from tests.unit.routing.load.test_report import VLLM

PACE = Pace(every_s=0.02, timeout_s=0.3)


class FakeServer:
    """Answers /metrics as told, and /v1/models, on a port that it keeps."""

    def __init__(self, body: bytes = VLLM, status: int = 200, delay_s: float = 0.0) -> None:
        self.body, self.status, self.delay_s = body, status, delay_s
        self.models = describe_models("m", 4096, 0, "x")
        self.asked_models = 0
        self.counted: list[dict] = []
        self.hosts = set[str]()
        self.asked = 0
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/elsewhere", self._metrics)
        app.router.add_post("/tokenize", self._tokenize)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=tls)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        assert self._runner
        await self._runner.cleanup()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def _models(self, _request: web.Request) -> web.Response:
        self.asked_models += 1
        return web.Response(body=self.models)

    async def _tokenize(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/json"
        self.counted.append(await request.json())
        return web.json_response({"count": count(self.counted[-1])}, status=self.status)

    async def _metrics(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.hosts.add(request.headers["host"])
        await asyncio.sleep(self.delay_s)
        headers = {"location": "/elsewhere"} if self.status == 302 else {}
        return web.Response(body=self.body, status=self.status, headers=headers)


@dataclass
class Polling:
    """A running Poller, and what it tells."""

    told: list[dict[str, PoolLoad]] = field(default_factory=list)
    polls: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    @property
    def load(self) -> PoolLoad:
        return self.told[-1]["short"] if self.told else PoolLoad()

    @property
    def state(self) -> State:
        return self.load.state


@asynccontextmanager
async def polled(
    *addresses: str, tls: ssl.SSLContext | None = None, tls_name: str = "", pace: Pace = PACE
):
    polling = Polling()
    tracker = Tracker(["short"], 2.0)

    def tell():
        polling.told.append(tracker.loads(asyncio.get_running_loop().time()))

    pools = [Polled("short", addresses, tls, tls_name)]
    async with asking(Poller(pools, pace, LoadQuestion(tracker), tell, polling.polls)):
        yield polling


@asynccontextmanager
async def asking(poller: Poller):
    task = asyncio.create_task(poller.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def playing(scenario, server: FakeServer | None = None):
    async def main():
        fake = server or FakeServer()
        await fake.start()
        try:
            async with asyncio.timeout(60):
                return await scenario(fake)
        finally:
            await fake.stop()

    return asyncio.run(main())


def test_the_load_is_told_while_the_servers_report():
    async def scenario(server):
        async with polled(server.address) as polling:
            await until(lambda: polling.state is State.KNOWN)
            assert server.hosts == {server.address}
            assert polling.load.waiting == 7.0
            assert polling.polls["short", "load", "reported"] >= 1

    playing(scenario)


def test_all_servers_that_a_name_stands_for_are_asked(monkeypatch):
    async def scenario(server):
        place = ("127.0.0.1", server.port)
        closed = ("127.0.0.2", server.port)
        infos = [(0, 0, 0, "", each) for each in (place, closed, place)]

        lookup = socket.getaddrinfo

        def found(*asked, **limits):
            if asked[0] != "pool":
                return lookup(*asked, **limits)
            assert (asked, limits) == (("pool", 8000), {"type": socket.SOCK_STREAM})
            return list(infos)

        monkeypatch.setattr(module, "_RESOLVED_EVERY_S", 0.02)
        monkeypatch.setattr(socket, "getaddrinfo", found)
        async with polled("pool:8000") as polling:
            await until(lambda: polling.state is State.KNOWN)
            assert polling.load.servers == 2
            assert server.hosts == {"pool:8000"}
            del infos[1]
            await until(lambda: polling.load.servers == 1)

    playing(scenario)


@pytest.mark.parametrize(
    ("server", "outcome"),
    [
        (FakeServer(b"no metrics"), "unreadable"),
        (FakeServer(status=404), "unreadable"),
        (FakeServer(status=302), "unreadable"),
        (FakeServer(VLLM + b"#" * MOST_BYTES), "unreadable"),
        (FakeServer(delay_s=1.0), "timeout"),
    ],
    ids=["other text", "not found", "redirected", "too long", "slow"],
)
def test_what_is_no_report_is_counted_and_leaves_the_pool_unknown(server, outcome):
    async def scenario(fake):
        async with polled(fake.address) as polling:
            await until(lambda: polling.polls["short", "load", outcome])
            assert polling.state is State.UNKNOWN
            assert set(polling.polls) == {("short", "load", outcome)}

    playing(scenario, server)


def test_a_server_that_goes_away_is_down_and_comes_back():
    async def scenario(server):
        async with polled(server.address) as polling:
            await until(lambda: polling.state is State.KNOWN)
            await server.stop()
            await until(lambda: polling.state is State.DOWN)
            await server.start()
            await until(lambda: polling.state is State.KNOWN)

    playing(scenario)


def test_a_name_that_does_not_resolve_is_counted():
    async def scenario(server):
        async with polled("no-such-host.invalid:8000") as polling:
            await until(lambda: polling.polls["short", "load", "unresolved"])
            assert polling.state is State.UNKNOWN

    playing(scenario)


def test_a_name_that_is_still_looked_up_holds_up_no_end(monkeypatch):
    ended, lookup = threading.Event(), socket.getaddrinfo

    def slow(host, *asked, **limits):
        if host == "slow":
            ended.wait(60)
        return lookup("127.0.0.1" if host == "slow" else host, *asked, **limits)

    async def main():
        async with polled("slow:8000"):
            await asyncio.sleep(0.1)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    start = time.monotonic()
    uvloop.run(main())
    assert time.monotonic() - start < 50
    ended.set()


def test_a_server_that_does_not_answer_is_asked_less_often():
    pace = Pace(every_s=0.02, timeout_s=0.3, longest_s=30.0)

    async def scenario(server):
        async with polled(server.address, pace=pace):
            await until(lambda: server.asked >= 4)
            await asyncio.sleep(0.2)
            assert server.asked < 9

    playing(scenario, FakeServer(status=500))


@pytest.mark.parametrize(("name", "known"), [("", True), ("localhost", True), ("other", False)])
def test_a_pool_with_tls_is_asked_with_it(tmp_path, name, known):
    authority = Authority(tmp_path)
    issued = authority.issue("pool")
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(issued.cert, issued.key)
    trusted = ssl.create_default_context(cafile=str(authority.file))

    async def main():
        server = FakeServer()
        await server.start(served)
        try:
            async with polled(server.address, tls=trusted, tls_name=name) as polling:
                await until(lambda: sum(polling.polls.values()) >= 2)
                assert (polling.polls["short", "load", "reported"] > 0) == known
        finally:
            await server.stop()

    asyncio.run(main())


def test_the_models_of_servers_are_asked_and_stay_known_while_a_server_is_away():
    async def scenario(server):
        discovery, polls = Discovery(), Counter()
        pools = [Polled("short", (server.address,))]
        poller = Poller(pools, PACE, ModelsQuestion(discovery), lambda: None, polls)
        async with asking(poller):
            await until(lambda: polls["short", "models", "reported"])
            server.models = b"{}"
            await until(lambda: polls["short", "models", "unreadable"])
            await server.stop()
            await until(lambda: polls["short", "models", "refused"])
        assert server.asked == 0
        found = discovery.found()["short"]
        assert (found.window, found.models, found.answered) == (4096, ("m",), 1)

    playing(scenario)


def counting(scenario, server):
    """Run a scenario with a poller that has a server count samples for the model `m`."""

    async def play(fake):
        discovery, polls, taught = Discovery(), Counter(), []
        row = (Pool("short", 8192, 8192),)
        priming = Priming(discovery, lambda _: row, lambda _: False, taught.append)
        pools = [Polled("short", (fake.address,))]
        models = Poller(pools, PACE, ModelsQuestion(discovery), lambda: None, polls)
        counts = Poller(pools, PACE, TokenizeQuestion(priming), lambda: None, polls)
        async with asking(models), asking(counts):
            await scenario(fake, polls, taught)

    playing(play, server)


def test_the_models_of_a_server_are_counted_by_it_and_then_it_is_left_alone():
    async def scenario(server, polls, taught):
        await until(lambda: taught)
        await asyncio.sleep(0.2)
        assert len(taught) == polls["short", "tokenize", "reported"] == len(samples())
        assert {body["model"] for body in server.counted} == {"m"}

    counting(scenario, FakeServer())


def test_a_server_that_refuses_to_count_is_asked_again_later():
    async def scenario(server, polls, taught):
        await until(lambda: polls["short", "tokenize", "unreadable"] > MOST_MISSED)
        assert not taught
        server.status = 200
        await until(lambda: taught)

    counting(scenario, FakeServer(status=404))
