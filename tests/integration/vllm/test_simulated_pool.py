"""The simulated pool beside a running vLLM 0.32: the same requests, the same answers."""

import asyncio
import gzip
import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable

import pytest
from aiohttp import ClientSession
from prometheus_client import Metric

from extproc.simulator.engine import A100_80GB
from extproc.simulator.pool.server import SimulatedPoolSettings
from tests.support.pool_client import (
    CHAT,
    COMPLETION,
    HELLO,
    MESSAGES,
    RESPONSES,
    Answered,
    Asked,
    ask,
    chat,
    completion,
    get,
    messages,
    metrics,
    responses,
    settings,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# What a running vLLM answers to the same requests, but for what it says.

LONG = "word " * 3000
TEXT = json.dumps({"messages": HELLO, "max_tokens": 1, "ignore_eos": True})
BODY = TEXT.encode()
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
    # Echo. Its answers of one token may end with "stop" by chance; ignore_eos rules that out.
    completion(echo=True, max_tokens=0, ignore_eos=True),
    completion(echo=True, max_tokens=3, ignore_eos=True),
    completion([5, 6], echo=True, max_tokens=0, ignore_eos=True),
    completion(["hello", "you"], echo=True, max_tokens=0, n=2, ignore_eos=True),
    completion(echo=True, max_tokens=0, stream=True, ignore_eos=True),
    completion(
        echo=True,
        max_tokens=3,
        stream=True,
        ignore_eos=True,
        stream_options={"include_usage": True},
    ),
    completion(echo=None, max_tokens=1, ignore_eos=True),
    completion(echo=True, max_tokens=-1),
    completion(LONG, echo=True, max_tokens=0),
    completion(max_tokens=0),
    completion(max_tokens=None, ignore_eos=True),
    completion(n=None),
    # Numbers that JSON does not know, and sampling parameters out of range.
    *(
        Asked("POST", path, text % (name, number))
        for path, text in (
            (CHAT, b'{"messages":[{"role":"user","content":"hi"}],"max_tokens":1,"%s":%s}'),
            (COMPLETION, b'{"prompt":"hi","max_tokens":1,"%s":%s}'),
            (RESPONSES, b'{"input":"hi","max_output_tokens":1,"%s":%s}'),
            (
                MESSAGES,
                b'{"model":"tiny-qwen","messages":[{"role":"user","content":"hi"}],'
                b'"max_tokens":1,"%s":%s}',
            ),
        )
        for name, number in (
            (b"temperature", b"NaN"),
            (b"temperature", b"-1"),
            (b"temperature", b"2.5"),
            (b"temperature", b'"x"'),
            (b"top_p", b"-Infinity"),
            (b"top_k", b"-5"),
        )
    ),
    *(
        chat(**{name: number})
        for name in ("presence_penalty", "frequency_penalty", "repetition_penalty", "min_p")
        for number in (float("nan"), float("inf"), -3.0)
    ),
    chat(max_tokens=float("nan")),
    chat(max_tokens=float("inf")),
    chat(unknown=float("nan"), max_tokens=1, ignore_eos=True),
    # Encodings.
    Asked("POST", CHAT, gzip.compress(BODY), more={"Content-Encoding": "gzip"}),
    *(Asked("POST", CHAT, BODY, more={"Content-Encoding": kind}) for kind in ("gzip", "br", "x")),
    Asked("POST", CHAT, BOM_UTF8 + BODY),
    *(
        Asked("POST", CHAT, BODY.decode().encode(code))
        for code in ("utf-16", "utf-16-le", "utf-32")
    ),
    Asked("POST", CHAT, TEXT.encode("utf-16")[:-1]),
    Asked("POST", CHAT, BOM_UTF8),
    Asked("POST", CHAT, BOM_UTF8 + b"{nope"),
    Asked("POST", CHAT, BODY, content_type="application/json; charset=utf-16"),
    Asked("POST", CHAT, BODY, content_type="application/vnd.x+json"),
    # Methods, browsers and paths.
    *(Asked("HEAD", path) for path in ("/v1/models", "/health", CHAT, "/nope", "/metrics")),
    *(Asked(method, CHAT) for method in ("OPTIONS", "DELETE", "PUT")),
    *(Asked("OPTIONS", path) for path in ("/nope", "/health")),
    *(
        Asked("OPTIONS", path, more={"Origin": "http://x"} | headers)
        for path in (CHAT, "/nope")
        for headers in (
            {},
            {"Access-Control-Request-Method": "POST"},
            {"Access-Control-Request-Method": "BREW"},
            {
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type",
                "Access-Control-Request-Private-Network": "true",
            },
        )
    ),
    Asked("POST", CHAT, BODY, more={"Origin": "http://x"}),
    Asked("POST", "/v1%2Fchat%2Fcompletions", BODY),
    Asked("POST", CHAT + "/", BODY),
    Asked("POST", "/nope/", BODY),
    Asked("POST", "/invocations", BODY),
    Asked("POST", "/invocations", {"prompt": "hi", "max_tokens": 1, "ignore_eos": True}),
    Asked("POST", "/invocations", {}),
    get("/ping"),
    Asked("POST", "/tokenize", {}),
    Asked("POST", "/tokenize", {"prompt": 5}),
    Asked("POST", "/tokenize", {"messages": []}),
    # Responses.
    responses(max_output_tokens=3, ignore_eos=True),
    responses(max_output_tokens=3, ignore_eos=True, stream=True),
    responses(
        HELLO,
        instructions="be brief",
        max_output_tokens=2,
        temperature=0.5,
        top_p=0.9,
        metadata={"a": "b"},
        user="u",
        store=False,
        ignore_eos=True,
    ),
    responses(
        max_output_tokens=2,
        ignore_eos=True,
        tools=[{"type": "function", "name": "f", "parameters": {"type": "object"}}],
    ),
    responses(
        [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "ok"},
        ],
        max_output_tokens=1,
        ignore_eos=True,
    ),
    responses(LONG, truncation="auto", max_output_tokens=3, ignore_eos=True),
    responses(request_id="mine", max_output_tokens=1, ignore_eos=True),
    responses(model="nope"),
    responses(LONG),
    responses(LONG, stream=True),
    responses(max_output_tokens=5000),
    responses(max_output_tokens=0),
    responses(max_output_tokens=-1),
    responses(previous_response_id="resp_1"),
    responses(background=True),
    responses(background=True, store=False),
    responses(prompt={"id": "x"}),
    responses(5),
    responses([]),
    responses(tool_choice="required"),
    responses(tool_choice={"type": "function", "name": "f"}),
    responses(stream="maybe"),
    responses(temperature=3),
    Asked("POST", RESPONSES, {}),
    Asked("POST", RESPONSES, b"{nope"),
    Asked("POST", RESPONSES, b"{}", content_type="text/plain"),
    get(RESPONSES),
    get(f"{RESPONSES}/resp_1"),
    Asked("POST", f"{RESPONSES}/resp_1/cancel"),
    Asked("DELETE", f"{RESPONSES}/resp_1"),
    # Messages. A body cannot ignore the end of sequence, so these have one token.
    *(
        messages(model="tiny-qwen", **fields)
        for fields in (
            {"max_tokens": 1},
            {"max_tokens": 1, "stream": True},
            {"max_tokens": 1, "system": "be brief"},
            {"max_tokens": 1, "system": [{"type": "text", "text": "be brief"}]},
            {"max_tokens": 1, "tools": [{"name": "f", "input_schema": {}}], "stream": True},
            {"messages": [{"role": "user", "content": LONG}]},
            {"messages": [{"role": "user", "content": LONG}], "stream": True},
            {"max_tokens": 5000},
            {"max_tokens": 0},
            {"max_tokens": None},
            {"messages": []},
            {"messages": "x"},
            {"messages": [{"role": "x", "content": "y"}]},
            {"messages": [{"role": "user", "content": [{"type": "document"}]}]},
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"a": 1}}]}]},
            {"stream": "maybe"},
            {"tools": [{"name": "f"}]},
        )
    ),
    messages(model=""),
    messages(model="nope"),
    Asked("POST", MESSAGES, {}),
    Asked("POST", MESSAGES, b"{nope"),
    get(MESSAGES),
    Asked("POST", f"{MESSAGES}/count_tokens", {"model": "tiny-qwen", "messages": HELLO}),
    Asked("POST", f"{MESSAGES}/count_tokens", {"model": "nope", "messages": HELLO}),
    Asked("POST", f"{MESSAGES}/count_tokens", {}),
]

