"""What clients and pools may try, through the real Envoy in its default configuration."""

import asyncio
import json
import re
from contextlib import suppress

import pytest

from tests.integration.envoy.test_failures import LONG, MIDDLING, SHORT, asking, stream
from tests.support.puppet_mesh import decision, impostor

pytestmark = pytest.mark.slow


async def say(mesh, head, body=b""):
    """Send bytes to Envoy; return all that it says, also before it resets the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", mesh.ports.listener)
    writer.write(head.replace("\n", "\r\n").encode() + body)
    await writer.drain()
    answer = bytearray()
    with suppress(ConnectionResetError):
        while piece := await asyncio.wait_for(reader.read(1 << 16), 30):
            answer += piece
    writer.close()
    return bytes(answer)


def post(extra="", length=None, body=SHORT):
    size = len(body) if length is None else length
    return f"POST /v1/completions HTTP/1.1\nhost: x\n{extra}content-length: {size}\n" + (
        "connection: close\n\n"
    )


def status(answer):
    return int(answer.split(b" ", 2)[1])


def pool(answer):
    return re.findall(rb"^x-llm-pool: (.*)\r$", answer, re.MULTILINE)


@pytest.fixture(autouse=True)
def _undone(mesh, loop):
    loop(mesh.reset())
    loop(mesh.healthy())


LOOKALIKES = [
    "x-llm-pool: long\n",
    "X-LLM-Pool: long\n",
    "x-llm-pool: long\nx-llm-pool: long\n",
    "x-llm-pool : long\n",
    "x-llm-pool: short\nX-Llm-POOL: long\n",
]


@pytest.mark.parametrize("header", LOOKALIKES)
def test_a_client_cannot_choose_its_pool(mesh, loop, header):
    answer = loop(say(mesh, post(header), SHORT))
    assert status(answer) in (200, 400)
    assert mesh.long.got == []


@pytest.mark.parametrize("name", ["x-llm-pool", "X-Llm-Pool"])
def test_nor_while_the_service_does_not_decide(mesh, loop, name):
    async def play():
        async def silent(messages, _context):
            async for _ in messages:
                return
            yield b""

        async with impostor(mesh, silent):
            return await mesh.ask(MIDDLING, **{name: "short"})

    assert loop(play()).pool == "long"
    assert mesh.short.got == []


@pytest.mark.parametrize(
    "name", ["x_llm_pool", "X-LLM_Pool", "x_llm-retryable", "X_Envoy_Retry_On"]
)
def test_underscores_do_not_disguise_our_headers(mesh, loop, name):
    head = post(f"{name}: long\nuser_id: 7\n")
    assert pool(loop(say(mesh, head, SHORT))) == [b"short"]
    [headers] = mesh.short.headers
    assert headers["user_id"] == "7"
    assert not any(re.match("x[-_](llm|envoy)_|x_", each) for each in headers)


@pytest.mark.parametrize("host", ["host: x\n", ""])
def test_http_1_0_is_answered(mesh, loop, host):
    head = post().replace("HTTP/1.1", "HTTP/1.0").replace("host: x\n", host)
    assert status(loop(say(mesh, head, SHORT))) == 200
    assert len(mesh.short.got) == 1


def test_escaped_slashes_do_not_lead_past_the_service(mesh, loop):
    head = post().replace("/v1/completions", "/v1%2Fcompletions")
    assert pool(loop(say(mesh, head, SHORT))) == [b"short"]


def test_a_websocket_reaches_the_largest_pool_past_the_service(mesh, loop):
    async def play():
        asked = await mesh.stat("http.llm.ext_proc.router.streams_started")
        async with mesh.session.ws_connect(f"{mesh.url}/v1/realtime") as socket:
            await socket.send_str("owls")
            heard = (await socket.receive(timeout=10)).data
        return heard, await mesh.stat("http.llm.ext_proc.router.streams_started") - asked

    assert loop(play()) == ("long hears owls", 0)


def headers(count):
    return "".join(f"x-own-{number}: {number}\n" for number in range(count))


# Beside host, content-length, content-type and connection.
@pytest.mark.parametrize("count", [86, 120, 250])
def test_as_many_headers_pass_as_vllm_takes(mesh, loop, count):
    assert status(loop(say(mesh, post(headers(count)), SHORT))) == 200
    assert len(mesh.short.got) == 1


def test_headers_at_any_limit_are_no_fault_of_ours(mesh, loop):
    counts = {n: status(loop(say(mesh, post(headers(n)), SHORT))) for n in range(255, 280, 3)}
    sizes = range(94 * 1024, 97 * 1024, 200)
    big = {n: status(loop(say(mesh, post(f"x-big: {'y' * n}\n"), SHORT))) for n in sizes}
    assert set((counts | big).values()) == {200, 431}


@pytest.mark.parametrize(
    "headers",
    [
        {"x-llm-retryable": "1"},
        {"x-envoy-retry-on": "retriable-4xx,retriable-status-codes"},
        {"x-envoy-retriable-status-codes": "400"},
        {"x-envoy-max-retries": "9"},
    ],
)
def test_a_client_cannot_have_its_bad_request_retried(mesh, loop, headers):
    mesh.short.act = "find fault"
    answer = loop(mesh.ask(SHORT, **headers))
    assert (answer.status, len(mesh.short.got), mesh.long.got) == (400, 1, [])


def test_a_pool_cannot_pose_as_another(mesh, loop):
    answer = loop(say(mesh, post(), SHORT))
    assert pool(answer) == [b"short"]


@pytest.mark.parametrize(
    "framing",
    [
        "content-length: 5\ntransfer-encoding: chunked\n",
        "content-length: 5\ncontent-length: 6\n",
        "transfer-encoding: chunked, identity\n",
        "transfer-encoding: xchunked\n",
        "content-length: +5\n",
        "content-length: 5, 5\n",
    ],
)
def test_a_body_of_two_lengths_reaches_no_pool(mesh, loop, framing):
    head = f"POST /v1/completions HTTP/1.1\nhost: x\n{framing}connection: close\n\n"
    assert status(loop(say(mesh, head, b"0\r\n\r\nX"))) in (400, 501)
    assert mesh.short.got == mesh.long.got == []


def test_what_follows_a_body_is_a_request_of_its_own(mesh, loop):
    smuggled = b"GET /admin HTTP/1.1\r\nhost: y\r\nconnection: close\r\n\r\n"
    head = post().replace("connection: close\n", "")
    loop(say(mesh, head, stream(SHORT)[: len(SHORT)] + smuggled))
    assert all(smuggled not in got for got in mesh.short.got + mesh.long.got)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_with_our_field_in_it_is_whole_and_of_its_length(mesh, loop, chunked):
    loop(asking(mesh))
    body = stream(SHORT, user="é" * 100)
    framing = "transfer-encoding: chunked\n" if chunked else f"content-length: {len(body)}\n"
    head = f"POST /v1/completions HTTP/1.1\nhost: x\n{framing}connection: close\n\n"
    data = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n" if chunked else body
    answer = loop(say(mesh, head, data))
    assert status(answer) == 200
    got = mesh.short.got[-1]
    options = {"stream_options": {"include_usage": True}}
    assert json.loads(got) == options | json.loads(body)
    assert mesh.short.headers[-1].get("content-length") == (None if chunked else str(len(got)))


def test_an_endless_body_ends_at_the_limit(mesh, loop):
    async def play():
        _, writer = await asyncio.open_connection("127.0.0.1", mesh.ports.listener)
        head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        sent = 0
        with suppress(ConnectionError, TimeoutError):
            while sent < 200:
                writer.write(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")
                await asyncio.wait_for(writer.drain(), 60)
                sent += 1
        writer.close()
        return sent

    assert loop(play()) < 100  # MiB; the limit is 32
    assert mesh.short.got == mesh.long.got == []


def test_headers_of_any_size_are_refused(mesh, loop):
    assert status(loop(say(mesh, post(f"x-big: {'y' * 100_000}\n"), SHORT))) == 431


SECRETS = {
    "authorization": "Bearer secret-1",
    "proxy-authorization": "Basic secret-2",
    "cookie": "session=secret-3",
    "x-api-key": "secret-4",
    "api-key": "secret-5",
}


def test_the_service_sees_no_credentials_and_the_pool_does(mesh, loop):
    seen = []

    async def play():
        async def listen(messages, _context):
            async for message in messages:
                seen.append(message.SerializeToString())
                yield decision(message, {"x-llm-pool": "short"}).SerializeToString()

        async with impostor(mesh, listen):
            await mesh.ask(SHORT, **SECRETS)

    loop(play())
    assert seen
    assert not any(b"secret-" in message for message in seen)
    [headers] = mesh.short.headers
    assert {name: headers[name] for name in SECRETS if name != "proxy-authorization"} == {
        name: value for name, value in SECRETS.items() if name != "proxy-authorization"
    }


def test_nothing_that_a_client_says_is_logged(mesh, loop):
    loop(mesh.ask(SHORT, **SECRETS))
    loop(mesh.ask(b"no json: Where do owls sleep?"))
    logs = mesh.service.log.read() + mesh.service.output.read()
    logs += mesh.envoy.log.read() + mesh.envoy.output.read()
    assert b"owls" not in logs
    assert b"secret-" not in logs


def test_a_long_request_cannot_be_forced_short(mesh, loop):
    loop(mesh.ask(LONG, **{"x-llm-pool": "short", "x-llm-budget": "1", "x-llm-basis": "prior"}))
    assert mesh.short.got == []
