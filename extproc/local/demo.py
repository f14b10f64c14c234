"""`dualpool demo`: the local stack or a running one, realistic traffic through it, and a report.

Its exit status is 0 where no answer was lost or altered.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
from rich.console import Console

from extproc.local.children import StackError
from extproc.local.client import ClientAnswer, SendOptions, send_all
from extproc.local.compose import find_stack
from extproc.local.envoy import AccessLogRow, read_rows
from extproc.local.fleet import StackPool
from extproc.local.inquiry import count_prompts, count_texts, read_learnt, read_preemptions
from extproc.local.report import print_report, to_json
from extproc.local.saving import Load
from extproc.local.sources import built_in_sources, folder_sources
from extproc.local.stack import Stack, StackGateway, StackOptions
from extproc.local.tally import DemoRecord, tally
from extproc.local.traffic import Item, Source, TrafficOptions, make_traffic
from extproc.local.up import run_stoppable
from extproc.local.witness import witnessing
from extproc.progress import Show, showing

_SIMULATED_RATE = 8.0
_ROWS_S = 5.0
_TEXTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What `dualpool demo` is asked for.

    compose: the URL of Envoy in a stack that runs, in place of one of the demo's own.
    rate: arrivals a second; None: 8 for simulated pools, and for real ones as fast as
    `concurrency` requests at once go.
    exceeding: the share of requests larger than the smallest pool.
    texts: a folder of texts in place of the built-in ones. json: a file for the report.
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
    load: Load = field(default_factory=Load)


def run_demo(options: DemoOptions) -> int:
    """Run the demo; return 0 where nothing was lost or altered."""
    return run_stoppable(lambda console: _demo(options, console), when_stopped=130)


async def _demo(options: DemoOptions, console: Console) -> int:
    if fault := next(_faults(options), ""):
        raise StackError(fault)
    sources = _sources(options)
    with showing(console) as show:
        run = _run_outside if options.compose else _run
        seen = await run(options, sources, show)
    report = tally(seen)
    print_report(console, report, options.load)
    if options.json:
        options.json.write_text(to_json(report, options.load), encoding="utf-8")
    return 0 if report.sound else 1


def _faults(options: DemoOptions) -> Iterator[str]:
    if options.requests < 1:
        yield f"--requests: {options.requests} is not allowed: a whole number from 1"
    if options.rate is not None and options.rate <= 0:
        yield f"--rate: {options.rate} is not allowed: more than 0 a second"
    if options.concurrency < 1:
        yield f"--concurrency: {options.concurrency} is not allowed: a whole number from 1"
    if not 0 <= options.exceeding <= 1:
        yield f"--exceeding: {options.exceeding} is not allowed: a share from 0 to 1"
    if options.compose and options.stack.pools:
        yield "--compose: a running stack has its own pools; leave --pools out"
    if options.json and not options.json.parent.is_dir():
        yield f"--json: there is no folder {options.json.parent}"


def _sources(options: DemoOptions) -> tuple[Source, ...]:
    if options.texts:
        return folder_sources(options.texts)
    return built_in_sources(options.seed)


async def _run(options: DemoOptions, sources: Sequence[Source], show: Show) -> DemoRecord:
    async with aiohttp.ClientSession() as session, Stack(options.stack, session, show.say) as stack:
        pools = await stack.open_pools()
        async with witnessing(pools) as (witness, upstreams):
            gateway = await stack.open_gateway(pools, upstreams)
            run = _DemoRun(options, session, pools, gateway.url, gateway.service_url, show)
            seen = await stack.unless_ended(run.play(sources))
            rows = await _rows(gateway, {answer.item.request_id for answer in seen.answers})
            return replace(seen, rows=rows, sightings=witness.by_request())


async def _run_outside(options: DemoOptions, sources: Sequence[Source], show: Show) -> DemoRecord:
    async with aiohttp.ClientSession() as session:
        stack = await find_stack(session, options.compose)
        run = _DemoRun(options, session, stack.pools, stack.url, stack.service_url, show)
        return replace(await run.play(sources), witnessed=False)


async def _rows(gateway: StackGateway, wanted: set[str]) -> dict[str, AccessLogRow]:
    """Return the access log's rows, which Envoy writes some time after the answers."""
    rows: dict[str, AccessLogRow] = {}
    deadline = time.monotonic() + _ROWS_S
    while not wanted <= rows.keys() and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        rows = {row.request_id: row for row in read_rows(gateway.envoy.output.read())}
    return {key: row for key, row in rows.items() if key in wanted}


@dataclass(frozen=True, slots=True)
class _DemoRun:
    """The traffic through one stack that is up; `url` is Envoy's."""

    options: DemoOptions
    session: aiohttp.ClientSession
    pools: tuple[StackPool, ...]
    url: str
    service_url: str
    show: Show

    async def play(self, sources: Sequence[Source]) -> DemoRecord:
        """Send the traffic and return all that was seen of it."""
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
            sightings={},
            learnt=await read_learnt(self.session, self.service_url),
            prompt_tokens=await self._untold(answers),
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
        # Through Envoy only the largest pool would answer, in the name of all.
        reached = () if self.options.compose else self.pools
        return await read_preemptions(self.session, reached)

    async def _untold(self, answers: Sequence[ClientAnswer]) -> dict[str, int]:
        """Count the prompts whose answers did not tell their tokens."""
        items = [answer.item for answer in answers if not answer.prompt_tokens]
        return await count_prompts(self.session, self.pools[-1], items)


def _sample(answers: Sequence[ClientAnswer]) -> list[Item]:
    """Return the items whose text is counted alone: all, or some evenly spaced over the run."""
    return [answer.item for answer in answers[:: len(answers) // _TEXTS + 1]]
