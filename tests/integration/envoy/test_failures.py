"""What fails, what the client sees of it, and what is counted: docs/failures.md, row by row.

Each test is a row: it plays one failure against the real Envoy in its default configuration, and
holds what the row says the client sees and which counters grow.
`python -m tests.integration.envoy.test_failures` prints the document.
"""

import asyncio
import enum
import functools
import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc.aio
import pytest

from extproc.protos.envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse
from tests.support.paths import ROOT
from tests.support.puppet_mesh import (
    BAD_REQUEST,
    CHUNKS,
    MESSAGE_TIMEOUT_S,
    STALL_S,
    Answer,
    Mesh,
    decision,
    impostor,
)
from tests.support.transports import SERVED
from tests.support.waiting import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=SERVED)
def transport(request):
    return request.param


DOCUMENT = ROOT / "docs" / "failures.md"

SHORT = json.dumps({"model": "m", "prompt": "Where do owls sleep?", "max_tokens": 50}).encode()
# May be too long for the short pool, though it is not expected to be: about 1,800 tokens.
LONGISH = json.dumps({"model": "m", "prompt": "owls sleep " * 720, "max_tokens": 50}).encode()
# Above 2.5 bytes for each token of the short pool's window, and above envoy.large_body_bytes.
MIDDLING = json.dumps({"model": "m", "prompt": "owls sleep " * 2000, "max_tokens": 50}).encode()
HUGE = json.dumps({"model": "m", "prompt": "owls sleep " * 2_000_000, "max_tokens": 50}).encode()
LONG = json.dumps({"model": "m", "prompt": "owls sleep " * 9000, "max_tokens": 50}).encode()


def stream(body, **fields):
    return json.dumps(json.loads(body) | {"stream": True} | fields).encode()


USAGE = stream(SHORT, stream_options={"include_usage": True})
NO_USAGE = stream(SHORT, stream_options={"include_usage": False})


class Sees(enum.Enum):
    """What the client gets."""

    SHORT = "the short pool's answer, byte for byte"
    LONG = "the long pool's answer, byte for byte"
    EVENTS = (
        "the short pool's stream, byte for byte but for the usage event that it did not ask for"
    )
    BROKEN = "a stream that breaks off where the pool's did"
    UNAVAILABLE = "503"
    TOO_LARGE = "413"
    MODELS = "the list of models"
    REFUSED = "the pool's own error, byte for byte"
    NOTHING = "nothing: it has left"


@dataclass(frozen=True)
class Row:
    part: str
    failure: str
    sees: Sees
    counted: tuple[str, ...]


ROUTER = "http.llm.ext_proc.router."
ANSWERED = ROUTER + "stream_msgs_received"
FAIL_OPEN = ROUTER + "failure_mode_allowed"
LATE = ROUTER + "message_timeouts"
# Rows say 2 s, of a machine that does nothing else; without our intervals it would be 30 s.
BACK_S = 10
ROWS: list[Row] = []


def row(part, failure, sees, *counted):
    """Make a test of a coroutine that plays the failure and returns the answer."""

    def decorate(play: Callable[[Mesh], Awaitable[Answer]]):
        ROWS.append(Row(part, failure, sees, counted))

        @functools.wraps(play)
        def test(mesh, loop):
            loop(_hold(play, mesh, ROWS_BY_TEST[test.__name__]))

        # pytest reads the arguments of what is wrapped.
        del test.__wrapped__
        ROWS_BY_TEST[test.__name__] = ROWS[-1]
        return test

    return decorate


ROWS_BY_TEST: dict[str, Row] = {}


async def _hold(play, mesh, held):
    await mesh.reset()
    await mesh.healthy()
    before, service = {name: await mesh.count(name) for name in held.counted}, mesh.service
    answer = await play(mesh)
    _check(mesh, held.sees, answer)
    for name in held.counted:
        anew = name.startswith("dualpool_") and mesh.service is not service
        await mesh.grew(name, 0 if anew else before[name])


