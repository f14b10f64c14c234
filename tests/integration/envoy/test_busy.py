"""A service that is always late decides by the size of bodies, behind the real Envoy."""

import http.client
import time
from urllib.parse import urlsplit

import pytest

from tests.support import local_stack as gateway
from tests.support.production_stack import BODY, fronted, wait_for
from tests.support.transports import SERVED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=SERVED)
def stack(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("busy")
    # A share of the time limit that no answer keeps.
    listen = {"busy_share": 0.000001, "transport": str(request.param)}
    with fronted(folder, listen) as running:
        wait_for(lambda: 'reason="busy"' in (running.pool() and running.metrics()))
        yield running


def sent(stack, size, pieces=1, pause_s=0.0):
    """Send a body in pieces; return the pool that read all of it, and the reason."""
    peer = http.client.HTTPConnection(urlsplit(stack.url).netloc, timeout=20)
    peer.putrequest("POST", "/v1/completions")
    peer.putheader("content-length", str(size))
    peer.endheaders()
    for _ in range(pieces):
        peer.send(b"x" * (size // pieces))
        time.sleep(pause_s)
    answer = peer.getresponse()
    found = answer.read().decode(), answer.headers["x-llm-reason"]
    peer.close()
    return found


@pytest.mark.parametrize(("size", "pool"), [(1000, "short"), (30_000, "long"), (1 << 20, "long")])
def test_the_size_decides(stack, size, pool):
    assert sent(stack, size) == (pool, "busy")


def test_a_body_that_comes_later_arrives_whole(stack):
    assert sent(stack, 1 << 20, pieces=8, pause_s=0.05) == ("long", "busy")
    assert sent(stack, 1000, pieces=5, pause_s=0.05) == ("short", "busy")


def test_a_chunked_body_goes_to_the_largest_pool(stack):
    peer = http.client.HTTPConnection(urlsplit(stack.url).netloc, timeout=20)
    peer.request("POST", "/v1/completions", iter([b"{}"]), {"te": "trailers"}, encode_chunked=True)
    assert peer.getresponse().headers["x-llm-reason"] == "busy"
    peer.close()


def test_no_request_fails_and_none_is_read(stack):
    answers = [gateway.fetch(f"{stack.url}/v1/completions", BODY).status for _ in range(50)]
    assert answers == [200] * 50
    assert 'dualpool_streams_total{outcome="fault"} 0.0' in stack.metrics()
    assert 'dualpool_streams_total{outcome="protocol"} 0.0' in stack.metrics()
