"""The HTTP side, asked over its port."""

import asyncio
import gc
import json
import threading
import time

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

from extproc.budget.lengths import Lengths
from extproc.budget.values import Asked, Learnt, Measure, Observation, Outcome
from extproc.service.bearer import BearerToken
from extproc.service.http import HttpServer


class Learnable:
    """A learner of two categories, the second of which is learnt while the first is read."""

    def __init__(self):
        self.lengths = Lengths()
        asked = Asked("m", "prose", Measure(40), None)
        self.lengths.observe("prose/m", Observation(asked, Outcome.COMPLETE, 8192, 10, 5))

    def learnt_parts(self):
        yield Learnt(categories={"prose/m": {"samples": 1}})
        yield Learnt(categories={"code/m": {"samples": 2}}, evicted=3)


def asking(scenario, *, ready=True, registry=None, token=None):
    """Run a coroutine function of a `get`, which returns status, content type and body."""

    async def main():
        described = {"estimator": "paper"}
        server = HttpServer(
            registry or CollectorRegistry(), Learnable(), lambda: described, lambda: ready, token
        )
        port = await server.start("127.0.0.1", 0)
        try:
            async with aiohttp.ClientSession() as session:

                async def get(path, method="GET", **headers):
                    url = f"http://127.0.0.1:{port}{path}"
                    async with session.request(method, url, headers=headers) as answer:
                        return answer.status, answer.content_type, await answer.text()

                return await scenario(get)
        finally:
            await server.stop()

    return asyncio.run(main())


def ask(path, **given):
    return asking(lambda get: get(path), **given)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [("/healthz", 200, "ok\n"), ("/readyz", 200, "ready\n"), ("/nothing", 404, "404: Not Found")],
)
def test_a_path_answers(path, status, body):
    assert ask(path) == (status, "text/plain", body)


def test_what_is_not_ready_says_503():
    assert ask("/readyz", ready=False) == (503, "text/plain", "not ready\n")


def test_the_state_is_json():
    status, kind, body = ask("/state")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == {
        "estimator": "paper",
        "categories": {"prose/m": {"samples": 1}, "code/m": {"samples": 2}},
        "models": {},
        "limits": {},
    }


def test_the_lengths_are_json():
    assert ask("/lengths") == (200, "application/json", '{"lengths":{"prose/m":[[10,5,1]]}}')


def test_the_metrics_are_the_registry_s_and_what_was_learnt():
    registry = CollectorRegistry()
    registry.register(Watch())
    status, kind, body = ask("/metrics", registry=registry)
    assert (status, kind) == (200, "text/plain")
    assert "\nwatched 1.0\n" in body
    assert '\ndualpool_category_samples{category="code/m"} 2.0\n' in body


class Watch:
    """A collector that notes in which thread, and with which garbage collection, it is read."""

    def __init__(self):
        self.seen = []

    def collect(self):
        self.seen.append((threading.current_thread(), gc.isenabled()))
        yield GaugeMetricFamily("watched", "Watched.", value=1)


def test_a_thread_writes_the_metrics_without_the_garbage_collector():
    registry, watch = CollectorRegistry(), Watch()
    registry.register(watch)
    ask("/metrics", registry=registry)
    [(thread, collecting)] = watch.seen
    assert thread is not threading.main_thread()
    assert not collecting
    assert gc.isenabled()


def test_pages_are_written_one_at_a_time():
    writing = threading.Lock()

    class Exclusive:
        def collect(self):
            assert writing.acquire(blocking=False)
            yield GaugeMetricFamily("one", "One.", value=1)
            writing.release()

    registry = CollectorRegistry()
    registry.register(Exclusive())

    async def scenario(get):
        return await asyncio.gather(*[get("/metrics") for _ in range(5)])

    assert {status for status, _, _ in asking(scenario, registry=registry)} == {200}