def _check(mesh, sees, answer):
    short, long = mesh.short.sent, mesh.long.sent
    match sees:
        case Sees.SHORT | Sees.REFUSED:
            assert (answer.body, answer.pool, answer.whole) == (short[-1], "short", True)
        case Sees.LONG:
            assert (answer.body, answer.pool, answer.whole) == (long[-1], "long", True)
            assert answer.status == 200
        case Sees.EVENTS:
            events = short[-1].split(b"\n\n")
            asked = [event for event in events if b'"choices": []' in event]
            assert len(asked) == 1
            assert answer.body == b"\n\n".join(e for e in events if e not in asked)
        case Sees.BROKEN:
            assert (answer.status, answer.whole) == (200, False)
            assert short[-1].startswith(answer.body)
        case Sees.MODELS:
            assert (answer.body, answer.status) == ((short or long)[-1], 200)
        case Sees.UNAVAILABLE | Sees.TOO_LARGE:
            assert answer.status == int(sees.value)
        case Sees.NOTHING:
            pass


# The service


@row("service", "is absent, and the request is small", Sees.SHORT, FAIL_OPEN)
async def test_without_the_service_a_small_request_goes_to_the_short_pool(mesh):
    await mesh.harm(signal.SIGKILL)
    return await mesh.ask(SHORT)


@row("service", "is absent, and the request is not small", Sees.LONG, FAIL_OPEN)
async def test_without_the_service_the_long_pool_answers(mesh):
    await mesh.harm(signal.SIGKILL)
    return await mesh.ask(MIDDLING)


@row(
    "service", "is absent, and a small request is too long for the short pool", Sees.LONG, FAIL_OPEN
)
async def test_without_the_service_a_refused_request_is_retried(mesh):
    await mesh.harm(signal.SIGKILL)
    mesh.short.act = "refuse"
    return await mesh.ask(SHORT)


@row("service", "is slow, but within message_timeout", Sees.SHORT)
async def test_a_slow_service_is_waited_for(mesh):
    async def slow(messages, _context):
        async for message in messages:
            await asyncio.sleep(MESSAGE_TIMEOUT_S / 3)
            yield decision(message, {"x-llm-pool": "short"}).SerializeToString()

    async with impostor(mesh, slow):
        answer = await mesh.ask(SHORT)
    assert answer.seconds > MESSAGE_TIMEOUT_S / 3 * 2
    return answer


@row("service", "hangs", Sees.SHORT, FAIL_OPEN, LATE)
async def test_a_service_that_hangs_costs_one_timeout(mesh):
    before = await mesh.stat(LATE)
    await mesh.harm(signal.SIGSTOP)
    answer = await mesh.ask(SHORT)
    assert answer.seconds > MESSAGE_TIMEOUT_S * 0.9
    assert await mesh.stat(LATE) == before + 1
    await mesh.harm(signal.SIGCONT)
    return answer


@row("service", "goes on hanging", Sees.SHORT, "cluster.dualpool.upstream_cx_none_healthy")
async def test_after_two_failed_health_checks_nobody_waits(mesh):
    await mesh.harm(signal.SIGSTOP)
    await mesh.healthy(0)
    before = await mesh.stat(LATE)
    answer = await mesh.ask(SHORT)
    assert await mesh.stat(LATE) == before
    await mesh.harm(signal.SIGCONT)
    return answer


@row("service", "is killed between the head of a request and its body", Sees.SHORT, FAIL_OPEN)
async def test_a_service_killed_before_the_body_loses_nothing(mesh):
    answered = await mesh.stat(ANSWERED)
    async with mesh.half_sent(SHORT) as rest:
        await mesh.grew(ANSWERED, answered)
        await mesh.harm(signal.SIGKILL)
        return await rest()


@row("service", "is killed in mid-answer", Sees.SHORT)
async def test_a_service_killed_in_mid_answer_loses_nothing(mesh):
    return await killed_in_mid_answer(mesh, NO_USAGE)


@row("service", "is killed in the middle of an answer that it asked for usage", Sees.EVENTS)
async def test_a_service_killed_in_mid_answer_leaves_no_usage_behind(mesh):
    await asking(mesh)
    return await killed_in_mid_answer(mesh, stream(SHORT))


async def asking(mesh):
    """Have the service see streams without usage, and a trial's answer, until it asks for all."""
    async with asyncio.timeout(40):
        while await mesh.count("dualpool_usage_asked_total") < 2:
            await mesh.ask(stream(SHORT))
    mesh.short.sent.clear()


