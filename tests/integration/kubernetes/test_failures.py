"""What fails around the Envoy of a gateway that has the objects of envoy/istio or envoy/gateway.

docs/failures.md holds the same of an Envoy of our own; envoy/*/README.md say where these differ.
"""

import asyncio
import dataclasses
import gzip
import json
import signal
import time

import pytest

from extproc.config.settings import Transport
from tests.support.gateways import ENVOY_GATEWAY, ISTIO
from tests.support.puppet_mesh import MESSAGE_TIMEOUT_S, Mesh

# A health check that connects while a pool stops may leave a socket behind.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]

# Tests say two seconds, of a machine that does nothing else; without our intervals it would be 30.
BACK_S = 10
SLOW_MACHINE = (("message_timeout_ms", int(MESSAGE_TIMEOUT_S * 1000)),)
FORMS = {
    "istio": ISTIO,
    "istio, the oldest Envoy": dataclasses.replace(ISTIO, version="1.37"),
    "gateway": ENVOY_GATEWAY,
    "gateway, by path": dataclasses.replace(ENVOY_GATEWAY, envoy=(("pool_health", "/v1/models"),)),
}


def prompt(repeats):
    body = {"model": "m", "prompt": "owls sleep " * repeats, "max_tokens": 50}
    return json.dumps(body).encode()


SHORT = prompt(1)
# May be too long for the short pool, though it is not expected to be.
LONGISH = prompt(720)
# Above envoy.fail_open_bytes_per_token for each token of the short pool's window.
MIDDLING = prompt(2000)
LONG = prompt(9000)
# Above envoy.large_body_bytes.
HUGE = prompt(1_000_000)
TOO_LARGE = b"x" * ((1 << 25) + 1)


@pytest.fixture(scope="module", params=FORMS)
def mesh(request, loop):
    form = FORMS[request.param]
    form = dataclasses.replace(form, envoy=form.envoy + SLOW_MACHINE)

    async def made():
        return Mesh(Transport.GRPC, form)

    mesh = loop(made())
    try:
        loop(mesh.start())
        # Before its first request, Envoy Gateway's clusters are checked once a minute.
        loop(mesh.ask(SHORT))
        yield mesh
    finally:
        loop(mesh.stop())


@pytest.fixture
def play(mesh, loop):
    """Return a function that runs a coroutine on a mesh in which all is well."""

    async def ready():
        await mesh.reset()
        await mesh.healthy()
        # A connection that a stopped pool left behind may still send one request to the other.
        await answered_by(mesh, "short")
        await mesh.reset()

    loop(ready())
    return lambda act: loop(act(mesh))


async def asked(mesh):
    """Return how many requests the service has seen.

    Its count of streams would grow at the end of a stream, which may be after that of the answer.
    """
    seen = ("dualpool_decisions_total", "dualpool_unread_requests_total")
    return sum(n for name, n in (await mesh.metrics()).items() if name.startswith(seen))


async def answered_by(mesh, pool, within_s=BACK_S):
    """Ask until a pool answers; return its answer."""
    async with asyncio.timeout(within_s):
        while (answer := await mesh.ask(SHORT)).answered != pool or answer.status != 200:
            await asyncio.sleep(0.05)
    return answer


async def settled(mesh, within_s=BACK_S):
    """Ask until twenty answers in a row are good; return the statuses of the last twenty.

    Each worker of Envoy learns by itself that a pool is back.
    """
    end = time.monotonic() + within_s
    while True:
        statuses = {(await mesh.ask(SHORT)).status for _ in range(20)}
        if statuses == {200} or time.monotonic() > end:
            return statuses


