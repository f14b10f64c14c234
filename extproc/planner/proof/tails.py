"""What a split does for the tail latencies of short and of long requests, by simulation.

Invariant: a class is its requests' true lengths, whatever pool they went to, so that one pool and a
split are held to the same objectives. Fleets that are compared get the same arrivals.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Final

import numpy as np

from extproc.planner.proof.spread import Spread, in_turn
from extproc.planner.simulation.fleet import FleetSpec, PoolSpec
from extproc.planner.simulation.records import Records
from extproc.planner.simulation.results import Mask, percentile, warmup
from extproc.planner.simulation.rules import RuleName, make_rule
from extproc.planner.simulation.run import Conduct, simulate
from extproc.planner.sizing.plans import Plan, PoolPlan
from extproc.planner.sizing.question import Objectives, Question, SlotRule
from extproc.planner.sizing.search import Planner
from extproc.planner.sizing.sensitivity import shifted
from extproc.planner.traffic.arrivals import Incoming, arrive, draw_limits
from extproc.planner.traffic.lengths import Trace, poisson
from extproc.simulator.engine.profiles import InstanceProfile

SHARES: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of long requests that `study` tries."""
CHUNKS: Final = (256, 512, 1024, 2048)
"""Values of long_prefill_token_threshold that `study` tries for one pool."""
CHUNK: Final = 512
"""The one of them for fleets that are not studied further."""
_MOST: Final = 4  # times the instances by formula: beyond, the objectives are out of reach


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Latencies of the requests of one class; NaN if there are none."""

    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p50_s: float
    tpot_p99_s: float

    def hold(self, goals: Objectives) -> bool:
        """Return whether both 99th percentiles meet the objectives; true without requests."""
        return not (self.ttft_p99_s > goals.ttft_p99_s or self.tpot_p99_s > goals.tpot_p99_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A pool without its number of instances; the other names are those of PoolPlan and of vLLM."""

    name: str
    profile: InstanceProfile
    max_model_len: int
    max_num_seqs: int
    threshold: int
    max_num_batched_tokens: int
    long_prefill_token_threshold: int = 0

    def pool(self, instances: int) -> PoolSpec:
        """Return the pool with so many instances."""
        batched = max(self.max_num_batched_tokens, self.max_num_seqs)
        engine = self.profile.engine(self.max_model_len, self.max_num_seqs, batched)
        return PoolSpec(
            name=self.name,
            engine=replace(engine, long_prefill_token_threshold=self.long_prefill_token_threshold),
            profile=self.profile.pace,
            instances=instances,
            threshold=self.threshold,
            gpus=self.profile.gpus,
            overhead_s=self.profile.overhead_s,
        )


@dataclass(frozen=True, slots=True)
class TailRow:
    """A fleet, and what the requests of each class see of it."""

    name: str
    shapes: tuple[Shape, ...]
    instances: tuple[int, ...]
    short: ClassFigures
    long: ClassFigures

    @property
    def gpus(self) -> int:
        """GPUs of all pools."""
        counts = zip(self.shapes, self.instances, strict=True)
        return sum(shape.profile.gpus * count for shape, count in counts)

    @property
    def usd_per_h(self) -> float:
        """Cost of all GPUs per hour."""
        counts = zip(self.shapes, self.instances, strict=True)
        return sum(s.profile.gpus * s.profile.price_per_gpu_h * count for s, count in counts)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The least GPUs at a share of long requests. None: none found.

    one_pool: with the best max_num_seqs. chunked: one pool with long_prefill_token_threshold.
    """

    share: float
    one_pool: int | None
    chunked: int | None
    split: int | None

    @property
    def unsplit(self) -> int | None:
        """The least GPUs of one pool, whatever its settings."""
        return min((n for n in (self.one_pool, self.chunked) if n), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tails:
    """The study. equal: fleets of as many GPUs. least: those that hold each class's objectives."""

    threshold: int
    requests: int
    share: float
    goals: tuple[Objectives, Objectives]
    equal: tuple[TailRow, ...]
    least: tuple[TailRow, ...]
    curve: tuple[CurvePoint, ...]

    @property
    def best(self) -> TailRow | None:
        """The smallest fleet that holds the objectives of both classes: one pool in a tie."""
        one, split = self.least_of(1), self.least_of(2)
        return split if split and (one is None or split.gpus < one.gpus) else one

    def least_of(self, pools: int) -> TailRow | None:
        """Return the cheapest fleet of so many pools that holds the objectives; None: none does."""
        return min(
            (row for row in self.least if len(row.shapes) == pools),
            key=lambda row: row.gpus,
            default=None,
        )


