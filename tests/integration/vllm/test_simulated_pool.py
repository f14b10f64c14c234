"""The simulated pool beside a running vLLM 0.32: the same requests, the same answers."""

import asyncio
import re
from collections.abc import Callable

import pytest
from aiohttp import ClientSession
from prometheus_client import Metric

from extproc.simulator.engine import A100_80GB
from extproc.simulator.pool.server import SimulatedPoolSettings
from tests.support.pool_client import (
    CHAT,
    Answered,
    Asked,
    ask,
    chat,
    completion,
    get,
    metrics,
    settings,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# What a running vLLM answers to the same requests, but for what it says.

LONG = "word " * 3000
TOOLS = [{"type": "function", "function": {"name": "f"}}]
SAME = [
    get("/health"),
    get("/version"),
    get("/nope"),
    get(CHAT),
    Asked("POST", "/v1/models", {}),
    Asked("POST", "/v1/embeddings", {"input": "x"}),
    Asked("POST", "/score", {"text_1": "x", "text_2": "y"}),
    chat(max_tokens=5, ignore_eos=True),
    chat(max_tokens=3, n=2, ignore_eos=True),
    chat(max_tokens=3, stream=True, ignore_eos=True),
    chat(max_tokens=3, stream=True, ignore_eos=True, stream_options={"include_usage": True}),
    chat(
        max_tokens=1,
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
    ),
    chat(max_tokens=1, tool_choice="none", tools=TOOLS),
    chat(max_tokens=3, ignore_eos=True, tools=TOOLS),
    chat(max_tokens=3, ignore_eos=True, tools=TOOLS, stream=True),
    chat(max_tokens="1"),
    chat(max_tokens=1, request_id="mine"),
    completion(max_tokens=4, ignore_eos=True),
    completion(ignore_eos=True),
    completion(["hello", "you"], max_tokens=2, n=2, ignore_eos=True),
    completion([[1, 2, 3], [4]], max_tokens=2, ignore_eos=True),
    completion(max_tokens=3, stream=True, ignore_eos=True),
    completion(
        max_tokens=1,
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
    ),
    completion([5] * 2000, max_tokens=1500, ignore_eos=True),
    chat(model="nope"),
    completion(model="nope"),
    Asked("POST", "/tokenize", {"model": "nope", "prompt": "x"}),
    *(Asked("POST", CHAT, body) for body in (b"{not json", b'{"messages": [', b"", b"[]", b"null")),
    Asked("POST", CHAT, b'{"messages": [{"role": "user", "content": "\xff"}]}'),
    Asked("POST", CHAT, b"[" * 5000),
    Asked("POST", CHAT, b"{}", content_type="text/plain"),
    Asked("POST", CHAT, {}),
    chat(messages="x"),
    chat(messages=[]),
    chat(messages=[{"role": "user", "content": "\ud800"}]),
    chat(
        messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    ),
    chat(max_tokens="abc", n="x"),
    chat(max_tokens=1.5),
    chat(stream="maybe"),
    chat(model=5),
    chat(n=0),
    chat(n=100_000),
    chat(max_tokens=3, min_tokens=5),
    chat(min_tokens=-1),
    chat(tools=[]),
    chat(tool_choice="required"),
    chat(stream_options={"include_usage": True}),
    chat(stream=True, stream_options=5),
    completion(None),
    completion([]),
    completion([""]),
    completion(5),
    completion([1, "a"]),
    completion([-1]),
    completion([10**9]),
    *(
        asked
        for stream in (False, True)
        for asked in (
            completion(LONG, stream=stream),
            chat(messages=[{"role": "user", "content": LONG}], stream=stream),
            completion([5] * 3000, stream=stream),
            completion([5] * 2049, stream=stream),
            completion([5] * 2048, stream=stream),
            completion("a" * 300_000, stream=stream),
            completion(max_tokens=5000, stream=stream),
            chat(max_tokens=5000, stream=stream),
            chat(max_completion_tokens=5000, max_tokens=4, stream=stream),
            chat(max_tokens=0, stream=stream),
            chat(max_tokens=-1, stream=stream),
        )
    ),
]

# What differs by nature: ids, times, texts, the counts of another tokenizer, the signature.
DIFFERENT = [
    (rb'"created":\d+', b'"created":0'),
    (rb"cmpl-[0-9a-f]{16}", b"cmpl-0"),
    (rb'"(content|text)":"(?:[^"\\]|\\.)*"', rb'"\1":""'),
    (rb'"(prompt|total)_tokens":\d+', rb'"\1_tokens":0'),
    (rb'"system_fingerprint":"[^"]*"', b'"system_fingerprint":""'),
    # A server under load sends several tokens in one chunk.
    (rb"(data: .*\n\n)\1+", rb"\1"),
]
OWN_HEADERS = ("server", "date", "content-length", "x-dualpool-simulated")


def comparable(answer: Answered) -> Answered:
    body = answer.body
    for pattern, replacement in DIFFERENT:
        body = re.sub(pattern, replacement, body)
    headers = {k: v for k, v in answer.headers.items() if k not in OWN_HEADERS}
    return Answered(answer.status, headers, body)


async def send_to(url: str, asked: Asked) -> Answered:
    async with (
        ClientSession(url) as session,
        session.request(
            asked.method, asked.path, data=asked.data, headers=asked.headers
        ) as response,
    ):
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answered(response.status, headers, await response.read())


@pytest.fixture(scope="session")
def real(vllm_urls) -> Callable[[Asked], Answered]:
    """Ask the smaller of the real ones."""
    return lambda asked: asyncio.run(send_to(vllm_urls[0], asked))


@pytest.fixture(scope="session")
def twin(real) -> SimulatedPoolSettings:
    """A pool with the model and the window of that vLLM, which has 2048 tokens."""
    (card,) = real(get("/v1/models")).document["data"]
    return settings(window=card["max_model_len"], model=card["id"], profile=A100_80GB)


@pytest.mark.parametrize("asked", SAME, ids=range(len(SAME)))
def test_the_answer_is_vllms_but_for_what_it_says(asked, real, twin):
    (answer,) = ask(asked, pool=twin)
    assert comparable(answer) == comparable(real(asked))


def test_every_metric_is_one_of_vllms(real, twin):
    (answer,) = ask(get("/metrics"), pool=twin)
    ours, theirs = metrics(answer.body), metrics(real(get("/metrics")).body)
    assert set(ours) <= set(theirs)
    for name, family in ours.items():
        assert (family.type, family.documentation) == (
            theirs[name].type,
            theirs[name].documentation,
        )


def test_every_bucket_is_one_of_vllms(real, twin):
    (answer,) = ask(get("/metrics"), pool=twin)
    ours, theirs = metrics(answer.body), metrics(real(get("/metrics")).body)
    for name, family in ours.items():
        if name != "vllm:cache_config_info":
            assert shapes(family) == shapes(theirs[name])


def shapes(family: Metric) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples}
