"""What only the real Envoy can show: the whole way of a request, with simulated pools."""

import gzip
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.local_stack import OwnEnvoy, fetch, running, wait_for

pytestmark = pytest.mark.slow

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def stack():
    with running() as given:
        yield given


def chat(stack, text, **fields):
    return {
        "model": stack.model,
        "max_tokens": 8,
        "messages": [{"role": "user", "content": text}],
    } | fields


def samples(stack):
    return sum(figures["samples"] for figures in stack.state().values())


def test_a_short_request_goes_to_the_short_pool(stack):
    answer = stack.post(CHAT, chat(stack, "hello"))
    assert (answer.status, answer.pool) == (200, "short")
    assert answer.headers["x-llm-reason"] == "fits"


def test_a_long_body_changes_the_pool(stack):
    answer = stack.post(CHAT, chat(stack, "many words here " * 4000))
    assert (answer.status, answer.pool) == (200, "long")
    assert answer.headers["x-llm-reason"] == "capacity"


def test_the_output_limit_counts(stack):
    assert stack.post(CHAT, chat(stack, "hello", max_tokens=8300)).pool == "long"


def test_usage_changes_the_ratio(stack):
    before = samples(stack)
    stack.post(CHAT, chat(stack, "The owl sat still, as owls do. " * 60))
    wait_for(lambda: samples(stack) > before)
    [figures] = [f for name, f in stack.state().items() if name.startswith("prose/")]
    assert figures["bytes_per_token"] != 4.0


def test_the_usage_of_a_stream_teaches(stack):
    before = samples(stack)
    body = chat(stack, "The owl sat still. " * 60, stream=True)
    answer = stack.post(CHAT, body | {"stream_options": {"include_usage": True}})
    assert answer.body.rstrip().endswith(b"data: [DONE]")
    wait_for(lambda: samples(stack) > before)


def test_a_stream_whose_client_wants_no_usage_teaches_nothing(stack):
    # Envoy says nothing of an answer without usage, not even that it has come to its end.
    untold = 'dualpool_answers_total{outcome="incomplete"} 0.0'
    assert untold in stack.metrics()
    body = chat(stack, "The owl sat still. " * 60, stream=True)
    stack.post(CHAT, body | {"stream_options": {"include_usage": False}})
    wait_for(lambda: untold not in stack.metrics())


def test_what_carries_no_prompt_passes_on(stack):
    answer = stack.post("/v1/models", None)
    assert answer.json["data"][0]["id"] == stack.model


def test_a_client_cannot_choose_the_pool(stack):
    body = chat(stack, "many words here " * 4000)
    assert stack.post(CHAT, body, x_llm_pool="short").pool == "long"


def test_a_prompt_that_no_pool_holds_gets_the_pools_own_answer(stack):
    answer = stack.post(CHAT, chat(stack, "word " * 70_000))
    assert (answer.status, answer.pool) == (400, "long")
    assert "maximum context length is 65536 tokens" in answer.json["error"]["message"]


def test_a_gzipped_request_is_read(stack):
    body = gzip.compress(json.dumps(chat(stack, "many words here " * 4000)).encode())
    answer = stack.post(CHAT, body, content_encoding="gzip")
    assert answer.headers["x-llm-reason"] == "capacity"


HOSTILE = {
    "ten megabytes": (
        b'{"messages":[{"role":"user","content":"%s"}]}' % (b"x" * 10_000_000),
        "large",
    ),
    "thirty thousand messages": (
        b'{"messages":[' + b",".join([b'{"role":"user","content":"hi there"}'] * 30_000) + b"]}",
        "unreadable",
    ),
    "a thousand deep": (b'{"messages":' + b"[" * 1000 + b"]" * 1000 + b"}", ""),
    "a hundred thousand deep": (
        b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "unreadable",
    ),
    "invalid UTF-8": (b'{"messages":[{"role":"user","content":"\xff\xfe"}]}', "unreadable"),
    "no JSON": (b"hello", "unreadable"),
    "nothing": (b"{}", ""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_gets_the_pools_answer_and_harms_nobody(stack, name):
    body, reason = HOSTILE[name]
    answer = stack.post(CHAT, body)
    assert answer.status in (200, 400)
    assert answer.headers["x-llm-reason"] == (reason or answer.headers["x-llm-reason"])
    assert stack.post(CHAT, chat(stack, "still there?")).pool == "short"


def test_a_large_body_of_unknown_length_costs_no_memory(stack):
    before, refused, passed = stack.rss_mb(), left_chunked(stack), failed_open(stack)
    body = json.dumps(chat(stack, "hello", unread="x" * (30 << 20))).encode()

    def ask(_):
        return fetch(f"{stack.url}{CHAT}", iter([body]))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))
    assert [(answer.status, answer.pool) for answer in answers] == [(200, "long")] * 4
    assert all("x-llm-reason" not in answer.headers for answer in answers)
    assert stack.rss_mb() < before + 60
    assert stack.post(CHAT, chat(stack, "hello")).headers["x-llm-reason"] == "fits"
    # What Envoy counts as an absence of the service, the service counts too.
    wait_for(lambda: left_chunked(stack) == refused + 4)
    assert failed_open(stack) == passed + 4