class Contest:
    """Fleets under the same arrivals, judged by the classes of a threshold in tokens."""

    def __init__(self, trace: Trace, threshold: int, goals: tuple[Objectives, Objectives]) -> None:
        self._trace, self._goals = trace, goals
        self._long = trace.total > threshold

    def __getstate__(self) -> dict[str, object]:
        """Leave out the arrivals: the process that runs a task makes them faster than it reads."""
        return {key: value for key, value in self.__dict__.items() if key != "_arrivals"}

    @cached_property
    def _arrivals(self) -> list[Incoming]:
        return list(arrive(self._trace, draw_limits(self._trace, 0), 0))

    def run(self, name: str, shapes: Sequence[Shape], instances: Sequence[int]) -> TailRow:
        """Simulate a fleet, routed by the service's own rule if it has several pools."""
        records = self._simulate(shapes, instances)
        short, long = (_figures(records, each) for each in self._classes(records))
        return TailRow(name, tuple(shapes), tuple(instances), short, long)

    def _simulate(self, shapes: Sequence[Shape], instances: Sequence[int]) -> Records:
        pools = zip(shapes, instances, strict=True)
        fleet = FleetSpec(tuple(shape.pool(count) for shape, count in pools))
        rule = make_rule(RuleName.DUALPOOL if len(shapes) > 1 else RuleName.ONE_POOL, fleet, 0)
        return simulate(fleet, self._arrivals, rule, Conduct())

    def _classes(self, records: Records) -> tuple[Mask, Mask]:
        """Return which requests are short and which are long, without those of the warm-up."""
        measured = records.at_s >= records.at_s[0] + warmup(records)
        return measured & ~self._long, measured & self._long

    def worst(self, row: TailRow) -> float:
        """Return the largest percentile of a fleet over its objective; above 1 one is missed."""
        pairs = zip((row.short, row.long), self._goals, strict=True)
        return max(
            ratio
            for each, goals in pairs
            for ratio in (each.ttft_p99_s / goals.ttft_p99_s, each.tpot_p99_s / goals.tpot_p99_s)
        )

    def least(
        self,
        name: str,
        shapes: Sequence[Shape],
        start: Sequence[int],
        most: Sequence[int] | None = None,
    ) -> TailRow | None:
        """Return the smallest fleet that holds every objective; None if it is out of reach.

        most: instances; None: four times the start.
        """

        def held(counts: tuple[int, ...]) -> tuple[bool, ...]:
            return self._suffices(self._simulate(shapes, counts))

        found = smallest(held, start, most or [_MOST * count for count in start])
        return self.run(name, shapes, found) if found else None

    def _suffices(self, records: Records) -> tuple[bool, ...]:
        """Return of each pool whether it is large enough.

        It is not, if it answers most of the late requests of a class that misses an objective.
        """
        good = [True] * len(records.fleet.pools)
        for which, goals in zip(self._classes(records), self._goals, strict=True):
            if not _figures(records, which).hold(goals):
                slow = records.ttft_s > goals.ttft_p99_s
                slow |= records.tpot_s > goals.tpot_p99_s
                good[int(np.bincount(records.pool[slow & which]).argmax())] = False
        return tuple(good)