# What differs by nature: ids, times, texts, the counts of another tokenizer, the signature.
DIFFERENT = [
    (rb'"created(_at)?":\d+', rb'"created\1":0'),
    (rb"(cmpl-|resp_|msg_)[0-9a-f]{16}", rb"\1"),
    (rb'"(content|text|delta)":"(?:[^"\\]|\\.)*"', rb'"\1":""'),
    (rb'"(prompt|total|input|original_input|max_output)_tokens":\d+', rb'"\1_tokens":0'),
    (rb'"prompt_token_ids":\[[\d,]*\]', b'"prompt_token_ids":[]'),
    (rb'"sequence_number":\d+', b'"sequence_number":0'),
    (rb'"(cached|cache_write)_tokens":\d+', rb'"\1_tokens":0'),  # its prefix cache
    (rb'"system_fingerprint":"[^"]*"', b'"system_fingerprint":""'),
    # A server under load sends several tokens in one chunk.
    (rb"((?:event: .*\n)?data: .*\n\n)\1+", rb"\1"),
]
# HEAD of /metrics tells the encoding of a body that it does not send.
OWN_HEADERS = ("server", "date", "content-length", "content-encoding", "x-dualpool-simulated")


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
            asked.method, asked.url, data=asked.data, headers=asked.headers
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
    expected = comparable(answer)
    # Its model ends one answer in 160 at the first token, and then has no text; ask it again.
    for _ in range(2):
        if comparable(real(asked)) == expected:
            return
    assert expected == comparable(real(asked))


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
