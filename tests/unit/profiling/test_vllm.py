"""A server asked what it is, and for answers of exact length; it is the built-in pool."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from extproc.planner.traffic.lengths import Length
from extproc.profiling.vllm import Facts, Streamed, Vllm, VllmError, connect, new_session
from tests.support.pool_client import MODEL, serving, settings


def with_pool(use: Callable[[Vllm], Awaitable[object]]) -> object:
    async def run() -> object:
        async with serving(settings(blocks=100)) as pool, new_session() as session:
            return await use(await connect(session, str(pool.make_url("/"))))

    return asyncio.run(run())


async def meet_server(application: web.Application) -> None:
    async with TestServer(application) as server, new_session() as session:
        await connect(session, str(server.make_url("/")))


def test_a_server_tells_its_window_and_its_kv_cache():
    async def facts(vllm: Vllm) -> Facts:
        return vllm.facts

    expected = Facts(model=MODEL, max_model_len=2048, block_size=32, num_blocks=100)
    assert with_pool(facts) == expected
    assert expected.kv_tokens == 3200


def test_an_answer_has_the_tokens_that_were_asked_for():
    async def generated(vllm: Vllm) -> float:
        await vllm.complete(Length(300, 7), Streamed())
        return await vllm.metric("vllm:generation_tokens_total")

    assert with_pool(generated) == 7


def test_times_of_an_answer_are_in_order():
    async def complete(vllm: Vllm) -> Streamed:
        answer = Streamed()
        await vllm.complete(Length(300, 20), answer)
        return answer

    answer = with_pool(complete)
    assert answer.sent_s < answer.first_s <= answer.last_s
    assert 1 <= answer.chunks <= 20
    assert answer.over


def test_a_refused_request_says_what_the_server_answered():
    with pytest.raises(VllmError, match="maximum context length is 2048"):
        with_pool(lambda vllm: vllm.complete(Length(3000, 1), Streamed()))


def test_what_is_no_vllm_is_named_so():
    with pytest.raises(VllmError, match="not a vLLM server"):
        asyncio.run(meet_server(web.Application()))


def test_nobody_there_is_an_error_with_the_address():
    async def ask() -> None:
        async with new_session() as session:
            await connect(session, "http://127.0.0.1:9/")

    with pytest.raises(VllmError, match=r"127\.0\.0\.1:9: no answer"):
        asyncio.run(ask())
