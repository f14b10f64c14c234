"""Replays the same arrivals on a running vLLM and in the simulator, and computes the figures.

Invariant: both get every arrival at its time, whatever they have answered by then, and the same
lengths; so only times can differ.
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
class InstanceTimes:
    """Times of one instance, in order of arrival.

    ttft_s: from the time at which the request was due. tpot_s: of answers with at least two tokens.
    end_s: from time 0 of the trace. tokens: output tokens.
    """

    ttft_s: Floats
    tpot_s: Floats
    end_s: float
    tokens: int
    preemptions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFigures:
    """Figures of a fleet over all its arrivals; percentiles are interpolated linearly."""

    output_tokens_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    tpot_p50_ms: float
    tpot_p99_ms: float
    preemptions: float


def figures_of(instances: Sequence[InstanceTimes]) -> ReplayFigures:
    """Return the figures over all instances of a fleet."""
    ttft_ms = 1e3 * np.concatenate([each.ttft_s for each in instances])
    tpot_ms = 1e3 * np.concatenate([each.tpot_s for each in instances])
    return ReplayFigures(
        output_tokens_per_s=sum(s.tokens for s in instances) / max(s.end_s for s in instances),
        ttft_p50_ms=float(np.percentile(ttft_ms, 50)),
        ttft_p99_ms=float(np.percentile(ttft_ms, 99)),
        tpot_p50_ms=float(np.percentile(tpot_ms, 50)),
        tpot_p99_ms=float(np.percentile(tpot_ms, 99)),
        preemptions=sum(s.preemptions for s in instances),
    )


def pick(trace: Trace, rows: Tokens) -> Trace:
    """Return the arrivals at the given rows, which must ascend."""
    return Trace(
        name=trace.name, at_s=trace.at_s[rows], prompt=trace.prompt[rows], output=trace.output[rows]
    )


def deal(trace: Trace, instances: int) -> list[Trace]:
    """Distribute the arrivals round-robin over equal instances."""
    return [pick(trace, np.arange(first, len(trace), instances)) for first in range(instances)]


def split(trace: Trace, threshold: int) -> list[Trace]:
    """Split the arrivals: at most `threshold` tokens to the short pool, the rest to the long."""
    within = trace.prompt + trace.output <= threshold
    return [pick(trace, np.flatnonzero(within)), pick(trace, np.flatnonzero(~within))]


async def replay(vllm: Vllm, trace: Trace, show: Show) -> InstanceTimes:
    """Send the arrivals to a server in real time. Raises VllmError if one fails."""
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
        raise errors.exceptions[0] from None  # the first failure cancelled the others
    preempted = await vllm.metric("vllm:num_preemptions_total") - preemptions
    return times_of(
        trace,
        np.array([answer.first_s for answer in answers]) - start_s,
        np.array([answer.last_s for answer in answers]) - start_s,
        round(preempted),
    )


def simulated(trace: Trace, pool: PoolSpec) -> InstanceTimes:
    """Simulate the same arrivals at one instance."""
    fleet = FleetSpec((pool,))
    # The stated limit is the output, as in the requests that replay() sends.
    incoming = arrive(trace, trace.output, 0)
    records = simulate(fleet, incoming, make_rule(RuleName.HOMOGENEOUS, fleet, 0), Conduct())
    first_s, end_s = records.first_s + pool.overhead_s, records.end_s + pool.overhead_s
    return times_of(trace, first_s, end_s, int(records.preemptions.sum()))


def times_of(trace: Trace, first_s: Floats, last_s: Floats, preemptions: int) -> InstanceTimes:
    """Return the times of an instance from those of its tokens, from time 0 of the trace."""
    several = trace.output > 1
    return InstanceTimes(
        ttft_s=first_s - trace.at_s,
        tpot_s=(last_s - first_s)[several] / (trace.output[several] - 1),
        end_s=float(last_s.max()),
        tokens=int(trace.output.sum()),
        preemptions=preemptions,
    )
