"""The simulated pool over HTTP."""

import asyncio
import contextlib
import http.client
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from aiohttp.test_utils import TestClient

from extproc.simulator.engine import A100_80GB, EngineConfig, Profile
from extproc.simulator.pool import server
from extproc.simulator.pool.server import SimulatedPoolSettings, main
from tests.support.pool_client import (
    CHAT,
    HELLO,
    MODEL,
    Asked,
    ask,
    chat,
    completion,
    get,
    metrics,
    send,
    serving,
    settings,
)


def scrape_after(*requests: Asked, pool: SimulatedPoolSettings | None = None) -> dict[str, float]:
    """The samples of a pool that has answered some requests, by name and labels."""

    async def talk() -> bytes:
        async with serving(pool or settings()) as client:
            await asyncio.gather(*(send(client, asked) for asked in requests))
            return (await send(client, get("/metrics"))).body

    found = {}
    for family in metrics(asyncio.run(talk())).values():
        for sample in family.samples:
            more = {k: v for k, v in sample.labels.items() if k not in ("model_name", "engine")}
            found[sample.name + "".join(f" {k}={v}" for k, v in more.items())] = sample.value
    return found


def test_the_pool_is_healthy():
    (answer,) = ask(get("/health"))
    assert (answer.status, answer.body) == (200, b"")


def test_the_models_name_the_window():
    (answer,) = ask(get("/v1/models"))
    (card,) = answer.document["data"]
    assert (card["id"], card["max_model_len"]) == (MODEL, 2048)


def test_the_version_is_that_of_the_vllm_it_follows():
    (answer,) = ask(get("/version"))
    assert answer.body == b'{"version":"0.32.0"}'


@pytest.mark.parametrize("asked", [get("/health"), chat(max_tokens=1, stream=True), chat(n=0)])
def test_every_answer_says_that_it_is_simulated(asked):
    (answer,) = ask(asked)
    assert answer.headers["x-dualpool-simulated"] == "1"


def test_an_answer_has_the_tokens_it_counts():
    (answer,) = ask(chat(max_tokens=40, ignore_eos=True))
    (choice,) = answer.document["choices"]
    assert len(choice["message"]["content"].split()) == 40
    assert choice["finish_reason"] == "length"
    assert answer.document["usage"]["completion_tokens"] == 40
    assert answer.document["usage"]["prompt_tokens"] == 8


def test_the_same_request_gets_the_same_answer():
    one, other = ask(chat(), chat())
    assert one.document["choices"] == other.document["choices"]
    assert one.document["id"] != other.document["id"]


def test_another_seed_gives_another_answer():
    (one,) = ask(chat())
    (other,) = ask(
        chat(), pool=SimulatedPoolSettings(model=MODEL, engine=settings().engine, seed=1)
    )
    assert one.document["choices"] != other.document["choices"]


def test_a_stream_tells_the_tokens_that_it_counts():
    options = {"include_usage": True}
    (answer,) = ask(chat(stream=True, stream_options=options, max_tokens=30, ignore_eos=True))
    role, *chunks, usage, done = answer.events
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(text.split()) == usage["usage"]["completion_tokens"] == 30
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert done is None


def test_without_include_usage_a_stream_has_none():
    (answer,) = ask(chat(stream=True, max_tokens=3))
    assert b'"usage"' not in answer.body


def test_continuous_usage_counts_up():
    options = {"include_usage": True, "continuous_usage_stats": True}
    (answer,) = ask(chat(stream=True, stream_options=options, max_tokens=30, ignore_eos=True))
    counts = [event["usage"]["completion_tokens"] for event in answer.events if event]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert counts[-1] == 30


def test_n_answers_are_told_under_their_indices():
    (answer,) = ask(chat(n=2, stream=True, max_tokens=5, ignore_eos=True))
    texts = {0: "", 1: ""}
    for event in filter(None, answer.events):
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta"]["content"]
    assert [len(text.split()) for text in texts.values()] == [5, 5]
    assert texts[0] != texts[1]


def test_a_completion_answers_every_prompt():
    (answer,) = ask(completion(["hello", "you there"], n=2, max_tokens=2, ignore_eos=True))
    assert [choice["index"] for choice in answer.document["choices"]] == [0, 1, 2, 3]
    assert answer.document["usage"] == {
        "prompt_tokens": 3,
        "total_tokens": 11,
        "completion_tokens": 8,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }


def test_a_completion_streams_text_from_the_start():
    (answer,) = ask(completion(stream=True, max_tokens=2, ignore_eos=True))
    *chunks, done = answer.events
    assert len("".join(chunk["choices"][0]["text"] for chunk in chunks).split()) == 2
    assert done is None


def test_a_clamped_answer_ends_at_the_window():
    (answer,) = ask(completion([5] * 2000, max_tokens=1500, ignore_eos=True))
    assert answer.document["usage"]["total_tokens"] == 2048
    assert answer.document["choices"][0]["finish_reason"] == "length"


def test_the_client_may_name_its_request():
    (answer,) = ask(chat(request_id="mine", max_tokens=1))
    assert answer.document["id"] == "chatcmpl-mine"


def test_a_large_prompt_is_read_in_a_thread():
    (answer,) = ask(chat(messages=[{"role": "user", "content": "word " * 50_000}]))
    assert answer.status == 400
    assert answer.document["error"]["param"] == "input_tokens"


def test_tokenize_counts_as_a_chat_does():
    tokenized, answered = ask(Asked("POST", "/tokenize", {"messages": HELLO}), chat(max_tokens=1))
    count = tokenized.document["count"]
    assert count == answered.document["usage"]["prompt_tokens"]
    assert (len(tokenized.document["tokens"]), tokenized.document["max_model_len"]) == (count, 2048)


def test_embeddings_are_not_found():
    (answer,) = ask(Asked("POST", "/v1/embeddings", {"input": "x"}))
    assert (answer.status, answer.body) == (404, b'{"detail":"Not Found"}')


def test_another_method_is_not_allowed():
    (answer,) = ask(get(CHAT))
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert answer.body == b'{"detail":"Method Not Allowed"}'


def test_only_json_is_read():
    (answer,) = ask(Asked("POST", CHAT, b"{}", content_type="text/plain"))
    assert answer.status == 400
    assert "Unsupported Media Type" in answer.document["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({f"x-{number}": "" for number in range(240)}, 200),
        ({f"x-{number}": "" for number in range(257)}, 400),
        ({"x-long": "x" * 70_000}, 200),
    ],
)
def test_headers_are_limited_as_in_vllm(headers, status):
    (answer,) = ask(Asked("GET", "/v1/models", more=headers))
    assert answer.status == status


def test_finished_requests_are_counted():
    found = scrape_after(chat(max_tokens=3, ignore_eos=True), chat(), completion([5] * 3000))
    assert found["vllm:request_success_total finished_reason=length"] == 1
    assert found["vllm:request_success_total finished_reason=stop"] == 1
    assert found["vllm:prompt_tokens_total"] == found["vllm:request_prompt_tokens_sum"] == 16
    tokens = found["vllm:generation_tokens_total"]
    assert tokens == found["vllm:request_generation_tokens_sum"]
    assert tokens == found["vllm:inter_token_latency_seconds_count"] + 2
    for name in ("time_to_first_token", "e2e_request_latency", "request_queue_time"):
        assert found[f"vllm:{name}_seconds_count"] == 2


def test_preemptions_are_counted():
    asked = [completion([5] * 100, max_tokens=200, ignore_eos=True, seed=n) for n in range(8)]
    found = scrape_after(*asked, pool=settings(window=512, blocks=20))
    assert found["vllm:num_preemptions_total"] > 0
    assert found["vllm:request_num_preemptions_sum"] == found["vllm:num_preemptions_total"]
    assert found["vllm:generation_tokens_total"] == 8 * 200
    assert found["vllm:kv_cache_usage_perc"] == 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_sequence(stream):
    endless = chat(stream=stream, ignore_eos=True)

    async def talk() -> None:
        async with serving(settings(profile=A100_80GB)) as client:
            gone = asyncio.create_task(send(client, endless))
            await until(client, "vllm:num_requests_running", 1)
            gone.cancel()
            await until(client, "vllm:num_requests_running", 0)

    asyncio.run(talk())


async def until(client: TestClient, name: str, value: float) -> None:
    """Scrape until a metric has a value; the time limit of the test bounds it."""
    while True:
        families = metrics((await send(client, get("/metrics"))).body)
        if families[name].samples[0].value == value:
            return


