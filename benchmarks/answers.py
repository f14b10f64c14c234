"""Section sse: what each form costs Envoy, the service and the client, by chunk and by request.

All forms are measured in one run, in turn; each form has its own Envoy in each round.
"""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import aiohttp

from benchmarks.bodies import KIB, MIB, make_body
from benchmarks.figures import FormFigures, RoundFigures
from benchmarks.forms import REQUESTS, STREAMS, FormRow
from benchmarks.load import StreamPlan, post_bodies, read_streams
from benchmarks.recorded import recorded_answers
from benchmarks.report import show_forms
from benchmarks.rig import BenchmarkEnvoy, Null, Rig
from benchmarks.run import Plan, Result, Tools, rotated
from extproc.progress import Show

_WARM_POSTS: Final = 5
# After the last byte of an answer; Envoy closes the observer's stream a second later.
_OBSERVED_S: Final = 1.3
_DECIDED_S: Final = 0.1
# The service asks every stream for usage.
_ASK_ALL: Final = {"requests": {"observe_sample": 1.0}}
_NULL: Final = "grpc_null"

_Rounds = dict[str, list[RoundFigures]]


async def measure(plan: Plan, tools: Tools, show: Show) -> Result:
    """Measure all forms of answers and of requests."""
    streams, sizes = StreamPlan(), [KIB, 32 * KIB, 256 * KIB, MIB]
    if plan.quick:
        streams, sizes = StreamPlan(streams=2, chunks=10, posts=5), [KIB]
    null = tools.programs.paths.get(_NULL)
    rows = [row for row in STREAMS if null or not row.null]
    found = FormFigures(
        {row.name: [] for row in rows}, {size: {row.name: [] for row in REQUESTS} for size in sizes}
    )
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        answers = stack.enter_context(recorded_answers())
        service = await stack.enter_async_context(Rig(session, more=_ASK_ALL))
        other = Rig(session, Null(null, answers)) if null else Rig(session)
        bench = _FormBenchmark(session, service, await stack.enter_async_context(other), streams)
        show.begin("sse", plan.rounds * (len(rows) + 1))
        for number in range(plan.rounds):
            for row in rotated(rows, number):
                found.streams[row.name].append(await bench.stream(row))
                show.advance()
            await bench.post(rotated(REQUESTS, number), found.requests)
            show.advance()
    return Result(show_forms(found, streams), found)


@dataclass(frozen=True, slots=True)
class _FormBenchmark:
    """Measures one form in one round."""

    session: aiohttp.ClientSession
    service: Rig
    null: Rig
    plan: StreamPlan

    async def stream(self, row: FormRow) -> RoundFigures:
        """Measure one form of the answer."""
        session, plan = self.session, self.plan
        async with (self.null if row.null else self.service).gateway(row) as gateway:
            await post_bodies(session, gateway.url, make_body(KIB, 0), _WARM_POSTS)
            load = read_streams(session, gateway.url, plan, states_usage=row.states_usage)
            delays, spent = await gateway.measure(session, load, _OBSERVED_S)
        return RoundFigures.of(delays, spent, plan.streams)

    async def post(self, rows: Sequence[FormRow], found: Mapping[int, _Rounds]) -> None:
        """Measure the forms of the request, one directly after another at each size."""
        async with AsyncExitStack() as stack:
            gateways = [await stack.enter_async_context(self.service.gateway(row)) for row in rows]
            for size, rounds in found.items():
                for row, gateway in zip(rows, gateways, strict=True):
                    rounds[row.name].append(await self._post(gateway, size))

    async def _post(self, gateway: BenchmarkEnvoy, size: int) -> RoundFigures:
        session, count, body = self.session, self.plan.posts, make_body(size, 0)
        await post_bodies(session, gateway.url, body, _WARM_POSTS)
        load = post_bodies(session, gateway.url, body, count)
        times, spent = await gateway.measure(session, load, _DECIDED_S)
        return RoundFigures.of(times, spent, count)
