"""`dualpool demo`: sends realistic traffic through the local or a running stack and reports on it.

The exit code is 0 if no answer was lost or altered.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
from rich.console import Console

from extproc.config.errors import UserError
from extproc.local.client import ClientAnswer, SendOptions, send_all
from extproc.local.compose import find_stack
from extproc.local.envoy import AccessLogRow, read_rows
from extproc.local.fleet import StackPool
from extproc.local.inquiry import count_prompts, count_texts, read_learnt, read_preemptions
from extproc.local.record import DemoRecord
from extproc.local.recorder import Recorder, recording_proxies
from extproc.local.replicas import read_replicas
from extproc.local.report import print_report, to_json
from extproc.local.sources import built_in_sources, folder_sources
from extproc.local.stack import Stack, StackGateway, StackOptions
from extproc.local.tally import tally
from extproc.local.traffic import Item, Source, TrafficOptions, make_traffic
from extproc.local.up import print_addresses, run_stoppable
from extproc.output import STDOUT, report_console, write_json
from extproc.progress import Show, showing

_SIMULATED_RATE = 8.0
_LOG_TIMEOUT_S = 5.0
_TEXTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """Options of `dualpool demo`.

    compose: URL of Envoy in a running stack; "" starts a stack of the demo's own.
    rate: arrivals per second; None means 8 for simulated pools, and for real ones `concurrency`
    requests at a time. exceeding: share of requests that exceed the smallest pool's window.
    texts: folder of texts that replace the built-in ones. json: file for the report.
    keep: whether the stack runs on after the report, until a signal.
    """

    stack: StackOptions = field(default_factory=StackOptions)
    compose: str = ""
    requests: int = 600
    seed: int = 0
    rate: float | None = None
    concurrency: int = 16
    exceeding: float = 0.12
    texts: Path | None = None
    json: Path | None = None
    keep: bool = False


def run_demo(options: DemoOptions) -> int:
    """Run the demo; return 0 if nothing was lost or altered, else 1."""
    # 130 is the shell's code for Ctrl-C (128 + SIGINT): a run that was stopped proves nothing.
    console = report_console(stderr=options.json == STDOUT)
    return run_stoppable(lambda: _demo(options, console), when_stopped=130)


async def _demo(options: DemoOptions, console: Console) -> int:
    if fault := next(_faults(options), ""):
        raise UserError(fault)
    sources = _sources(options)
    if options.compose:
        with showing(console) as show:
            record = await _run_external(options, sources, show)
        return _report(options, record, console)
    async with AsyncExitStack() as exits:
        with showing(console) as show:
            local = await _open(options, exits, show)
            console.print(f"The page: {local.gateway.service_url}/", soft_wrap=True)
            record = await _run(options, local, sources, show)
        code = _report(options, record, console)
        if options.keep:
            await _keep(local, console)
    return code


def _report(options: DemoOptions, record: DemoRecord, console: Console) -> int:
    report = tally(record)
    print_report(console, report)
    if options.json:
        write_json(options.json, to_json(report))
    return 0 if report.sound else 1


async def _keep(local: "_Local", console: Console) -> None:
    print_addresses(console, local.gateway, local.pools)
    # A signal is how this ends: the exit code is that of the report.
    with suppress(asyncio.CancelledError):
        await local.stack.unless_ended(asyncio.Event().wait())


def _faults(options: DemoOptions) -> Iterator[str]:
    if options.requests < 1:
        yield f"--requests: {options.requests} is not allowed: must be a whole number from 1"
    if options.rate is not None and options.rate <= 0:
        yield f"--rate: {options.rate} is not allowed: must be above 0"
    if options.concurrency < 1:
        yield f"--concurrency: {options.concurrency} is not allowed: must be a whole number from 1"
    if not 0 <= options.exceeding <= 1:
        yield f"--exceeding: {options.exceeding} is not allowed: must be between 0 and 1"
    if options.compose and options.stack.pools:
        yield "--compose: a running stack has its own pools; remove --pools"
    if options.compose and options.keep:
        yield "--compose: a running stack runs on anyway; remove --keep"


def _sources(options: DemoOptions) -> tuple[Source, ...]:
    if options.texts:
        return folder_sources(options.texts)
    return built_in_sources(options.seed)


@dataclass(frozen=True, slots=True)
class _Local:
    """A running stack of the demo's own."""

    session: aiohttp.ClientSession
    stack: Stack
    pools: tuple[StackPool, ...]
    gateway: StackGateway
    recorder: Recorder


