"""The same arrivals through a running vLLM and through the simulator, and the figures of both.

The one rule: an instance gets its arrivals at their times, whatever it has answered by then, and
both worlds are told the lengths beforehand, so nothing but time can differ.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from extproc.planner.simulation.fleet import FleetSpec, PoolSpec
from extproc.planner.simulation.rules import RuleName, make_rule
from extproc.planner.simulation.run import Conduct, simulate
from extproc.planner.traffic.arrivals import arrive
from extproc.planner.traffic.lengths import Floats, Length, Tokens, Trace
from extproc.profiling.vllm import Streamed, Vllm
from extproc.progress import Show

_AHEAD_S: Final = 0.5  # from the start of the clock to time 0 of the trace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReplayedRequest:
    """What clients saw of one instance, in the order of arrival.

    ttft_s from the time at which the request was due; end_s from time 0 of the trace; tokens of
    output; tpot_s for answers of two tokens at least.
    """

    ttft_s: Floats
    tpot_s: Floats
    end_s: float
    tokens: int
    preemptions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFigures:
    """The figures of a fleet over all its arrivals; percentiles as numpy interpolates them."""

    output_tokens_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    tpot_p50_ms: float
    tpot_p99_ms: float
    preemptions: float


def figures_of(instances: Sequence[ReplayedRequest]) -> ReplayFigures:
    """Return the figures of all instances of a fleet together."""
    ttft_ms = 1e3 * np.concatenate([seen.ttft_s for seen in instances])
    tpot_ms = 1e3 * np.concatenate([seen.tpot_s for seen in instances])
    return ReplayFigures(
        output_tokens_per_s=sum(s.tokens for s in instances) / max(s.end_s for s in instances),
        ttft_p50_ms=float(np.percentile(ttft_ms, 50)),
        ttft_p99_ms=float(np.percentile(ttft_ms, 99)),
        tpot_p50_ms=float(np.percentile(tpot_ms, 50)),
        tpot_p99_ms=float(np.percentile(tpot_ms, 99)),
        preemptions=sum(s.preemptions for s in instances),
    )


def pick(trace: Trace, rows: Tokens) -> Trace:
    """Return some of the arrivals, at their times; `rows` rise."""
    return Trace(
        name=trace.name, at_s=trace.at_s[rows], prompt=trace.prompt[rows], output=trace.output[rows]
    )


def deal(trace: Trace, instances: int) -> list[Trace]:
    """Give each of equal instances every so-many-th arrival."""
    return [pick(trace, np.arange(first, len(trace), instances)) for first in range(instances)]


def split(trace: Trace, threshold: int) -> list[Trace]:
    """Give the short pool all arrivals of up to `threshold` tokens, the long one the rest."""
    within = trace.prompt + trace.output <= threshold
    return [pick(trace, np.flatnonzero(within)), pick(trace, np.flatnonzero(~within))]


async def replay(vllm: Vllm, trace: Trace, show: Show) -> ReplayedRequest:
    """Send the arrivals to a server, in real time. Raises VllmError where one is refused."""
    preemptions = await vllm.metric("vllm:num_preemptions_total")
    start_s = time.monotonic() + _AHEAD_S
    answers = [Streamed() for _ in range(len(trace))]

    async def send(at_s: float, length: Length, answer: Streamed) -> None:
        await asyncio.sleep(start_s + at_s - time.monotonic())
        await vllm.complete(length, answer)
        show.advance()

    try:
        async with asyncio.TaskGroup() as group:
            for arrival, answer in zip(trace.arrivals(), answers, strict=True):
                group.create_task(send(arrival.at_s, arrival.length, answer))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None  # the first that failed ended the others
    preempted = await vllm.metric("vllm:num_preemptions_total") - preemptions
    return _seen(
        trace,
        np.array([answer.first_s for answer in answers]) - start_s,
        np.array([answer.last_s for answer in answers]) - start_s,
        round(preempted),
    )


def simulated(trace: Trace, pool: PoolSpec) -> ReplayedRequest:
    """Return what the simulator says of the same arrivals at one instance."""
    fleet = FleetSpec((pool,))
    incoming = arrive(trace, trace.output, 0)
    records = simulate(fleet, incoming, make_rule(RuleName.HOMOGENEOUS, fleet, 0), Conduct())
    first_s, end_s = records.first_s + pool.overhead_s, records.end_s + pool.overhead_s
    return _seen(trace, first_s, end_s, int(records.preemptions.sum()))


def _seen(trace: Trace, first_s: Floats, last_s: Floats, preemptions: int) -> ReplayedRequest:
    several = trace.output > 1
    return ReplayedRequest(
        ttft_s=first_s - trace.at_s,
        tpot_s=(last_s - first_s)[several] / (trace.output[several] - 1),
        end_s=float(last_s.max()),
        tokens=int(trace.output.sum()),
        preemptions=preemptions,
    )