async def say(mesh, head):
    """Send raw bytes; return the status line's status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", mesh.ports.listener)
    writer.write(head)
    await writer.drain()
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


def post(*headers, version="1.1"):
    lines = [f"POST /v1/completions HTTP/{version}", "host: x", f"content-length: {len(SHORT)}"]
    return "\r\n".join([*lines, "connection: close", *headers, "", ""]).encode() + SHORT


# Large bodies


def test_a_large_body_is_decided_by_its_length(play):
    async def act(mesh):
        before = await asked(mesh)
        answer = await mesh.ask(HUGE)
        return answer, await asked(mesh) - before, mesh.long.got

    answer, requests, got = play(act)
    assert (answer.status, answer.answered, answer.pool) == (200, "long", "long")
    assert (answer.reason, requests) == ("large", 0)
    assert got == [HUGE]


def test_a_large_body_without_a_length_is_read(play):
    async def act(mesh):
        return await mesh.ask_in_chunks(HUGE), mesh.long.got

    answer, got = play(act)
    assert (answer.answered, got) == ("long", [HUGE])
    assert answer.reason != "large"


@pytest.mark.parametrize("send", [Mesh.ask, Mesh.ask_in_chunks])
def test_a_body_over_the_limit_reaches_no_pool(play, send):
    async def act(mesh):
        return await send(mesh, TOO_LARGE), mesh.short.got + mesh.long.got

    answer, got = play(act)
    assert (answer.status, got) == (413, [])


# The service


async def without_the_service(mesh, body, send=Mesh.ask, **headers):
    await mesh.harm(signal.SIGKILL)
    return await send(mesh, body, **headers)


@pytest.mark.parametrize(
    ("body", "send", "pool"),
    [
        (SHORT, Mesh.ask, "short"),
        (MIDDLING, Mesh.ask, "long"),
        (SHORT, Mesh.ask_in_chunks, "long"),
        (HUGE, Mesh.ask, "long"),
    ],
)
def test_without_the_service_the_size_decides(play, body, send, pool):
    answer = play(lambda mesh: without_the_service(mesh, body, send))
    assert (answer.status, answer.answered) == (200, pool)
    assert answer.reason in ("", "large")


def test_without_the_service_the_size_of_a_compressed_body_decides_nothing(play):
    encoding = {"content-encoding": "gzip"}
    answer = play(lambda mesh: without_the_service(mesh, gzip.compress(SHORT), **encoding))
    assert answer.answered == "long"


def test_without_the_service_a_client_cannot_choose_its_pool(play):
    answer = play(lambda mesh: without_the_service(mesh, MIDDLING, **{"x-llm-pool": "short"}))
    assert (answer.answered, answer.pool) == ("long", "")


def test_without_the_service_a_refused_request_is_retried(play):
    async def act(mesh):
        mesh.short.act = "refuse"
        return await without_the_service(mesh, SHORT)

    assert play(act).answered == "long"


def test_a_service_that_hangs_costs_one_timeout(play):
    async def act(mesh):
        await mesh.harm(signal.SIGSTOP)
        answer = await mesh.ask(SHORT)
        await mesh.harm(signal.SIGCONT)
        return answer

    answer = play(act)
    assert (answer.answered, answer.reason) == ("short", "")
    assert answer.seconds > MESSAGE_TIMEOUT_S * 0.9


def test_a_service_that_goes_on_hanging_costs_nothing(play):
    async def act(mesh):
        await mesh.harm(signal.SIGSTOP)
        await mesh.healthy(0)
        answer = await mesh.ask(SHORT)
        await mesh.harm(signal.SIGCONT)
        return answer

    answer = play(act)
    assert (answer.answered, answer.reason) == ("short", "")
    assert answer.seconds < MESSAGE_TIMEOUT_S * 0.9


# The pools


def test_an_absent_short_pool_is_replaced_and_used_within_two_seconds_of_its_return(play):
    async def act(mesh):
        await mesh.short.stop()
        answers = [await mesh.ask(SHORT) for _ in range(20)]
        await mesh.noticed(mesh.short)
        await mesh.short.start()
        await answered_by(mesh, "short")
        return answers

    assert {(each.status, each.answered) for each in play(act)} == {(200, "long")}


def test_the_first_pool_that_is_back_is_used_at_once(play):
    async def act(mesh):
        await mesh.short.stop()
        await mesh.long.stop()
        gone = {(await mesh.ask(SHORT)).status for _ in range(20)}
        await mesh.noticed(mesh.short)
        await mesh.short.start()
        await answered_by(mesh, "short")
        return gone, await settled(mesh)

    assert play(act) == ({503}, {200})


def test_a_long_pool_that_comes_back_alone_answers_all(play):
    async def act(mesh):
        await mesh.short.stop()
        await mesh.long.stop()
        gone = await mesh.ask(SHORT)
        await mesh.long.start()
        await answered_by(mesh, "long")
        return gone.status

    assert play(act) == 503


def test_a_long_request_has_no_other_pool(play):
    async def act(mesh):
        await mesh.long.stop()
        return await mesh.ask(LONG), mesh.short.got

    answer, got = play(act)
    assert (answer.status, got) == (503, [])


def test_without_the_long_pool_the_short_one_lists_the_models(play):
    async def act(mesh):
        await mesh.long.stop()
        return [await mesh.fetch("/v1/models") for _ in range(10)]

    assert {(each.status, each.answered) for each in play(act)} == {(200, "short")}


def test_a_request_that_a_pool_dies_of_reaches_no_other(play):
    async def act(mesh):
        mesh.short.act = "reset"
        return await mesh.ask(SHORT), len(mesh.short.got), mesh.long.got

    answer, tried, other = play(act)
    assert (answer.status, tried, other) == (503, 1, [])


def test_a_pool_that_is_not_available_is_replaced(play):
    async def act(mesh):
        mesh.short.act = "fail"
        return await mesh.ask(SHORT)

    assert play(act).answered == "long"


def test_a_refused_request_is_answered_by_the_long_pool(play):
    async def act(mesh):
        mesh.short.act = "refuse"
        return await mesh.ask(LONGISH), mesh.short.got, mesh.long.got

    answer, short, long = play(act)
    assert (answer.status, answer.answered) == (200, "long")
    assert short == long == [LONGISH]


def test_a_bad_request_is_tried_once(play):
    async def act(mesh):
        mesh.short.act = "find fault"
        return await mesh.ask(SHORT), len(mesh.short.got), len(mesh.long.got)

    answer, short, long = play(act)
    assert (answer.status, short, long) == (400, 1, 0)


def test_what_a_refusal_becomes_while_the_long_pool_is_absent(play, mesh):
    async def act(mesh):
        mesh.short.act = "refuse"
        await mesh.long.stop()
        return {(await mesh.ask(LONGISH)).status for _ in range(20)}

    # A cluster of Envoy Gateway has both pools. Once Envoy has noticed that the long one is absent,
    # a retry comes back to the short one.
    assert play(act) <= ({400, 503} if mesh.form.folder == "gateway" else {503})


# The edge


def test_http_1_0_is_answered(play):
    assert play(lambda mesh: say(mesh, post(version="1.0"))) == 200


def test_http_1_0_needs_no_host_where_envoy_can_be_told_one(play, mesh):
    head = b"GET /v1/models HTTP/1.0\r\n\r\n"
    expected = 400 if mesh.form.folder == "gateway" else 200
    assert play(lambda mesh: say(mesh, head)) == expected


def test_as_many_headers_pass_as_the_readme_says(play, mesh):
    def status(count):
        return play(lambda mesh: say(mesh, post(*(f"x-own-{n}: {n}" for n in range(count)))))

    counts = (80, 97, 250, 400)
    passed = [200, 500, 431, 431] if mesh.form.folder == "gateway" else [200, 200, 200, 431]
    assert [status(count) for count in counts] == passed


def test_a_header_with_an_underscore_passes_unless_it_is_ours(play):
    async def act(mesh):
        status = await say(mesh, post("user_id: 7", "x_llm_pool: long", "x-llm_retryable: 1"))
        return status, mesh.short.headers

    status, [headers] = play(act)
    assert (status, headers["user_id"]) == (200, "7")
    assert not {name for name in headers if name.startswith(("x_llm", "x-llm_"))}


def test_escaped_slashes_do_not_lead_past_the_service(play):
    head = post().replace(b"/v1/completions", b"/v1%2Fcompletions")

    async def act(mesh):
        return await say(mesh, head), mesh.short.headers

    status, [headers] = play(act)
    assert (status, headers["x-llm-reason"]) == (200, "fits")


def test_a_websocket_reaches_the_largest_pool_past_the_service(play):
    async def act(mesh):
        before = await asked(mesh)
        async with mesh.session.ws_connect(f"{mesh.url}/v1/realtime") as socket:
            await socket.send_str("owls")
            heard = (await socket.receive(timeout=10)).data
        return heard, await asked(mesh) - before

    assert play(act) == ("long hears owls", 0)