async def _open(options: DemoOptions, exits: AsyncExitStack, show: Show) -> _Local:
    session = await exits.enter_async_context(aiohttp.ClientSession())
    stack = await exits.enter_async_context(Stack(options.stack, session, show.say))
    pools = await stack.open_pools()
    recorder, upstreams = await exits.enter_async_context(recording_proxies(pools))
    gateway = await stack.open_gateway(pools, upstreams)
    return _Local(session, stack, pools, gateway, recorder)


async def _run(
    options: DemoOptions, local: _Local, sources: Sequence[Source], show: Show
) -> DemoRecord:
    gateway = local.gateway
    run = DemoRun(options, local.session, local.pools, gateway.url, gateway.service_url, show)
    record = await local.stack.unless_ended(run.play(sources))
    rows = await read_log_rows(gateway, {answer.item.request_id for answer in record.answers})
    return replace(record, rows=rows, recordings=local.recorder.by_request())


async def _run_external(options: DemoOptions, sources: Sequence[Source], show: Show) -> DemoRecord:
    async with aiohttp.ClientSession() as session:
        stack = await find_stack(session, options.compose)
        run = DemoRun(options, session, stack.pools, stack.url, stack.service_urls[0], show)
        record = await run.play(sources)
        replicas = await read_replicas(session, stack.service_urls)
        return replace(record, recorded=False, replicas=replicas)


async def read_log_rows(gateway: StackGateway, wanted: set[str]) -> dict[str, AccessLogRow]:
    """Return the rows of the access log, which Envoy flushes some time after the answers."""
    rows: dict[str, AccessLogRow] = {}
    deadline = time.monotonic() + _LOG_TIMEOUT_S
    while not wanted <= rows.keys() and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        rows = {row.request_id: row for row in read_rows(gateway.envoy.output.read())}
    return {key: row for key, row in rows.items() if key in wanted}


@dataclass(frozen=True, slots=True)
class DemoRun:
    """One run of the traffic through a running stack; `url` is Envoy's."""

    options: DemoOptions
    session: aiohttp.ClientSession
    pools: tuple[StackPool, ...]
    url: str
    service_url: str
    show: Show

    async def play(self, sources: Sequence[Source]) -> DemoRecord:
        """Send the traffic and return the record of it."""
        items = make_traffic(sources, self._traffic())
        before = await self._preemptions()
        start = time.monotonic()
        answers = await self._send(items)
        elapsed_s = time.monotonic() - start
        after = await self._preemptions()
        self.show.say("Counting tokens")
        return DemoRecord(
            pools=self.pools,
            answers=answers,
            rows={},
            recordings={},
            learnt=await read_learnt(self.session, self.service_url),
            prompt_tokens=await self._uncounted(answers),
            text_tokens=await count_texts(self.session, self.pools[-1], _sample(answers)),
            preemptions={name: after[name] - before.get(name, 0) for name in after},
            elapsed_s=elapsed_s,
        )

    def _traffic(self) -> TrafficOptions:
        return TrafficOptions(
            requests=self.options.requests,
            seed=self.options.seed,
            model=self.pools[0].model,
            short=self.pools[0].max_model_len,
            long=self.pools[-1].max_model_len,
            exceeding=self.options.exceeding,
            rate=self._rate(),
        )

    def _rate(self) -> float:
        if self.options.rate is not None:
            return self.options.rate
        return _SIMULATED_RATE if self.pools[0].simulated else 0.0

    async def _send(self, items: Sequence[Item]) -> tuple[ClientAnswer, ...]:
        self.show.begin("Requests", len(items))
        pace = SendOptions(concurrency=self.options.concurrency, open_loop=self._rate() > 0)
        return await send_all(self.url, items, pace, lambda _: self.show.advance())

    async def _preemptions(self) -> dict[str, int]:
        # From outside, every URL is Envoy's, which would answer with the largest pool's metrics.
        reached = () if self.options.compose else self.pools
        return await read_preemptions(self.session, reached)

    async def _uncounted(self, answers: Sequence[ClientAnswer]) -> dict[str, int]:
        """Count the largest prompts that usage does not give: it is missing, or counts a batch."""
        items = [a.item for a in answers if a.item.prompts > 1 or not a.prompt_tokens]
        return await count_prompts(self.session, self.pools[-1], items)


def _sample(answers: Sequence[ClientAnswer]) -> list[Item]:
    """Return at most _TEXTS + 1 items, evenly spaced over the run, whose text to count."""
    return [answer.item for answer in answers[:: len(answers) // _TEXTS + 1]]
