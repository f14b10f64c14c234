"""What becomes of a request's body in two forms: BUFFERED, and STREAMED with a deferred answer.

In the deferred form the service holds back its answer to the headers until it has the body. It is
not what `dualpool config envoy` writes: docs/decisions/0007-request-form.md says why.
"""

import asyncio
import hashlib
import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from benchmarks.forms import deferred as answer_late
from benchmarks.forms import unchanged
from extproc.local.children import StackError
from extproc.local.envoy import find_envoy
from tests.support.local_stack import (
    Answer,
    OwnEnvoy,
    Running,
    fetch,
    in_background,
    lowered,
    running,
    wait_for,
)

pytestmark = pytest.mark.slow

try:
    find_envoy()
except StackError as error:
    pytest.skip(str(error), allow_module_level=True)

CHAT = "/v1/chat/completions"
TIMEOUT_MS = 1000
# What is compared are the forms, so every body reaches them, and what they do not decide is seen by
# its pool.
SETTINGS = {"message_timeout_ms": TIMEOUT_MS, "large_body_bytes": 0, "fail_open": "largest"}
PAUSE_S = 1.8  # longer than TIMEOUT_MS: that is what makes an upload slow
PIECE = 100
MIB = 1 << 20
REFUSED = "This model's maximum context length is 8192 tokens. However, your prompt contains 9000"


@dataclass
class Echo:
    """A pool that tells what has reached it; the smaller one refuses what says REFUSE."""

    name: str
    window: int
    heads: list[str] = field(default_factory=list)  # paths, as soon as their headers are here

    async def models(self, _request):
        return web.json_response({"data": [{"id": "m", "max_model_len": self.window}]})

    async def answer(self, request):
        self.heads.append(request.path)
        body = await request.read()
        if self.name == "short" and b"REFUSE" in body:
            return web.json_response({"error": {"message": REFUSED, "code": 400}}, status=400)
        framing = {key: request.headers.get(key) for key in ("content-length", "transfer-encoding")}
        return web.json_response({"sha": digest(body), "pool": self.name} | framing)


@dataclass
class Form:
    """One form of the request, running."""

    stack: Running
    long: Echo
    admin: str  # of its Envoy

    def post(self, pieces: Iterable[bytes], length: int | None = None) -> Answer:
        """Send a request piece by piece; without a length, chunked."""
        connection = http.client.HTTPConnection(self.stack.url.removeprefix("http://"), timeout=20)
        with closing(connection):
            connection.putrequest("POST", CHAT)
            connection.putheader("content-type", "application/json")
            framing = ("content-length", length) if length else ("transfer-encoding", "chunked")
            connection.putheader(*framing)
            connection.endheaders()
            with suppress(ConnectionError):  # an answer that does not wait for the end
                for piece in pieces:
                    connection.send(piece if length else b"%x\r\n%b\r\n" % (len(piece), piece))
                if not length:
                    connection.send(b"0\r\n\r\n")
            answer = connection.getresponse()
            return Answer(answer.status, lowered(answer.headers), answer.read())

    def asked(self) -> int:
        """How many messages the service has been sent about requests."""
        return self._count("stream_msgs_sent")

    def failures(self) -> int:
        """How many requests have been passed on undecided."""
        return self._count("failure_mode_allowed")

    def _count(self, name):
        stats = fetch(f"{self.admin}/stats?filter=router.{name}").body
        return int(stats.rpartition(b":")[2] or 0)


def digest(body):
    return hashlib.sha256(body).hexdigest()


