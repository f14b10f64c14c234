"""The demo's client: sends traffic through Envoy and records every answer.

It reads usage with a parser of its own, so that the report can check what the service learnt.
"""

import asyncio
import enum
import hashlib
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp

from extproc.local.answer_body import ParsedAnswer, read_body, whole_number
from extproc.local.connection_error import describe
from extproc.local.traffic import Item
from extproc.local.usage_event import less_usage
from extproc.names import BUDGET_HEADER, CATEGORY_HEADER, POOL_HEADER, REASON_HEADER
from extproc.stream.decision import ask_for_usage

_MAX_IN_FLIGHT = 512


class Ending(enum.Enum):
    """How a request ended, as its client saw it."""

    COMPLETE = "complete"
    REFUSED = "refused"  # the pool's own 4xx
    FAILED = "failed"  # 5xx
    BROKEN = "broken"  # no answer, or one that stopped before its end
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAnswer:
    """What the client saw of one request; tokens are 0 and names "" if the answer lacks them.

    Hashes are SHA-256 in hex: request_hash and response_hash of the bodies sent and received,
    hash_with_usage_asked of the request as the service forwards it when it asks for usage,
    hash_less_usage of the answer without its usage event (see usage_event).
    longest_tokens: completion tokens of the longest sequence; estimated if there are several.
    started_s, ended_s: seconds from sending the request to the first and to the last byte.
    """

    item: Item
    ending: Ending
    status: int = 0
    request_hash: str
    response_hash: str
    hash_with_usage_asked: str = ""
    hash_less_usage: str = ""
    pool: str = ""
    reason: str = ""
    category: str = ""
    budget: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    longest_tokens: int = 0
    finish: str = ""
    started_s: float = 0.0
    ended_s: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """How to send: at the items' arrival times (open_loop), or `concurrency` at a time."""

    concurrency: int = 16
    open_loop: bool = False
    timeout_s: float = 120.0


async def send_all(
    url: str, items: Sequence[Item], pace: SendOptions, on_answer: Callable[[ClientAnswer], None]
) -> tuple[ClientAnswer, ...]:
    """Send all items to the OpenAI API at `url`; call `on_answer` with each answer."""
    slots = asyncio.Semaphore(_MAX_IN_FLIGHT if pace.open_loop else pace.concurrency)
    timeout = aiohttp.ClientTimeout(total=pace.timeout_s)
    connector = aiohttp.TCPConnector(limit=0)
    started = time.monotonic()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def one(item: Item) -> ClientAnswer:
            # If arrivals waited for answers, a slow pool would be sent less, and its latency would
            # look better than it is.
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
    """Send one item and return its answer; a timeout or a broken connection is an answer too."""
    arrived = _IncomingAnswer()
    try:
        await arrived.receive(session, url, item)
    except TimeoutError:
        arrived.fault(Ending.TIMEOUT, "timed out")
    except aiohttp.ClientError as error:
        arrived.fault(Ending.BROKEN, describe(error))
    return arrived.answer(item)


class _IncomingAnswer:
    """One answer while it arrives."""

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
        body = read_body(bytes(self._body), stream=self._is_stream())
        ending, error = self._fault or (self._ending(body), "")
        return ClientAnswer(
            item=item,
            ending=ending,
            status=self._status,
            request_hash=_sha256(item.body),
            response_hash=_sha256(self._body),
            hash_with_usage_asked=_sha256(ask_for_usage(item.body)),
            hash_less_usage=_sha256(less_usage(bytes(self._body))),
            pool=self._headers.get(POOL_HEADER, ""),
            reason=self._headers.get(REASON_HEADER, ""),
            category=self._headers.get(CATEGORY_HEADER, ""),
            budget=whole_number(self._headers.get(BUDGET_HEADER)),
            prompt_tokens=body.prompt_tokens,
            completion_tokens=body.completion_tokens,
            longest_tokens=body.longest_tokens,
            finish=body.finish,
            started_s=self._started - self._sent,
            ended_s=self._ended - self._sent,
            error=error,
        )

    def _is_stream(self) -> bool:
        return self._headers.get("content-type", "").startswith("text/event-stream")

    def _ending(self, body: ParsedAnswer) -> Ending:
        if self._status >= 500:
            return Ending.FAILED
        if self._status >= 400:
            return Ending.REFUSED
        return Ending.COMPLETE if body.whole else Ending.BROKEN


def _sha256(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()