def smallest(
    held: Callable[[tuple[int, ...]], tuple[bool, ...]], start: Sequence[int], most: Sequence[int]
) -> tuple[int, ...] | None:
    """Return the smallest counts for which all hold, each bisected on its own.

    held: whether each count suffices. None if `most` do not.
    """
    low, high = [0] * len(start), [m + 1 for m in most]  # low fails; high holds, or is out of reach
    now = list(start)
    while any(h - lo > 1 for lo, h in zip(low, high, strict=True)):
        for index, good in enumerate(held(tuple(now))):
            if good:
                high[index] = min(high[index], now[index])
            else:
                low[index] = max(low[index], now[index])
        if any(lo >= m for lo, m in zip(low, most, strict=True)):
            return None
        now = [max(lo + 1, (lo + h) // 2) for lo, h in zip(low, high, strict=True)]
    # A pool that shrinks may send more to the other one.
    while not all(each_holds := held(tuple(high))):
        high = [count + (not each) for count, each in zip(high, each_holds, strict=True)]
        if any(count > m for count, m in zip(high, most, strict=True)):
            return None
    return tuple(high)


def study(question: Question, threshold: int, requests: int, spread: Spread = in_turn) -> Tails:
    """Compare one pool with a split at `threshold`: equal GPUs, least GPUs, and over shares.

    requests: of each simulation. Raises PlanError, and ValueError if no request lies above the
    threshold, or none below.
    """
    goals = goals_of(question)
    fleets = tuple(fleets_of(question, threshold))
    contest = contest_of(question, threshold, requests, goals)
    chunked = [chunks_of(fleets[0], most) for most in CHUNKS if most <= question.window]
    trials = [_resized(*fleet, _equal(fleets)) for fleet in (*fleets, *chunked)]
    rows = list(spread("Equal GPUs", [partial(contest.run, *fleet) for fleet in trials]))
    best = min(rows[len(fleets) :], key=contest.worst)
    chunk = best.shapes[0].long_prefill_token_threshold
    fleets = (*fleets[:-1], chunks_of(fleets[0], chunk), fleets[-1])
    tasks = [partial(contest.least, *fleet) for fleet in fleets]
    tasks += [
        partial(_least_at, question, threshold, requests, share, kind)
        for share in SHARES
        for kind in (0, chunk, _SPLIT)
    ]
    least = list(spread("The least GPUs", tasks))
    points = [row.gpus if row else None for row in least[len(fleets) :]]
    return Tails(
        threshold=threshold,
        requests=requests,
        share=1 - question.workload.share_within(threshold),
        goals=goals,
        equal=(*rows[: len(fleets) - 2], best, rows[len(fleets) - 2]),
        least=tuple(row for row in least[: len(fleets)] if row),
        curve=tuple(
            CurvePoint(share, *points[3 * n : 3 * n + 3]) for n, share in enumerate(SHARES)
        ),
    )


def goals_of(question: Question) -> tuple[Objectives, Objectives]:
    """Return the objectives of the short and of the long class."""
    return question.objectives, question.long_objectives or question.objectives


def contest_of(
    question: Question, threshold: int, requests: int, goals: tuple[Objectives, Objectives]
) -> Contest:
    """Return the contest of Poisson arrivals of the question's lengths and rate."""
    # Longer than every window would be refused by all fleets alike.
    fitting = question.workload.between(0, question.window)
    return Contest(poisson(fitting, question.rate_per_s, requests, 0), threshold, goals)


_SPLIT: Final = -1


def _least_at(
    question: Question, threshold: int, requests: int, share: float, kind: int
) -> TailRow | None:
    """Return the smallest fleet at another share of long requests.

    kind: _SPLIT, or the long_prefill_token_threshold of one pool; 0: none.
    """
    long = 1 - question.workload.share_within(threshold)
    changed = replace(question, workload=shifted(question.workload, threshold, long - share))
    contest = contest_of(changed, threshold, requests, goals_of(question))
    *alone, split = fleets_of(changed, threshold)
    if kind:
        return contest.least(*(split if kind == _SPLIT else chunks_of(alone[0], kind)))
    rows = [row for fleet in alone if (row := contest.least(*fleet))]
    return min(rows, key=lambda row: row.gpus, default=None)


Fleet = tuple[str, tuple[Shape, ...], tuple[int, ...]]


def fleets_of(question: Question, threshold: int) -> Iterator[Fleet]:
    """Yield one pool as vLLM starts, one by the actual lengths if it differs, and the split."""
    planner = Planner(question)
    most = question.default_num_seqs
    name, (shape,), counts = fleet_of("one pool, default", planner.as_started, question)
    # As vLLM runs it: the KV cache limits what runs at once, not the formula's effective slots.
    yield name, (replace(shape, max_num_seqs=most),), counts
    packed = planner.packed(SlotRule.OCCUPANCY)
    if packed.pools[0].max_num_seqs < most:
        yield fleet_of(f"one pool, {packed.pools[0].max_num_seqs} seqs", packed, question)
    yield fleet_of(f"split at {threshold}", planner.at((threshold,)), question)


def chunks_of(fleet: "Fleet", most: int) -> "Fleet":
    """Return the fleet of one pool with this long_prefill_token_threshold."""
    _, (shape,), counts = fleet
    limited = replace(shape, long_prefill_token_threshold=most)
    return f"one pool, chunks of {most}", (limited,), counts


def fleet_of(name: str, plan: Plan, question: Question) -> Fleet:
    """Return the shapes and the instances of a plan."""
    shapes = tuple(shape_of(pool.name, pool, question) for pool in plan.pools)
    return name, shapes, tuple(pool.instances for pool in plan.pools)


def shape_of(name: str, pool: PoolPlan, question: Question) -> Shape:
    """Return the shape of a pool on the profile of the question."""
    return Shape(
        name=name,
        profile=question.profile,
        max_model_len=pool.max_model_len,
        max_num_seqs=pool.max_num_seqs,
        threshold=pool.threshold,
        max_num_batched_tokens=question.max_num_batched_tokens,
    )


def _equal(fleets: Sequence[Fleet]) -> int:
    """Return the instances that all fleets get: what one pool needs, and one for each pool."""
    return max(2, min(sum(instances) for _, _, instances in fleets))


def _resized(name: str, shapes: tuple[Shape, ...], instances: tuple[int, ...], total: int) -> Fleet:
    if len(instances) == 1:
        return name, shapes, (total,)
    first = min(total - 1, max(1, round(total * instances[0] / sum(instances))))
    return name, shapes, (first, total - first)


def _figures(records: Records, which: Mask) -> ClassFigures:
    ttft, tpot = records.ttft_s[which], records.tpot_s[which]
    if not ttft.size:
        return ClassFigures(np.nan, np.nan, np.nan, np.nan)
    return ClassFigures(
        percentile(ttft, 50), percentile(ttft, 99), percentile(tpot, 50), percentile(tpot, 99)
    )
