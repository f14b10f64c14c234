"""Reads what the report needs beside the traffic: token counts, preemptions, learnt ratios.

A request that fails leaves a gap in the report; it never stops the demo.
"""

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from extproc.local.fleet import StackPool
from extproc.local.traffic import Item

_CONCURRENCY = 4
_TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True, slots=True)
class LearntRatio:
    """What the service learnt of a category.

    off_by: mean relative error of its prompt estimates; nan if the estimator does not report it.
    """

    bytes_per_token: float
    off_by: float
    samples: int


async def read_learnt(session: aiohttp.ClientSession, service_url: str) -> dict[str, LearntRatio]:
    """Return the ratios that GET /state reports, by category."""
    try:
        async with session.get(f"{service_url}/state", timeout=_TIMEOUT) as response:
            state = await response.json(content_type=None)
        return {name: _learnt(figures) for name, figures in state["categories"].items()}
    except (aiohttp.ClientError, TimeoutError, LookupError, ValueError, TypeError, AttributeError):
        return {}


def _learnt(figures: Mapping[str, float]) -> LearntRatio:
    return LearntRatio(
        bytes_per_token=float(figures.get("bytes_per_token", math.nan)),
        off_by=float(figures.get("relative_error", math.nan)),
        samples=int(figures.get("samples", 0)),
    )


async def read_preemptions(
    session: aiohttp.ClientSession, pools: Sequence[StackPool]
) -> dict[str, int]:
    """Return the preemptions since each pool's start; pools without that metric are absent."""
    found = {}
    for pool in pools:
        try:
            async with session.get(f"{pool.url}/metrics", timeout=_TIMEOUT) as response:
                found[pool.name] = count_preemptions(await response.text())
        except (aiohttp.ClientError, TimeoutError, ValueError):
            continue
    return found


def count_preemptions(metrics: str) -> int:
    """Sum vLLM's preemptions in a Prometheus text; raises ValueError if it cannot be parsed."""
    samples = (s for family in text_string_to_metric_families(metrics) for s in family.samples)
    return int(sum(s.value for s in samples if s.name == "vllm:num_preemptions_total"))


async def count_prompts(
    session: aiohttp.ClientSession, pool: StackPool, items: Sequence[Item]
) -> dict[str, int]:
    """Count the tokens of each item's largest prompt with the pool's /tokenize, by request id."""
    return await _count(session, pool, {item.request_id: _prompt_of(item) for item in items})


async def count_texts(
    session: aiohttp.ClientSession, pool: StackPool, items: Sequence[Item]
) -> dict[str, int]:
    """Count the tokens of each item's text, without chat template or special tokens."""
    return await _count(session, pool, {item.request_id: _text_of(item) for item in items})


def _prompt_of(item: Item) -> dict[str, Any]:
    body = json.loads(item.body)
    if isinstance(body.get("prompt"), list):
        # The texts of a batch are of one kind, so the longest has the most tokens.
        body["prompt"] = max(body["prompt"], key=len)
    return {key: body[key] for key in ("model", "messages", "tools", "prompt") if key in body}


def _text_of(item: Item) -> dict[str, Any]:
    body = json.loads(item.body)
    texts = [message["content"] for message in body.get("messages", ())]
    texts += [json.dumps(tool) for tool in body.get("tools", ())]
    prompt = body.get("prompt", ())
    texts += [prompt] if isinstance(prompt, str) else prompt
    return {"model": body["model"], "prompt": "\n".join(texts), "add_special_tokens": False}


async def _count(
    session: aiohttp.ClientSession, pool: StackPool, questions: Mapping[str, dict[str, Any]]
) -> dict[str, int]:
    slots = asyncio.Semaphore(_CONCURRENCY)

    async def one(question: dict[str, Any]) -> int:
        async with slots:
            return await _tokenize(session, pool, question)

    counts = await asyncio.gather(*(one(question) for question in questions.values()))
    return {key: count for key, count in zip(questions, counts, strict=True) if count}


async def _tokenize(
    session: aiohttp.ClientSession, pool: StackPool, question: dict[str, Any]
) -> int:
    """Return the count; 0 if the pool does not answer with one."""
    try:
        async with session.post(
            f"{pool.url}/tokenize", json=question, timeout=_TIMEOUT
        ) as response:
            return int((await response.json(content_type=None))["count"])
    except (aiohttp.ClientError, TimeoutError, ValueError, TypeError, KeyError):
        return 0
