"""The demo's client: sends traffic through Envoy and keeps what came back, answer by answer.

It reads usage by itself, so that what the service learnt can be held against it.
"""

import asyncio
import enum
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from extproc.local.traffic import Item
from extproc.local.usage_event import less_usage
from extproc.stream.usage_request import ask_for_usage

_MAX_IN_FLIGHT = 512


class Ending(enum.Enum):
    """How a request ended for its client."""

    COMPLETE = "complete"
    REFUSED = "refused"  # the pool's own 4xx
    FAILED = "failed"  # 5xx
    BROKEN = "broken"  # no answer, or one that stopped before its end
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAnswer:
    """What the client saw of one request; tokens are 0 and names empty where nothing told them.

    asked_hash: of the request as the service sends it on where it asks for usage.
    told_hash: of the answer less its usage, see usage_event.
    started_s, ended_s: seconds after the request was sent, to the first and the last byte.
    """

    item: Item
    ending: Ending
    status: int = 0
    request_hash: str
    response_hash: str
    asked_hash: str = ""
    told_hash: str = ""
    pool: str = ""
    reason: str = ""
    category: str = ""
    budget: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: str = ""
    started_s: float = 0.0
    ended_s: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """How fast to send: at the items' arrival times, or so many at once; timeout in seconds."""

    concurrency: int = 16
    open_loop: bool = False
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class AnswerBody:
    """What the body of an answer says about itself."""

    whole: bool
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish: str = ""


async def send_all(
    url: str, items: Sequence[Item], pace: SendOptions, on_answer: Callable[[ClientAnswer], None]
) -> tuple[ClientAnswer, ...]:
    """Send all items to the OpenAI API at `url`; `on_answer` hears of each answer at its end."""
    slots = asyncio.Semaphore(_MAX_IN_FLIGHT if pace.open_loop else pace.concurrency)
    timeout = aiohttp.ClientTimeout(total=pace.timeout_s)
    connector = aiohttp.TCPConnector(limit=0)
    started = time.monotonic()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def one(item: Item) -> ClientAnswer:
            if pace.open_loop:
                await asyncio.sleep(started + item.arrival_s - time.monotonic())
            async with slots:
                answer = await send(session, url, item)
            on_answer(answer)
            return answer

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
    return tuple(task.result() for task in tasks)


async def send(session: aiohttp.ClientSession, url: str, item: Item) -> ClientAnswer:
    """Send one item and return what came back, whatever that is."""
    arrived = _IncomingAnswer()
    try:
        await arrived.receive(session, url, item)
    except TimeoutError:
        arrived.fault(Ending.TIMEOUT, "timed out")
    except aiohttp.ClientError as error:
        arrived.fault(Ending.BROKEN, repr(error))
    return arrived.answer(item)


class _IncomingAnswer:
    """One answer as it comes in."""

    def __init__(self) -> None:
        self._sent = time.monotonic()
        self._started = self._ended = self._sent
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._fault: tuple[Ending, str] | None = None

    async def receive(self, session: aiohttp.ClientSession, url: str, item: Item) -> None:
        headers = {"content-type": "application/json", "x-request-id": item.request_id}
        body = io.BytesIO(item.body)  # aiohttp warns of more than 1 MiB in bare bytes
        async with session.post(url + item.api.value, data=body, headers=headers) as response:
            self._status = response.status
            self._headers = {key.lower(): value for key, value in response.headers.items()}
            async for data in response.content.iter_any():
                self._ended = time.monotonic()
                if not self._body:
                    self._started = self._ended
                self._body += data

    def fault(self, ending: Ending, error: str) -> None:
        self._fault = (ending, error)

    def answer(self, item: Item) -> ClientAnswer:
        said = read_body(bytes(self._body), stream=self._is_stream())
        ending, error = self._fault or (self._ending(said), "")
        return ClientAnswer(
            item=item,
            ending=ending,
            status=self._status,
            request_hash=_sha256(item.body),
            response_hash=_sha256(self._body),
            asked_hash=_sha256(ask_for_usage(item.body)),
            told_hash=_sha256(less_usage(bytes(self._body))),
            pool=self._headers.get("x-llm-pool", ""),
            reason=self._headers.get("x-llm-reason", ""),
            category=self._headers.get("x-llm-category", ""),
            budget=_whole(self._headers.get("x-llm-budget")),
            prompt_tokens=said.prompt_tokens,
            completion_tokens=said.completion_tokens,
            finish=said.finish,
            started_s=self._started - self._sent,
            ended_s=self._ended - self._sent,
            error=error,
        )

    def _is_stream(self) -> bool:
        return self._headers.get("content-type", "").startswith("text/event-stream")

    def _ending(self, said: AnswerBody) -> Ending:
        if self._status >= 500:
            return Ending.FAILED
        if self._status >= 400:
            return Ending.REFUSED
        return Ending.COMPLETE if said.whole else Ending.BROKEN


def _sha256(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


def read_body(body: bytes, *, stream: bool) -> AnswerBody:
    """Read a whole answer, a document or a stream of events, whatever it holds."""
    try:
        return _read_stream(body) if stream else _read_document(json.loads(body))
    except (ValueError, TypeError, KeyError, AttributeError):
        return AnswerBody(whole=False)


def _read_document(document: dict[str, Any]) -> AnswerBody:
    usage = document.get("usage") or {}
    choices = document.get("choices") or [{}]
    return AnswerBody(
        whole=True,
        prompt_tokens=_whole(usage.get("prompt_tokens")),
        completion_tokens=_whole(usage.get("completion_tokens")),
        finish=choices[0].get("finish_reason") or "",
    )


def _read_stream(body: bytes) -> AnswerBody:
    """Read a stream; without usage the chunks with text are its completion tokens, about."""
    lines = [line[5:].strip() for line in body.splitlines() if line.startswith(b"data:")]
    chunks = [_read_chunk(json.loads(line)) for line in lines if line != b"[DONE]"]
    usage = next((chunk.usage for chunk in reversed(chunks) if chunk.usage), {})
    return AnswerBody(
        whole=bool(lines) and lines[-1] == b"[DONE]",
        prompt_tokens=_whole(usage.get("prompt_tokens")),
        completion_tokens=_whole(usage.get("completion_tokens"))
        or sum(chunk.has_text for chunk in chunks),
        finish=next((chunk.finish for chunk in chunks if chunk.finish), ""),
    )


@dataclass(frozen=True, slots=True)
class _Chunk:
    has_text: bool
    finish: str
    usage: dict[str, Any]


def _read_chunk(chunk: dict[str, Any]) -> _Chunk:
    choice = (chunk.get("choices") or [{}])[0]
    text = choice.get("text") or choice.get("delta", {}).get("content")
    return _Chunk(bool(text), choice.get("finish_reason") or "", chunk.get("usage") or {})


def _whole(value: object) -> int:
    text = str(value)
    return int(text) if text.isdigit() else 0
