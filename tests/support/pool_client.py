"""A client of a simulated pool that runs in the test's own event loop."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from extproc.simulator.engine import EngineConfig, Profile
from extproc.simulator.pool.server import SimulatedPoolSettings, create_app

MODEL = "tiny"
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
HELLO = [{"role": "user", "content": "hello there"}]
QUICK = Profile(weights_ms=0.01, sequence_ms=0.001, chunk_tokens=512)


def settings(
    *, window: int = 2048, model: str = MODEL, profile: Profile = QUICK, blocks: int = 1024
) -> SimulatedPoolSettings:
    engine = EngineConfig(
        max_model_len=window,
        max_num_seqs=8,
        max_num_batched_tokens=512,
        num_blocks=blocks,
        block_size=32,
    )
    return SimulatedPoolSettings(model=model, engine=engine, profile=profile)


@dataclass(frozen=True)
class Asked:
    """One request; a dict as body is sent as JSON."""

    method: str
    path: str
    body: Any = None
    content_type: str = "application/json"
    more: Mapping[str, str] = field(default_factory=dict)  # headers

    @property
    def url(self) -> URL:
        """The path with the escapes that were given."""
        return URL(self.path, encoded=True)

    @property
    def data(self) -> bytes | None:
        if self.body is None or isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body).encode()

    @property
    def headers(self) -> dict[str, str]:
        known = {} if self.body is None else {"Content-Type": self.content_type}
        return known | dict(self.more)


@dataclass(frozen=True)
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The events of a stream; the last is None for [DONE]."""
        *events, rest = self.body.decode().split("\n\n")
        assert rest == ""
        data = [event.rpartition("data: ")[2] for event in events]
        return [None if text == "[DONE]" else json.loads(text) for text in data]


def get(path: str) -> Asked:
    return Asked("GET", path)


def chat(**fields: Any) -> Asked:
    return Asked("POST", CHAT, {"messages": HELLO, **fields})


def responses(text: object = "hello there", **fields: Any) -> Asked:
    return Asked("POST", RESPONSES, {"input": text, **fields})


def messages(**fields: Any) -> Asked:
    return Asked("POST", MESSAGES, {"model": MODEL, "messages": HELLO, "max_tokens": 3, **fields})


def completion(prompt: object = "hello", **fields: Any) -> Asked:
    return Asked("POST", COMPLETION, {"prompt": prompt, **fields})


@contextlib.asynccontextmanager
async def serving(pool: SimulatedPoolSettings) -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(create_app(pool))) as client:
        yield client


async def send(client: TestClient, asked: Asked) -> Answered:
    async with client.request(
        asked.method, asked.url, data=asked.data, headers=asked.headers
    ) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answered(response.status, headers, await response.read())


def ask(*requests: Asked, pool: SimulatedPoolSettings | None = None) -> list[Answered]:
    """Send all requests at once to a fresh pool."""

    async def talk() -> list[Answered]:
        async with serving(pool or settings()) as client:
            return await asyncio.gather(*(send(client, asked) for asked in requests))

    return asyncio.run(talk())


def metrics(text: bytes) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text.decode())}