async def killed_in_mid_answer(mesh, body):
    mesh.short.pace_s = 0.02
    asked = asyncio.ensure_future(mesh.ask(body))
    await until(lambda: mesh.short.sent and mesh.short.sent[-1].count(b"\n\n") > 3)
    await mesh.harm(signal.SIGKILL)
    return await asked


@row("service", "is restarted under load", Sees.SHORT, FAIL_OPEN)
async def test_a_restart_under_load_loses_nothing(mesh):
    working, answers = True, []

    async def client():
        while working:
            answers.append(await mesh.ask(SHORT))

    clients = [asyncio.ensure_future(client()) for _ in range(8)]
    await mesh.harm(signal.SIGKILL)
    await until(lambda: sum(not each.reason for each in answers) > 20)
    await mesh.start_service()
    await mesh.healthy()
    await until(lambda: answers[-1].reason)
    working = False
    await asyncio.gather(*clients)
    assert {(each.status, each.whole) for each in answers} == {(200, True)}
    assert len(mesh.short.sent) + len(mesh.long.sent) == len(answers)
    return answers[-1]


@row("service", "answers with bytes that are no message", Sees.SHORT, FAIL_OPEN)
async def test_garbage_loses_nothing(mesh):
    async def garbage(messages, _context):
        async for _ in messages:
            yield b"\xff\xff\xff"

    async with impostor(mesh, garbage):
        return await mesh.ask(SHORT)


@row("service", "answers what was not asked", Sees.SHORT, ROUTER + "spurious_msgs_received")
async def test_an_answer_out_of_order_loses_nothing(mesh):
    async def early(messages, _context):
        async for _ in messages:
            yield ProcessingResponse(response_body={}).SerializeToString()

    async with impostor(mesh, early):
        return await mesh.ask(SHORT)


@row("service", "names a pool that there is not", Sees.SHORT)
async def test_an_unknown_pool_is_the_default_route(mesh):
    async def unknown(messages, _context):
        async for message in messages:
            yield decision(message, {"x-llm-pool": "nowhere"}).SerializeToString()

    async with impostor(mesh, unknown):
        return await mesh.ask(SHORT)


@row(
    "service", "sets headers that are not its own", Sees.SHORT, ROUTER + "rejected_header_mutations"
)
async def test_only_its_own_headers_can_be_set(mesh):
    async def grab(messages, _context):
        async for message in messages:
            headers = {"x-llm-pool": "short", ":path": "/v1/other", "authorization": "none"}
            yield decision(message, headers).SerializeToString()

    async with impostor(mesh, grab):
        return await mesh.ask(SHORT)


@row("service", "fails with a gRPC error", Sees.SHORT, FAIL_OPEN)
async def test_a_grpc_error_loses_nothing(mesh):
    async def fail(_messages, context):
        await context.abort(grpc.StatusCode.INTERNAL, "broken")
        yield b""

    async with impostor(mesh, fail):
        return await mesh.ask(SHORT)


@row("service", "ends the stream without an answer", Sees.SHORT, ROUTER + "server_half_closed")
async def test_silence_loses_nothing(mesh):
    async def leave(messages, _context):
        async for _ in messages:
            return
        yield b""

    async with impostor(mesh, leave):
        return await mesh.ask(SHORT)


@row("service", "is killed and comes back: used within 1 s of being ready", Sees.SHORT)
async def test_a_service_that_is_back_is_used_at_once(mesh):
    await mesh.harm(signal.SIGKILL)
    await mesh.healthy(0)
    await mesh.start_service()
    return await routed(mesh, within_s=BACK_S)


@row("service", "hangs and goes on: used within 1 s", Sees.SHORT)
async def test_a_service_that_goes_on_is_used_at_once(mesh):
    await mesh.harm(signal.SIGSTOP)
    await mesh.healthy(0)
    await mesh.harm(signal.SIGCONT)
    return await routed(mesh, within_s=BACK_S)


async def routed(mesh, within_s):
    """Ask until the service decides; return the answer."""
    async with asyncio.timeout(within_s):
        while not (answer := await mesh.ask(SHORT)).reason:
            await asyncio.sleep(0.02)
    return answer