def test_tokens_keep_the_pace_of_the_profile():
    # 20 iterations, the first with the prefill, of 8.65 ms each.
    async def talk() -> float:
        async with serving(settings(profile=A100_80GB)) as client:
            start = asyncio.get_running_loop().time()
            await send(client, chat(max_tokens=20, ignore_eos=True))
            return asyncio.get_running_loop().time() - start

    assert asyncio.run(talk()) >= 20 * A100_80GB.iteration_ns(1, 0) / 1e9


def test_a_dead_engine_is_not_healthy():
    async def talk() -> int:
        async with serving(settings()) as client:
            (clock,) = (t for t in asyncio.all_tasks() if "PacedEngine.run" in repr(t.get_coro()))
            clock.cancel()
            await asyncio.wait([clock])
            return (await send(client, get("/health"))).status

    assert asyncio.run(talk()) == 503


def test_the_help_says_that_it_is_simulated(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "simulated" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num-blocks", "1"], "the KV cache must hold max_model_len tokens"),
        (["--speed", "0"], "speed above 0"),
        (["--max-num-batched-tokens", "1"], "max_num_batched_tokens must be at least max_num_seqs"),
    ],
)
def test_what_cannot_start_is_refused_on_the_command_line(flags, message, capsys):
    with pytest.raises(SystemExit):
        main(flags)
    assert message in capsys.readouterr().err


@pytest.fixture
def served(monkeypatch) -> list[SimulatedPoolSettings]:
    """The settings of the pools that main would serve."""
    found = []
    monkeypatch.setattr(server, "create_app", found.append)
    monkeypatch.setattr(server.web, "run_app", lambda *_, **__: None)
    return found


def test_without_flags_the_pool_is_the_papers_short_one(served):
    main([])
    (pool,) = served
    assert (pool.model, pool.seed, pool.profile) == ("simulated", 0, A100_80GB)
    assert (pool.engine.max_model_len, pool.engine.max_num_seqs) == (8192, 128)
    assert pool.engine.num_blocks * pool.engine.block_size == 1_048_576


FLAGS = """
    --model m --max-model-len 64 --max-num-seqs 2 --max-num-batched-tokens 32 --num-blocks 4
    --block-size 32 --weights-ms 1 --sequence-ms 2 --chunk-tokens 16 --speed 3 --seed 5
"""


def test_every_flag_reaches_the_pool(served):
    main(FLAGS.split())
    engine = EngineConfig(
        max_model_len=64, max_num_seqs=2, max_num_batched_tokens=32, num_blocks=4, block_size=32
    )
    profile = Profile(weights_ms=1.0, sequence_ms=2.0, chunk_tokens=16, speed=3.0)
    assert served == [SimulatedPoolSettings(model="m", engine=engine, profile=profile, seed=5)]


@pytest.mark.parametrize(
    ("flags", "tokens"),
    [(["--chunk-tokens", "1024"], 1024), (["--chunk-tokens", "16", "--max-num-seqs", "64"], 64)],
)
def test_an_iteration_has_a_chunk_of_tokens_or_one_for_each_sequence(flags, tokens, served):
    main(flags)
    assert served[0].engine.max_num_batched_tokens == tokens


@pytest.fixture
def process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A pool of its own process and its URL."""
    command = [
        sys.executable,
        "-m",
        "extproc.simulator.pool.server",
        "--name",
        "short",
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as pool:
        assert pool.stderr is not None
        found = re.search(r"short: .* (http://\S+)", pool.stderr.readline())
        assert found is not None
        yield pool, found[1]
        pool.kill()


def test_sigterm_stops_it_whatever_it_does(process):
    pool, url = process
    client = http.client.HTTPConnection(urlsplit(url).netloc)
    with contextlib.closing(client):
        asked = chat(stream=True, ignore_eos=True)
        client.request("POST", CHAT, asked.data, asked.headers)
        with client.getresponse() as response:
            response.readline()
            pool.send_signal(signal.SIGTERM)
            assert pool.wait(timeout=60) == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_port_in_use_is_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            main(["--name", "short", "--port", str(port)])
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        f"short: cannot listen on 127.0.0.1:{port}: address already in use\n"
    )