def test_a_page_whose_asker_has_left_is_not_written_while_others_wait():
    class Counted:
        def __init__(self):
            self.pages = 0

        def collect(self):
            self.pages += 1
            time.sleep(0.2)
            yield GaugeMetricFamily("one", "One.", value=1)

    registry, counted = CollectorRegistry(auto_describe=False), Counted()
    registry.register(counted)

    async def scenario(get):
        first = asyncio.create_task(get("/metrics"))
        leaving = [asyncio.create_task(get("/metrics")) for _ in range(5)]
        await asyncio.sleep(0.1)
        for each in leaving:
            each.cancel()
        return await asyncio.gather(first, get("/metrics"))

    asking(scenario, registry=registry)
    assert counted.pages == 2


def test_who_has_closed_its_side_gets_its_page():
    async def main():
        server = never_started()
        port = await server.start("127.0.0.1", 0)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 60)
            writer.close()
            return answer
        finally:
            await server.stop()

    assert asyncio.run(main()).startswith(b"HTTP/1.1 200 ")


def test_pages_take_a_bounded_share_of_the_time():
    class Slow:
        def collect(self):
            time.sleep(0.05)
            yield GaugeMetricFamily("slow", "Slow.", value=1)

    registry = CollectorRegistry()
    registry.register(Slow())

    async def scenario(get):
        start = time.monotonic()
        await asyncio.gather(*[get("/metrics") for _ in range(3)])
        return time.monotonic() - start

    assert asking(scenario, registry=registry) > 2 * 0.05 / 0.2


def test_a_page_that_fails_fails_alone():
    class Broken:
        def collect(self):
            raise RuntimeError("a bug")

    registry = CollectorRegistry()
    registry.register(Broken())

    async def scenario(get):
        return [(await get(path))[0] for path in ("/metrics", "/metrics", "/state", "/healthz")]

    assert asking(scenario, registry=registry) == [500, 500, 200, 200]
    assert gc.isenabled()


def test_nothing_can_be_posted():
    assert asking(lambda get: get("/state", "POST"))[0] == 405


@pytest.fixture
def token(tmp_path):
    (tmp_path / "token").write_text("secret\n")
    return BearerToken(tmp_path / "token")


@pytest.mark.parametrize("path", ["/state", "/lengths"])
@pytest.mark.parametrize(
    ("given", "status"),
    [("Bearer secret", 200), ("Bearer wrong", 401), ("Basic secret", 401), (None, 401)],
)
def test_what_names_tenants_needs_the_token(token, path, given, status):
    headers = {"authorization": given} if given else {}
    assert asking(lambda get: get(path, **headers), token=token)[0] == status


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
def test_metrics_and_health_need_no_token(token, path):
    assert ask(path, token=token)[0] == 200


RAW = {
    "page": b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
    "missing": b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n",
    "old": b"GET /healthz HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    "unauthorized": b"GET /state HTTP/1.1\r\nhost: x\r\n\r\n",
    "malformed": b"GET\r\n\r\n",
    "long head": b"GET /healthz HTTP/1.1\r\nx: " + b"y" * 10_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", RAW.values(), ids=RAW)
def test_an_answer_names_no_software_and_ends_the_connection(token, request_bytes):
    async def main():
        server = HttpServer(CollectorRegistry(), Learnable(), dict, lambda: True, token)
        port = await server.start("127.0.0.1", 0)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request_bytes)
            return await asyncio.wait_for(reader.read(), 60)
        finally:
            writer.close()
            await server.stop()

    head = asyncio.run(main()).lower()
    assert head.startswith(b"http/1.")
    assert b"server: \r\n" in head or b"server:" not in head
    assert b"aiohttp" not in head
    assert b"python" not in head


def never_started():
    return HttpServer(CollectorRegistry(), Learnable(), dict, lambda: True)


def test_stopping_what_never_started_is_allowed():
    async def main():
        await never_started().stop()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("192.0.2.1", "Cannot assign requested address; change listen.http to an address of this"),
        ("no.such.host.invalid", r"[^\[]+; change listen.http to a host that this machine can"),
    ],
)
def test_an_address_that_cannot_be_bound_is_named_with_the_fix(host, reason):
    async def main():
        with pytest.raises(OSError, match=f"cannot listen on {host}:8081 for HTTP: {reason}"):
            await never_started().start(host, 8081)

    asyncio.run(main())
