import asyncio
import json
import math

import aiohttp
import pytest
from aiohttp import web

from extproc.local.fleet import StackPool
from extproc.local.inquiry import (
    LearntRatio,
    count_preemptions,
    count_prompts,
    count_texts,
    read_learnt,
    read_preemptions,
)
from extproc.local.traffic import Item, TrafficApi

_METRICS = """\
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="m"} 3.0
vllm:num_preemptions_total{engine="1",model_name="m"} 4.0
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 9.0
"""
_CHAT = {
    "model": "m",
    "messages": [{"role": "user", "content": "one two"}, {"role": "assistant", "content": "ü"}],
    "tools": [{"type": "function"}],
    "max_tokens": 5,
}
_COMPLETION = {"model": "m", "prompt": "one", "stream": True}


def _item(number: int, body: dict[str, object]) -> Item:
    return Item(
        f"r{number}", "x", TrafficApi.CHAT, json.dumps(body).encode(), 1, None, False, False, 0.0
    )


_ITEMS = [_item(0, _CHAT), _item(1, _COMPLETION)]


def _ask(ask, **answers: object):
    """Run a question against a server that gives `answers` by path; return what both saw."""
    asked: list[dict[str, object]] = []

    async def handle(request: web.Request) -> web.Response:
        if request.can_read_body:
            asked.append(await request.json())
        answer = answers.get(request.path.strip("/"))
        if answer is None:
            return web.Response(status=404, text="nothing here")
        return web.Response(text=answer if isinstance(answer, str) else json.dumps(answer))

    async def run():
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with aiohttp.ClientSession() as session:
                return await ask(session, StackPool("short", url, "m", 8, simulated=True))
        finally:
            await runner.cleanup()

    return asyncio.run(run()), asked


def _learnt(session, pool):
    return read_learnt(session, pool.url)


def test_what_was_learnt_is_read_by_category():
    state = {
        "categories": {"prose/m": {"bytes_per_token": 4.3, "relative_error": 0.1, "samples": 7}}
    }
    assert _ask(_learnt, state=state)[0] == {"prose/m": LearntRatio(4.3, 0.1, 7)}


def test_figures_that_an_estimator_does_not_have_are_nan():
    learnt, _ = _ask(_learnt, state={"categories": {"prose/m": {"samples": 7}}})
    assert math.isnan(learnt["prose/m"].bytes_per_token)


@pytest.mark.parametrize("state", [None, "no json", [], {"categories": None}, {}])
def test_an_odd_state_teaches_nothing(state):
    assert _ask(_learnt, state=state)[0] == {}


def test_preemptions_of_all_engines_are_summed():
    assert count_preemptions(_METRICS) == 7


def test_preemptions_are_read_by_pool():
    async def ask(session, pool):
        return await read_preemptions(session, [pool])

    assert _ask(ask, metrics=_METRICS)[0] == {"short": 7}


def test_a_pool_without_metrics_is_left_out():
    async def ask(session, pool):
        return await read_preemptions(session, [pool])

    assert _ask(ask, metrics="{ not metrics")[0] == {}


def test_a_prompt_is_counted_with_its_template():
    counts, asked = _ask(lambda s, p: count_prompts(s, p, _ITEMS), tokenize={"count": 12})
    assert counts == {"r0": 12, "r1": 12}
    assert {"model": "m", "messages": _CHAT["messages"], "tools": _CHAT["tools"]} in asked
    assert {"model": "m", "prompt": "one"} in asked


def test_a_text_is_counted_alone():
    _, asked = _ask(lambda s, p: count_texts(s, p, _ITEMS), tokenize={"count": 12})
    assert {question["prompt"] for question in asked} == {
        'one two\nü\n{"type": "function"}',
        "one",
    }
    assert not any(question["add_special_tokens"] for question in asked)


def test_of_a_batch_the_largest_prompt_is_counted():
    batch = _item(0, {"model": "m", "prompt": ["one", "one two", "x"]})
    counts, asked = _ask(lambda s, p: count_prompts(s, p, [batch]), tokenize={"count": 2})
    assert counts == {"r0": 2}
    assert asked == [{"model": "m", "prompt": "one two"}]


def test_of_a_batch_all_text_is_counted_alone():
    batch = _item(0, {"model": "m", "prompt": ["one", "two"]})
    _, asked = _ask(lambda s, p: count_texts(s, p, [batch]), tokenize={"count": 2})
    assert [question["prompt"] for question in asked] == ["one\ntwo"]


@pytest.mark.parametrize("answer", [None, "no json", {"count": "x"}, []])
def test_what_cannot_be_counted_is_left_out(answer):
    assert _ask(lambda s, p: count_prompts(s, p, _ITEMS), tokenize=answer)[0] == {}


def test_an_absent_server_leaves_gaps():
    absent = StackPool("short", "http://127.0.0.1:1", "m", 8, simulated=True)

    async def run():
        async with aiohttp.ClientSession() as session:
            return (
                await read_learnt(session, absent.url),
                await read_preemptions(session, [absent]),
                await count_prompts(session, absent, _ITEMS),
            )

    assert asyncio.run(run()) == ({}, {}, {})