@row("service", "gets three bodies of 4 MB at once that are costly to read", Sees.SHORT)
async def test_costly_bodies_leave_others_routed(mesh):
    costly = b'{"prompt": ["' + b'a","' * ((1 << 20) - 10) + b'a"]}'
    costs = [asyncio.ensure_future(mesh.ask(costly)) for _ in range(3)]
    answers = []
    while not all(cost.done() for cost in costs):
        answers.append(await mesh.ask(SHORT))
    assert {each.reason for each in answers} == {"fits"}
    assert {cost.result().pool for cost in costs} == {"long"}
    return answers[-1]


# The pools


def retried(cause):
    return f'dualpool_retries_total{{cause="{cause}",pool="short"}}'


@row("short pool", "is absent", Sees.LONG, retried("failed"))
async def test_an_absent_short_pool_is_replaced(mesh):
    await mesh.short.stop()
    return await mesh.ask(SHORT)


# Such a request may be what ended the server: it must not end another one.
@row("short pool", "dies of a request", Sees.UNAVAILABLE, "http.llm.downstream_rq_5xx")
async def test_a_request_that_a_pool_dies_of_reaches_no_other(mesh):
    mesh.short.act = "reset"
    answer = await mesh.ask(SHORT)
    assert (answer.pool, len(mesh.short.got), mesh.long.got) == ("short", 1, [])
    return answer


@row("short pool", "is absent, and comes back: used within 2 s", Sees.SHORT)
async def test_a_short_pool_that_comes_back_is_used_at_once(mesh):
    await mesh.short.stop()
    for _ in range(20):
        assert (await mesh.ask(SHORT)).pool == "long"
    await mesh.noticed(mesh.short)
    await mesh.short.start()
    return await answered_by(mesh, "short", within_s=BACK_S)


async def answered_by(mesh, pool, within_s):
    """Ask until a pool answers; return its answer."""
    async with asyncio.timeout(within_s):
        while (answer := await mesh.ask(SHORT)).pool != pool or answer.status != 200:
            await asyncio.sleep(0.05)
    return answer


@row("short pool", "answers 503", Sees.LONG, retried("failed"))
async def test_a_pool_that_is_not_available_is_replaced(mesh):
    mesh.short.act = "fail"
    return await mesh.ask(SHORT)


@row("short pool", "is slow", Sees.SHORT, 'dualpool_answers_total{outcome="learnt"}')
async def test_a_slow_pool_is_waited_for(mesh):
    mesh.short.pace_s = 3.0
    return await mesh.ask(SHORT)


REFUSED_ROW = 'dualpool_misroutes_total{kind="retried",pool="short"}'


@row("short pool", "refuses a prompt as too long", Sees.LONG, retried("misrouted"), REFUSED_ROW)
async def test_a_refused_request_is_answered_by_the_long_pool(mesh):
    mesh.short.act, mesh.long.prompt_tokens = "refuse", 9000
    answer = await mesh.ask(LONGISH)
    assert mesh.long.got == mesh.short.got == [LONGISH]
    return answer


@row("short pool", "refuses a prompt while the service is down", Sees.LONG)
async def test_the_safety_net_needs_no_service(mesh):
    mesh.short.act = "refuse"
    async with mesh.half_sent(LONGISH) as rest:
        answer = await asyncio.gather(rest(), _kill_once_asked(mesh))
    assert mesh.long.got == mesh.short.got == [LONGISH]
    return answer[0]


async def _kill_once_asked(mesh):
    await until(lambda: mesh.short.got)
    await mesh.harm(signal.SIGKILL)


@row("short pool", "finds fault with a request that it could hold", Sees.REFUSED)
async def test_a_bad_request_is_tried_once(mesh):
    mesh.short.act = "find fault"
    answer = await mesh.ask(SHORT)
    assert (answer.status, len(mesh.short.got), len(mesh.long.got)) == (400, 1, 0)
    assert json.loads(answer.body)["error"] == BAD_REQUEST["error"]
    return answer