def chat(size, *parts, **fields):
    """A chat request of about `size` bytes of text, with a small output limit."""
    content = [{"type": "text", "text": "owl " * (size // 4)}, *parts]
    body = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": content}]}
    return json.dumps(body | fields).encode()


def slowly(body):
    yield body[:PIECE]
    time.sleep(PAUSE_S)
    yield body[PIECE:]


def late(body):
    time.sleep(PAUSE_S)
    yield body


@contextmanager
def gateway(change: Callable[[dict], dict], **settings):
    """Run a stack with this change of Envoy's configuration before two pools that tell."""
    short, long, admin = Echo("short", 8192), Echo("long", 65536), []

    def noted(document):
        admin.append(document["admin"]["address"]["socket_address"]["port_value"])
        return change(document)

    with pools(short, long) as urls:
        envoy = OwnEnvoy(settings=SETTINGS, change=noted)
        with running(pools=urls, envoy=envoy, **settings) as stack:
            yield Form(stack, long, f"http://127.0.0.1:{admin[0]}")


@contextmanager
def pools(*echoes):
    with in_background() as loop:

        def wait(work):
            return asyncio.run_coroutine_threadsafe(work, loop).result(60)

        runners = [wait(serve(echo)) for echo in echoes]
        try:
            yield [f"http://127.0.0.1:{runner.addresses[0][1]}" for runner in runners]
        finally:
            for runner in runners:
                wait(runner.cleanup())


async def serve(echo):
    app = web.Application(client_max_size=64 * MIB)
    app.router.add_get("/v1/models", echo.models)
    app.router.add_route("*", "/{path:.*}", echo.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


def held_at(limit):
    """Return a change of Envoy's own limits for a body that it holds: none, or this many bytes."""

    def change(document):
        [listener] = document["static_resources"]["listeners"]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        keep = [f for f in manager["http_filters"] if not f["name"].endswith("body_size_limit")]
        manager["http_filters"] = keep
        manager["route_config"]["virtual_hosts"][0]["request_body_buffer_limit"] = limit
        return document

    return change


@pytest.fixture(scope="module")
def buffered():
    with gateway(unchanged) as form:
        yield form


@pytest.fixture(scope="module")
def deferred():
    with gateway(answer_late) as form:
        yield form


@pytest.fixture(params=["buffered", "deferred"])
def form(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("sized", [True, False], ids=["content-length", "chunked"])
def test_a_request_is_routed(form, sized):
    body = chat(1000)
    answer = form.post([body], len(body) if sized else None)
    assert (answer.status, answer.pool) == (200, "short")


@pytest.mark.parametrize("size", [100_000, 4 * MIB, 10 * MIB])
def test_a_long_request_is_routed_and_arrives_whole(form, size):
    body = chat(size)
    answer = form.post([body], len(body))
    assert (answer.status, answer.pool) == (200, "long")
    assert answer.headers["x-llm-reason"] in ("capacity", "oversize")
    assert answer.json["sha"] == digest(body)


def test_a_buffered_body_keeps_its_content_length(buffered):
    body = chat(1000)
    answer = buffered.post([body], len(body)).json
    assert (answer["content-length"], answer["transfer-encoding"]) == (str(len(body)), None)


def test_a_deferred_body_reaches_the_pool_chunked(deferred):
    body = chat(1000)
    answer = deferred.post([body], len(body)).json
    assert (answer["content-length"], answer["transfer-encoding"]) == (None, "chunked")


@pytest.mark.parametrize("upload", [late, slowly])
def test_a_slow_upload_is_routed_where_envoy_buffers(buffered, upload):
    body = chat(1000)
    answer = buffered.post(upload(body), len(body))
    assert (answer.pool, answer.headers["x-llm-reason"]) == ("short", "fits")
    assert answer.json["sha"] == digest(body)


def test_a_late_upload_goes_undecided_where_the_answer_is_deferred(deferred):
    body = chat(1000)
    answer = deferred.post(late(body), len(body))
    assert (answer.pool, answer.json["sha"]) == ("long", digest(body))
    assert "x-llm-reason" not in answer.headers


# Envoy 1.36 to 1.40, when it gives up waiting, passes on twice what it has sent us of the body.
def test_a_slow_upload_is_altered_where_the_answer_is_deferred(deferred):
    body = chat(1000)
    answer = deferred.post(slowly(body), len(body))
    assert (answer.pool, answer.json["sha"]) == ("long", digest(body[:PIECE] + body))
    assert "x-llm-reason" not in answer.headers


def test_a_refused_request_is_tried_on_the_long_pool_with_its_body_intact(form):
    body = chat(12_000, {"type": "text", "text": "REFUSE"})
    answer = form.post([body], len(body))
    assert (answer.status, answer.headers["x-llm-reason"]) == (200, "fits")
    assert (answer.pool, answer.json["sha"]) == ("long", digest(body))


def test_a_refused_image_of_megabytes_is_tried_on_the_long_pool(form):
    url = "data:image/png;base64," + "REFUSE/A" * (3 * MIB // 8)
    body = chat(100, {"type": "image_url", "image_url": {"url": url}})
    answer = form.post(body[at : at + 65536] for at in range(0, len(body), 65536))
    assert (answer.status, answer.headers["x-llm-reason"]) == (200, "fits")
    assert (answer.pool, answer.json["sha"]) == ("long", digest(body))


def test_usage_is_asked_for_where_envoy_buffers(buffered):
    body = chat(1000, stream=True)
    wait_for(lambda: buffered.post([body], len(body)).json["sha"] != digest(body))


def test_usage_cannot_be_asked_for_where_the_body_is_not_whole(deferred):
    body = chat(1000, stream=True)
    assert deferred.post([body], len(body)).json["sha"] == digest(body)


def test_a_body_over_envoys_limit_is_refused_where_envoy_buffers():
    with gateway(held_at(MIB)) as form:
        body = chat(4 * MIB)
        assert form.post([body], len(body)).status == 413


def test_a_body_over_envoys_limit_waits_for_the_time_out_where_the_answer_is_deferred():
    with gateway(lambda document: answer_late(held_at(MIB)(document))) as form:
        body, start = chat(4 * MIB), time.monotonic()
        answer = form.post([body], len(body))
        assert time.monotonic() - start > TIMEOUT_MS / 1000
        assert (answer.pool, answer.json["sha"]) == ("long", digest(body))
        assert "x-llm-reason" not in answer.headers


def early(form):
    """Tell whether the pool hears of a body that the service gives up before the upload's end."""
    body, heard = chat(4 * MIB), []

    def pieces():
        yield body[: 2 * MIB]
        with suppress(AssertionError):
            wait_for(lambda: CHAT in form.long.heads, seconds=1)
        heard.append(CHAT in form.long.heads)
        yield body[2 * MIB :]

    answer = form.post(pieces(), len(body))
    assert (answer.headers["x-llm-reason"], answer.json["sha"]) == ("unreadable", digest(body))
    return heard == [True]


READ = {"requests": {"max_body_bytes": MIB}}


def test_a_body_that_is_given_up_is_still_held_to_its_end_where_envoy_buffers():
    with gateway(held_at(32 * MIB), **READ) as form:
        assert not early(form)


def test_a_body_that_is_given_up_is_passed_on_at_once_where_the_answer_is_deferred():
    with gateway(lambda document: answer_late(held_at(32 * MIB)(document)), **READ) as form:
        assert early(form)


def killing(form, body, messages):
    """Send a piece, end the service when it has had so many messages, send the rest."""
    yield body[:PIECE]
    wait_for(lambda: form.asked() == messages)
    os.kill(form.stack.gateway.service.pid, signal.SIGKILL)
    wait_for(lambda: form.failures() == 1)
    yield body[PIECE:]


def test_a_service_killed_between_headers_and_body_loses_nothing_where_envoy_buffers():
    with gateway(unchanged) as form:
        body = chat(1000)
        answer = form.post(killing(form, body, messages=1), len(body))
        assert (answer.status, answer.pool) == (200, "long")
        assert answer.json["sha"] == digest(body)


def test_a_service_killed_in_an_upload_alters_it_where_the_answer_is_deferred():
    with gateway(answer_late) as form:
        body = chat(1000)
        answer = form.post(killing(form, body, messages=2), len(body))
        assert (answer.status, answer.pool) == (200, "long")
        assert answer.json["sha"] == digest(body[:PIECE] + body)
