"""Summarise a run: figures of each pool and of the fleet, and confidence intervals over seeds.

Invariant: percentiles cover all arrivals after the warm-up. A rejected or unfinished request counts
as infinite; leaving it out would favour the rule that serves the fewest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extproc.planner.simulation.records import Fate, Floats, Records
from extproc.routing.pools import Verdict, judge

Mask = NDArray[np.bool_]

_CONFIDENCE: Final = 0.95
# The series below is 24 % too small for 1 degree of freedom, 3 % for 2, and exact to three digits
# from 8 on.
_STUDENT: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t, 97.5 %, for 1 to 9 degrees of freedom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedFigures:
    """Figures of one pool or of the whole fleet, over the requests that arrived after the warm-up.

    Shares are of `requests`. throughput: answers per second. utilisation: share of slot time in
    use. preemptions: per 1,000 requests. reused: cached prompt tokens as a share of all prompt
    tokens. A percentile is infinite if too many requests had no answer.
    """

    name: str
    instances: int
    gpus: int
    requests: int
    throughput: float
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p50_s: float
    tpot_p99_s: float
    preemptions: float
    reused: float
    utilisation: float
    failed_over: float
    clamped: float
    rejected: float
    unfinished: float
    misrouted: float
    over_routed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run.

    warmup_s: earlier arrivals are left out. span_s: from first to last arrival. answer_s: mean time
    from arrival to the last token.
    """

    pools: tuple[SimulatedFigures, ...]
    fleet: SimulatedFigures
    warmup_s: float
    span_s: float
    answer_s: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds and half the width of its 95 % interval; infinite for a single seed."""

    mean: float
    half: float


def summarise(records: Records, warmup_s: float | None = None) -> Result:
    """Summarise a run. warmup_s: seconds from the first arrival; None: `warmup(records)`.

    Raises ValueError if the warm-up leaves no arrival.
    """
    begin, end = float(records.at_s[0]), float(records.at_s[-1])
    left_out = warmup(records) if warmup_s is None else warmup_s
    measured = records.at_s >= begin + left_out
    if not measured.any():
        raise ValueError(f"a warm-up of {left_out:g} s leaves out every arrival")
    judged = _Judged(records, measured, begin + left_out, end)
    pools = range(len(records.fleet.pools))
    return Result(
        pools=tuple(judged.figures((index,)) for index in pools),
        fleet=judged.figures(tuple(pools)),
        warmup_s=left_out,
        span_s=end - begin,
        answer_s=_answer_s(records),
    )


def warmup(records: Records) -> float:
    """Return how long the fleet takes to fill, in seconds from the first arrival.

    It is twice the mean time of an answer, at least a tenth and at most half of the span of the
    arrivals.
    """
    span = float(records.at_s[-1] - records.at_s[0])
    return min(max(2 * _answer_s(records), span / 10), span / 2)


def _answer_s(records: Records) -> float:
    """Return the mean seconds from arrival to the last token, of what was answered."""
    taken = (records.end_s - records.at_s)[np.isfinite(records.end_s)]
    return float(taken.mean()) if taken.size else 0.0


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of a figure over seeds, with its 95 % interval by Student's t."""
    mean = fmean(values)
    if len(values) < 2 or not math.isfinite(mean):
        return Interval(mean, math.inf)
    return Interval(mean, student(len(values) - 1) * stdev(values) / math.sqrt(len(values)))


def student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t; beyond the table by the Cornish-Fisher series.

    Abramowitz and Stegun, 26.7.5.
    """
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


class _Judged:
    """Records, the time span over which they are measured (seconds), and their verdicts."""

    def __init__(self, records: Records, measured: Mask, begin: float, end: float) -> None:
        self._records, self._measured = records, measured
        self._begin, self._end = begin, end
        self._ttft, self._tpot = records.ttft_s, records.tpot_s
        self._verdicts = _verdicts(records)

    def figures(self, pools: tuple[int, ...]) -> SimulatedFigures:
        """Summarise the requests of these pools."""
        records, specs = self._records, [self._records.fleet.pools[pool] for pool in pools]
        inside = np.isin(records.pool, pools)
        # Misroutes count at the pool that the rule chose, everything else at the pool that
        # answered: after a failover the two differ.
        chosen = self._measured & np.isin(records.chosen, pools)
        mine = self._measured & inside
        count = max(1, int(mine.sum()))
        return SimulatedFigures(
            name=specs[0].name if len(specs) == 1 else "fleet",
            instances=sum(spec.instances for spec in specs),
            gpus=sum(spec.instances * spec.gpus for spec in specs),
            requests=int(mine.sum()),
            throughput=self._throughput(inside),
            ttft_p50_s=percentile(self._ttft[mine], 50),
            ttft_p99_s=percentile(self._ttft[mine], 99),
            tpot_p50_s=percentile(self._tpot[mine], 50),
            tpot_p99_s=percentile(self._tpot[mine], 99),
            preemptions=1000 * float(records.preemptions[mine].sum()) / count,
            reused=float(records.reused[mine].sum()) / max(1, int(records.prompt[mine].sum())),
            utilisation=self._utilisation(inside, sum(spec.slots for spec in specs)),
            failed_over=_share(records.fate[mine] == Fate.FAILED_OVER),
            clamped=_share(records.fate[mine] == Fate.CLAMPED),
            rejected=_share(records.fate[mine] == Fate.REJECTED),
            unfinished=_share(records.fate[mine] == Fate.UNFINISHED),
            misrouted=_share(self._verdicts[chosen] == Verdict.MISROUTED.value),
            over_routed=_share(self._verdicts[chosen] == Verdict.OVER_ROUTED.value),
        )

    def _throughput(self, inside: Mask) -> float:
        # The drain after the last arrival is left out: the load falls during it.
        ends = self._records.end_s[inside]
        span = self._end - self._begin
        return float(((ends >= self._begin) & (ends < self._end)).sum()) / span if span else 0.0

    def _utilisation(self, inside: Mask, slots: int) -> float:
        # From the first admission to the end, including the waits of preempted sequences.
        held = self._records.admitted_s[inside].clip(self._begin, self._end)
        free = self._records.end_s[inside].clip(self._begin, self._end)
        span = self._end - self._begin
        return float((free - held).sum()) / (slots * span) if span else 0.0


def percentile(values: Floats, rank: float) -> float:
    """Return a percentile by nearest rank, ignoring NaN; NaN if nothing is left."""
    known = values[~np.isnan(values)]
    if not known.size:
        return math.nan
    # Not numpy's default: interpolating between a finite and an infinite value gives infinity where
    # the rank itself is finite.
    return float(np.percentile(known, rank, method="inverted_cdf"))


def _share(which: Mask) -> float:
    return float(which.mean()) if which.size else 0.0


def _verdicts(records: Records) -> NDArray[np.str_]:
    """Judge every choice as the service does, each distinct pair of choice and need once."""
    pools = records.fleet.routing()
    pairs = np.stack([records.chosen, records.needed])
    unique, where = np.unique(pairs, axis=1, return_inverse=True)
    found = [judge(pools[chosen].name, needed, pools).value for chosen, needed in unique.T.tolist()]
    return np.array(found)[where.ravel()]