def left_chunked(stack):
    [count] = re.findall(r'streams_total\{outcome="left_chunked"\} (\S+)', stack.metrics())
    return float(count)


def failed_open(stack):
    stats = fetch(f"{stack.gateway.admin_url}/stats?filter=router.failure_mode_allowed").body
    return int(stats.split()[-1])


def test_a_gzip_bomb_costs_neither_memory_nor_time(stack):
    bomb = gzip.compress(b'{"messages":"' + b" " * 400_000_000)
    stack.post(CHAT, chat(stack, "warm"))
    before = stack.rss_mb()
    answer = stack.post(CHAT, bomb, content_encoding="gzip")
    assert answer.headers["x-llm-reason"] == "unreadable"
    assert stack.rss_mb() < before + 100


def away(document):
    """Lead the short pool to a port where nobody is."""
    [short] = [c for c in document["static_resources"]["clusters"] if c["name"] == "short"]
    [endpoint] = short["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["port_value"] = 1
    return document


def test_while_a_pool_is_away_the_largest_answers():
    with running(envoy=OwnEnvoy(change=away)) as given:
        answers = [given.post(CHAT, chat(given, "hello")) for _ in range(12)]
    assert {(answer.status, answer.pool) for answer in answers} == {(200, "long")}
    assert {answer.headers["x-llm-reason"] for answer in answers} == {"fits"}


def single(request_mode, response_mode, early):
    """Return a change of the single form: other body modes of its one filter."""

    def change(document):
        processor = filters(document)["envoy.filters.http.ext_proc"]["typed_config"]
        modes = processor["processing_mode"]
        modes |= {"request_body_mode": request_mode, "response_body_mode": response_mode}
        # Envoy wants the trailers of a full-duplex direction, or it does not start.
        for side, mode in (("request", request_mode), ("response", response_mode)):
            modes[f"{side}_trailer_mode"] = "SEND" if "DUPLEX" in mode else "SKIP"
        # The two do not go together.
        del processor["disable_immediate_response"]
        processor["send_body_without_waiting_for_header_response"] = early
        return document

    return change


def filters(document):
    """The HTTP filters by name."""
    [listener] = document["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return {found["name"]: found for found in manager["http_filters"]}


FORMS = {
    "buffered, response streamed": ("BUFFERED", "STREAMED", False),
    "full duplex": ("FULL_DUPLEX_STREAMED", "FULL_DUPLEX_STREAMED", False),
    "buffered, response full duplex": ("BUFFERED", "FULL_DUPLEX_STREAMED", False),
    "streamed, answered late": ("STREAMED", "STREAMED", True),
    "buffered both ways": ("BUFFERED", "BUFFERED", False),
    "partly buffered both ways": ("BUFFERED_PARTIAL", "BUFFERED_PARTIAL", False),
}


@pytest.fixture(scope="module", params=FORMS)
def form(request):
    envoy = OwnEnvoy(settings={"form": "single"}, change=single(*FORMS[request.param]))
    with running(envoy=envoy) as given:
        yield given


def test_one_filter_routes_and_learns_in_every_body_mode(form):
    body = chat(form, "The owl sat still, as owls do. " * 60)
    answer = form.post(CHAT, body)
    assert (answer.status, answer.pool) == (200, "short")
    assert answer.json["usage"]["completion_tokens"] == 8
    wait_for(lambda: samples(form) == 1)


def test_one_filter_passes_streams_on_in_every_body_mode(form):
    body = chat(form, "The owl sat still, as owls do. " * 60, stream=True)
    answer = form.post(CHAT, body | {"stream_options": {"include_usage": True}})
    assert (answer.status, answer.pool) == (200, "short")
    assert answer.body.rstrip().endswith(b"data: [DONE]")
