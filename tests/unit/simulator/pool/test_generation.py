"""The answers of one request, with the engine's progress set by hand."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from extproc.simulator.pool.answer import DONE, ChatForm, CompletionForm
from extproc.simulator.pool.generation import GenerationRun
from extproc.simulator.pool.request import CheckedPrompt, Echo, Generation


def generation(*prompts: CheckedPrompt, **fields: object) -> Generation:
    return Generation(
        **{
            "request_id": "r",
            "prompts": prompts or (CheckedPrompt(10, 5),),
            "sequences": 1,
            "min_tokens": 0,
            "ignore_eos": True,
            "stream": True,
            "include_usage": False,
            "continuous_usage": False,
            "digest": b"body",
        }
        | fields
    )


def form(kind: type = CompletionForm, *, include_usage: bool = False) -> CompletionForm:
    return kind("r", 0, "m", include_usage=include_usage)


def progress(run: GenerationRun, *tokens: int) -> None:
    """Let each sequence have so many tokens."""
    for ticket, count in zip(run.tickets, tokens, strict=True):
        ticket.tokens = count
        ticket.changed.set()


def whole(run: GenerationRun) -> dict[str, object]:
    async def wait() -> bytes:
        progress(run, *(ticket.sequence.output_tokens for ticket in run.tickets))
        return await run.whole(form())

    return json.loads(asyncio.run(wait()))


def streamed(
    run: GenerationRun, *steps: tuple[int, ...], kind: type = CompletionForm, usage: bool = False
) -> list[bytes]:
    """Return the events of a stream whose sequences progress in steps."""

    async def read() -> list[bytes]:
        stream = run.events(form(kind, include_usage=usage))
        reader = asyncio.ensure_future(_collect(stream))
        for step in steps:
            progress(run, *step)
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # the reader has written the step and waits again
        return await reader

    return asyncio.run(read())


async def _collect(stream: AsyncIterator[bytes]) -> list[bytes]:
    sent = b"".join([part async for part in stream])
    return [event + b"\n\n" for event in sent.split(b"\n\n") if event]


def documents(events: list[bytes]) -> list[dict[str, object]]:
    return [json.loads(event.removeprefix(b"data: ")) for event in events if event != DONE]


def words(chunks: list[dict[str, object]], index: int = 0) -> list[str]:
    texts = [c["text"] for chunk in chunks for c in chunk["choices"] if c["index"] == index]
    return "".join(texts).split()


def test_there_is_a_sequence_for_each_prompt_and_each_answer():
    run = GenerationRun(generation(CheckedPrompt(10, 5), CheckedPrompt(20, 6), sequences=3), 0)
    lengths = [(t.sequence.prompt_tokens, t.sequence.output_tokens) for t in run.tickets]
    assert lengths == 3 * [(10, 5)] + 3 * [(20, 6)]


def test_the_answers_of_a_request_differ():
    run = GenerationRun(generation(CheckedPrompt(10, 40), sequences=2), 0)
    first, second = (choice["text"] for choice in whole(run)["choices"])
    assert first != second


@pytest.mark.parametrize("change", [{"digest": b"another body"}, {}])
def test_a_seed_and_a_body_decide_the_text(change):
    one = whole(GenerationRun(generation(CheckedPrompt(10, 40)), 0))
    other = whole(GenerationRun(generation(CheckedPrompt(10, 40), **change), 0))
    assert (one["choices"] == other["choices"]) is not bool(change)


def test_a_whole_answer_waits_for_every_sequence():
    async def run_it() -> bool:
        run = GenerationRun(generation(sequences=2), 0)
        task = asyncio.ensure_future(run.whole(form()))
        progress(run, 5, 4)
        await asyncio.sleep(0)
        waiting = not task.done()
        progress(run, 5, 5)
        await task
        return waiting

    assert asyncio.run(run_it())


def test_usage_counts_a_prompt_once_and_all_its_answers():
    usage = whole(GenerationRun(generation(CheckedPrompt(10, 5), sequences=3), 0))["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (10, 15)


def test_usage_counts_all_prompts_of_a_batch():
    prompts = (CheckedPrompt(10, 5), CheckedPrompt(20, 6))
    usage = whole(GenerationRun(generation(*prompts), 0))["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (30, 11)


def test_a_chunk_holds_all_tokens_since_the_one_before():
    events = streamed(GenerationRun(generation(), 0), (2,), (5,))
    chunks = documents(events)
    assert [len(words([chunk])) for chunk in chunks] == [2, 3]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "length"]
    assert events[-1] == DONE


def test_sequences_are_streamed_under_their_indices():
    chunks = documents(streamed(GenerationRun(generation(sequences=2), 0), (1, 3), (5, 5)))
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 1, 0, 1]
    assert (len(words(chunks, 0)), len(words(chunks, 1))) == (5, 5)


def test_a_sequence_without_news_has_no_chunk():
    chunks = documents(streamed(GenerationRun(generation(sequences=2), 0), (1, 0), (5, 5)))
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 0, 1]


def test_a_stream_has_the_text_of_the_whole_answer():
    cut = documents(streamed(GenerationRun(generation(sequences=2), 7), (1, 2), (3, 4), (5, 5)))
    (first, second) = whole(GenerationRun(generation(sequences=2), 7))["choices"]
    assert (words(cut, 0), words(cut, 1)) == (first["text"].split(), second["text"].split())


def test_a_chat_stream_opens_every_sequence_with_its_role():
    events = streamed(GenerationRun(generation(sequences=2), 0), (1, 1), (5, 5), kind=ChatForm)
    opening = documents(events)[:2]
    assert [chunk["choices"][0]["index"] for chunk in opening] == [0, 1]
    assert all(chunk["choices"][0]["delta"]["role"] == "assistant" for chunk in opening)


def test_a_stream_ends_with_usage_if_it_was_asked_for():
    asked = generation(sequences=2, include_usage=True)
    *_, last = documents(streamed(GenerationRun(asked, 0), (5, 5), usage=True))
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (10, 10)


def test_continuous_usage_counts_one_sequence():
    asked = generation(sequences=2, include_usage=True, continuous_usage=True)
    *chunks, _ = documents(streamed(GenerationRun(asked, 0), (1, 2), (5, 5), usage=True))
    counts = [(c["choices"][0]["index"], c["usage"]["completion_tokens"]) for c in chunks]
    assert counts == [(0, 1), (1, 2), (0, 5), (1, 5)]


def test_an_answer_that_stops_says_so():
    asked = generation(CheckedPrompt(10, 10_000), ignore_eos=False)
    (choice,) = whole(GenerationRun(asked, 0))["choices"]
    assert choice["finish_reason"] == "stop"


def test_min_tokens_hold_for_every_sequence():
    asked = generation(CheckedPrompt(10, 10_000), sequences=8, min_tokens=300, ignore_eos=False)
    run = GenerationRun(asked, 0)
    assert all(ticket.sequence.output_tokens > 300 for ticket in run.tickets)


@pytest.mark.parametrize(("alone", "generated"), [(True, 0), (False, 5)])
def test_an_answer_repeats_its_prompt_before_its_text(alone, generated):
    prompt = CheckedPrompt(2, 1 if alone else 5, Echo("hello there", [24912, 1354], alone))
    (choice,) = whole(GenerationRun(generation(prompt), 0))["choices"]
    assert choice["text"].startswith("hello there")
    assert len(choice["text"].split()) == 2 + generated


def test_a_stream_repeats_its_prompt_once():
    prompt = CheckedPrompt(2, 5, Echo("hello there", [24912, 1354], alone=False))
    chunks = documents(streamed(GenerationRun(generation(prompt), 0), (2,), (5,)))
    assert [len(words([chunk])) for chunk in chunks] == [2 + 2, 3]
    ids = [chunk["choices"][0]["prompt_token_ids"] for chunk in chunks]
    assert ids == [[24912, 1354], None]
