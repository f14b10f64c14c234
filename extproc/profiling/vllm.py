"""A client of a running vLLM: reads what it reports, and times completions of exact length.

Invariant: prompts are token ids and answers ignore the end of sequence, so both lengths are exact;
the ids are random, so no prefix is cached.
"""

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from extproc.config.errors import UserError
from extproc.local.connection_error import describe
from extproc.planner.traffic.lengths import Length

_IDS: Final = range(1_000, 31_000)  # ordinary tokens in every vocabulary in use
_DONE: Final = b"data: [DONE]\n\n"
_TIMEOUT: Final = aiohttp.ClientTimeout(total=600, connect=10)


class VllmError(UserError):
    """The server cannot be measured; the text says what it answered."""

    exit_code = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a server reports; num_blocks counts usable blocks, without the null block."""

    model: str
    max_model_len: int
    block_size: int
    num_blocks: int

    @property
    def kv_tokens(self) -> int:
        """Capacity of the KV cache in tokens."""
        return self.num_blocks * self.block_size


class Streamed:
    """A completion while its chunks arrive; times are time.monotonic() in seconds."""

    def __init__(self) -> None:
        self.sent_s = self.first_s = self.last_s = time.monotonic()
        self.chunks = 0
        self.begun = asyncio.Event()
        self.over = False

    def receive(self) -> None:
        """Record the arrival of a chunk."""
        self.last_s = time.monotonic()
        if not self.chunks:
            self.first_s = self.last_s
            self.begun.set()
        self.chunks += 1


class Vllm:
    """One server; the caller owns the session."""

    def __init__(self, session: aiohttp.ClientSession, url: str, facts: Facts) -> None:
        self.facts = facts
        self._session, self._url = session, url
        self._random = random.Random(0)  # noqa: S311 - prompts, not secrets

    async def complete(self, length: Length, into: Streamed) -> None:
        """Request a completion and receive all of it. Raises VllmError if it fails."""
        try:
            await self._receive(length, into)
            into.over = True
        except (aiohttp.ClientError, TimeoutError) as error:
            raise VllmError(f"{self._url}: {describe(error)}") from error

    async def _receive(self, length: Length, into: Streamed) -> None:
        body = {
            "model": self.facts.model,
            "prompt": self._random.choices(_IDS, k=length.prompt),
            "max_tokens": length.output,
            "ignore_eos": True,
            "stream": True,
        }
        into.sent_s = time.monotonic()
        async with self._session.post(f"{self._url}/v1/completions", json=body) as response:
            if response.status != 200:
                raise VllmError(f"{self._url}: {response.status} {await response.text()}")
            async for data in response.content.iter_any():
                if data != _DONE:
                    into.receive()

    async def metric(self, name: str) -> float:
        """Return the sum of a metric's samples, such as vllm:num_preemptions_total."""
        return sum(s.value for s in await _samples(self._session, self._url) if s.name == name)


def new_session() -> aiohttp.ClientSession:
    """Return a session without a limit of concurrent requests.

    Each request has its own connection, since the server may close an idle one at any time.
    """
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT)


async def connect(session: aiohttp.ClientSession, url: str) -> Vllm:
    """Read what a server reports. Raises VllmError if it does not answer or is not vLLM."""
    url = url.rstrip("/")
    try:
        async with session.get(f"{url}/v1/models") as response:
            # No entry at all fails to unpack: a ValueError, which is reported as `not a vLLM
            # server`.
            (card,) = (await response.json(content_type=None))["data"][:1]
        (cache,) = [
            sample.labels
            for sample in await _samples(session, url)
            if sample.name == "vllm:cache_config_info"
        ][:1]
        facts = Facts(
            model=card["id"],
            max_model_len=int(card["max_model_len"]),
            block_size=int(cache["block_size"]),
            # vLLM includes the null block, which is never allocated.
            num_blocks=int(cache["num_gpu_blocks"]) - 1,
        )
    except (aiohttp.ClientError, TimeoutError) as error:
        raise VllmError(f"{url}: no answer: {describe(error)}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise VllmError(
            f"{url}: not a vLLM server: its /v1/models lacks max_model_len, or its /metrics"
            " lacks vllm:cache_config_info"
        ) from error
    return Vllm(session, url, facts)


async def _samples(session: aiohttp.ClientSession, url: str) -> list[Sample]:
    async with session.get(f"{url}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
        return [sample for family in families for sample in family.samples]