@row(
    "short pool", "dies in mid-stream", Sees.BROKEN, 'dualpool_answers_total{outcome="incomplete"}'
)
async def test_a_broken_stream_is_seen_as_broken(mesh):
    mesh.short.act, mesh.short.pace_s = "die", 0.005
    answer = await mesh.ask(USAGE)
    assert answer.body.count(b"data:") == CHUNKS // 2
    return answer


@row("long pool", "is absent, and the request is long", Sees.UNAVAILABLE)
async def test_without_the_long_pool_a_long_request_has_none(mesh):
    await mesh.long.stop()
    return await mesh.ask(LONG)


@row("long pool", "is absent, and the request is short", Sees.SHORT)
async def test_without_the_long_pool_short_requests_go_on(mesh):
    await mesh.long.stop()
    return await mesh.ask(SHORT)


@row("long pool", "is absent, and the short pool refuses a prompt as too long", Sees.UNAVAILABLE)
async def test_a_refusal_is_no_answer_while_the_long_pool_is_absent(mesh):
    mesh.short.act = "refuse"
    await mesh.long.stop()
    answers = [await mesh.ask(LONGISH) for _ in range(30)]
    assert {(each.status, each.pool) for each in answers} == {(503, "long")}
    return answers[-1]


@row("long pool", "is absent, and the request has no body", Sees.MODELS)
async def test_without_the_long_pool_the_short_one_lists_the_models(mesh):
    await mesh.long.stop()
    return await mesh.fetch("/v1/models")


@row("long pool", "reads nothing for 12 s while a large body comes", Sees.LONG)
async def test_a_pool_that_stalls_is_waited_for(mesh):
    mesh.long.act = "stall"
    answer = await mesh.ask(HUGE)
    assert answer.seconds > STALL_S
    return answer


@row("long pool", "and the service are absent, and the request is small", Sees.SHORT, FAIL_OPEN)
async def test_without_long_pool_and_service_small_requests_go_on(mesh):
    await mesh.harm(signal.SIGKILL)
    await mesh.long.stop()
    return await mesh.ask(SHORT)


@row("short pool", "and the service are absent", Sees.LONG, FAIL_OPEN)
async def test_without_short_pool_and_service_the_long_one_answers(mesh):
    await mesh.harm(signal.SIGKILL)
    await mesh.short.stop()
    return await mesh.ask(SHORT)


@row("short pool", "is absent, and the service hangs", Sees.LONG, ROUTER + "message_timeouts")
async def test_without_short_pool_and_with_a_hanging_service_the_long_one_answers(mesh):
    await mesh.short.stop()
    await mesh.harm(signal.SIGSTOP)
    answer = await mesh.ask(SHORT)
    await mesh.harm(signal.SIGCONT)
    return answer


@row("short pool", "answers 503, and the service is absent", Sees.LONG, FAIL_OPEN)
async def test_without_the_service_a_broken_short_pool_is_replaced(mesh):
    await mesh.harm(signal.SIGKILL)
    mesh.short.act = "fail"
    return await mesh.ask(SHORT)


@row("short pool", "dies of a request, and the service is absent", Sees.UNAVAILABLE, FAIL_OPEN)
async def test_without_the_service_what_kills_a_pool_kills_no_other(mesh):
    await mesh.harm(signal.SIGKILL)
    mesh.short.act = "reset"
    answer = await mesh.ask(SHORT)
    assert mesh.long.got == []
    return answer


@row("long pool", "and the service are absent, and the request is not small", Sees.UNAVAILABLE)
async def test_without_long_pool_and_service_a_request_that_is_not_small_fails(mesh):
    await mesh.harm(signal.SIGKILL)
    await mesh.long.stop()
    return await mesh.ask(MIDDLING)


@row("both pools", "are absent, and the short one comes back: no 503 after 2 s", Sees.SHORT)
async def test_the_first_pool_that_is_back_is_used_at_once(mesh):
    await mesh.short.stop()
    await mesh.long.stop()
    for _ in range(20):
        assert (await mesh.ask(SHORT)).status == 503
    await mesh.noticed(mesh.short)
    await mesh.short.start()
    async with asyncio.timeout(BACK_S):
        await mesh.healthy()
    answers = [await mesh.ask(SHORT) for _ in range(20)]
    assert {each.status for each in answers} == {200}
    return answers[-1]


