"""Clients that leave at any moment, behind the real Envoy, on each transport."""

import asyncio
import json
import random
from urllib.parse import urlsplit

import pytest

from extproc.config.settings import Transport
from tests.support.production_stack import BODY, fronted, wait_for

pytestmark = pytest.mark.slow

CLIENTS = 400
# Of both filters.
FAILURES = r"\.(streams_failed|failure_mode_allowed|message_timeouts|spurious_msgs_received)$"


@pytest.fixture(scope="module", params=["tcp grpc", "tcp h2", "unix h2"])
def stack(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transports")
    socket, transport = request.param.split()
    listen = {"transport": str(Transport(transport))}
    if socket == "unix":
        listen["grpc"] = f"unix:{folder}/socket"
    # A machine that is slow must not look like a stream that was lost.
    with fronted(folder, listen, {"message_timeout_ms": 5000}) as running:
        # Until Envoy's first health check of the service, requests pass to the largest pool.
        wait_for(lambda: running.pool() == "short")
        yield running


async def visit(stack, draw):
    """Send a part of a request, perhaps all of it, and leave after a random time."""
    body = json.dumps(BODY | {"prompt": "owls " * draw.choice((5, 500, 20_000))}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    sent = (head.encode() + body)[: draw.choice((None, draw.randrange(len(body))))]
    where = urlsplit(stack.url)
    _, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(sent)
    await asyncio.sleep(draw.random() / 20)
    writer.transport.abort()


async def visits(stack):
    draw = random.Random(7)
    for _ in range(CLIENTS // 20):
        await asyncio.gather(*(visit(stack, draw) for _ in range(20)))


def test_clients_that_leave_at_any_moment_harm_nobody(stack):
    failed = stack.stats(FAILURES)
    assert len(failed) == 8
    asyncio.run(visits(stack))
    assert [stack.pool() for _ in range(50)] == ["short"] * 50
    # No other client's request passed without a decision either.
    assert stack.stats(FAILURES) == failed
    metrics = stack.metrics()
    for outcome in ("fault", "protocol"):
        assert f'dualpool_streams_total{{outcome="{outcome}"}} 0.0' in metrics
    wait_for(lambda: "\ndualpool_streams_open 0.0" in stack.metrics())