@row("both pools", "are absent, and the long one comes back: answers within 2 s", Sees.LONG)
async def test_a_long_pool_that_comes_back_alone_answers_all(mesh):
    await mesh.short.stop()
    await mesh.long.stop()
    assert (await mesh.ask(SHORT)).status == 503
    await mesh.long.start()
    return await answered_by(mesh, "long", within_s=BACK_S)


@row("both pools", "are absent", Sees.UNAVAILABLE)
async def test_without_pools_there_is_no_answer(mesh):
    await mesh.short.stop()
    await mesh.long.stop()
    return await mesh.ask(SHORT)


# The client


LEFT = 'dualpool_streams_total{outcome="left"}'  # the router's: it had decided nothing


@row("client", "leaves before its body is sent", Sees.NOTHING, LEFT)
async def test_a_client_that_leaves_early_reaches_no_pool(mesh):
    answered = await mesh.stat(ANSWERED)
    async with mesh.half_sent(SHORT):
        await mesh.grew(ANSWERED, answered)
    assert mesh.short.got == mesh.long.got == []
    return Answer(0)


@row(
    "client",
    "leaves before the first token",
    Sees.NOTHING,
    "http.llm.downstream_cx_destroy_remote_active_rq",
)
async def test_a_client_that_leaves_frees_the_pool(mesh):
    mesh.short.act = "wait"
    asked = asyncio.ensure_future(mesh.ask(USAGE))
    await until(lambda: mesh.short.got)
    asked.cancel()
    await until(lambda: mesh.short.left)
    return Answer(0)


@row("client", "leaves in mid-stream", Sees.NOTHING, 'dualpool_answers_total{outcome="incomplete"}')
async def test_a_client_that_leaves_in_mid_stream_teaches_nothing(mesh):
    mesh.short.pace_s = 0.05
    asked = asyncio.ensure_future(mesh.ask(USAGE))
    await until(lambda: mesh.short.sent and mesh.short.sent[-1].count(b"\n\n") > 2)
    asked.cancel()
    await until(lambda: mesh.short.left)
    return Answer(0)


@row("client", "sends its body more slowly than message_timeout", Sees.SHORT)
async def test_a_slow_upload_is_routed_all_the_same(mesh):
    async with mesh.half_sent(SHORT) as rest:
        # A time-out that does not come cannot be waited for.
        await asyncio.sleep(MESSAGE_TIMEOUT_S * 1.5)
        return await rest()


LARGE = "vhost.llm.route.large.upstream_rq_completed"


@row("client", "sends more than envoy.large_body_bytes", Sees.LONG, LARGE)
async def test_a_large_body_is_decided_by_its_length(mesh):
    asked = await mesh.stat(ANSWERED)
    answer = await mesh.ask(HUGE)
    assert (answer.reason, mesh.long.got) == ("large", [HUGE])
    assert await mesh.stat(ANSWERED) == asked
    return answer


@row("client", "sends more than requests.max_body_bytes", Sees.TOO_LARGE)
async def test_a_body_over_the_limit_is_refused(mesh):
    answer = await mesh.ask(b"x" * ((1 << 25) + 1))
    assert mesh.short.got == mesh.long.got == []
    return answer


def document():
    """The document, from the rows."""
    lines = [
        "# What fails, and what then happens",
        "",
        "Each row is a test of the same words in `tests/integration/envoy/test_failures.py`,",
        "against the real Envoy 1.40 with the configuration of `envoy/envoy.yaml`. This page is",
        "written by `python -m tests.integration.envoy.test_failures`; a test compares the two.",
        "Counters that begin with `dualpool_` are those of the service, the others are Envoy's.",
        "[outages.md](outages.md) has the figures of outages and of overload.",
        "",
        "| part | what happens | what the client sees | what is counted |",
        "|---|---|---|---|",
    ]
    for each in ROWS:
        counted = "<br>".join(f"`{name}`" for name in each.counted) or "-"
        lines.append(f"| {each.part} | {each.failure} | {each.sees.value} | {counted} |")
    return "\n".join(lines) + "\n"


def test_the_document_says_what_the_tests_hold():
    assert DOCUMENT.read_text(encoding="utf-8") == document()


if __name__ == "__main__":
    print(document(), end="")
