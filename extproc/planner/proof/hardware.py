"""Search the cheapest fleet of several accelerators, and prove it beside fleets of a single one.

Formulas rank the combinations of two machines and a threshold, which is the window of the short
pool too; the simulator, with the service's own rule, finds the least instances of the cheapest few.
All of them hold the same objectives of each class.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Final

from extproc.planner.proof.catalogue import Machine
from extproc.planner.proof.spread import Spread, in_turn
from extproc.planner.proof.tails import (
    CHUNK,
    Contest,
    Fleet,
    TailRow,
    chunks_of,
    contest_of,
    fleets_of,
    goals_of,
    shape_of,
)
from extproc.planner.sizing.plans import PoolPlan
from extproc.planner.sizing.question import PlanError, Question
from extproc.planner.sizing.search import Planner

_MIXED: Final = 3  # pairs of machines that are proved
_MOST_TIMES: Final = 4  # the instances by formula


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The fleets that were proved, the cheapest first; `threshold` divides the classes.

    tried: combinations of machines and thresholds by formula. dearer: fleets of one pool that do
    not hold the objectives at the price of the cheapest fleet.
    """

    question: Question
    threshold: int
    requests: int
    tried: int
    rows: tuple[TailRow, ...]
    dearer: tuple[str, ...]

    def best(self, *, mixed: bool) -> TailRow | None:
        """Return the cheapest fleet of several accelerators, or of one; None if none holds."""
        return next((row for row in self.rows if is_mixed(row) is mixed), None)


@dataclass(frozen=True, slots=True)
class _Half:
    """One pool of a combination, sized by formula."""

    machine: Machine
    pool: PoolPlan

    @property
    def usd_per_h(self) -> float:
        return self.pool.gpus * self.machine.profile.price_per_gpu_h


@dataclass(frozen=True, slots=True)
class _Pair:
    """A short and a long pool, split at a threshold."""

    threshold: int
    short: _Half
    long: _Half

    @property
    def usd_per_h(self) -> float:
        return self.short.usd_per_h + self.long.usd_per_h

    @property
    def machines(self) -> tuple[str, str]:
        return self.short.machine.name, self.long.machine.name


def is_mixed(row: TailRow) -> bool:
    """Return whether the pools run on different profiles."""
    return len({shape.profile.name for shape in row.shapes}) > 1


def search(
    question: Question,
    offers: tuple[Sequence[Machine], Sequence[Machine]],
    threshold: int,
    requests: int,
    spread: Spread = in_turn,
    thresholds: Sequence[int] = (),
) -> Hardware:
    """Return the cheapest fleets of a short and a long pool, and their rivals of one machine.

    offers: the machines of either pool. threshold: divides the classes. thresholds: where a fleet
    may be split; () tries the threshold of the classes and the planner's candidates. Raises
    PlanError if no combination meets the objectives by formula.
    """
    machines = {each.name: each for each in (*offers[0], *offers[1])}
    planners = {name: Planner(_on(question, each)) for name, each in machines.items()}
    tried = thresholds or _candidates(question, threshold)
    pairs = [pair for at in tried for pair in _pairs(planners, offers, at, question.window)]
    if not pairs:
        raise PlanError("--pool: no combination holds the objectives of its class; relax them")
    contest = contest_of(question, threshold, requests, goals_of(question))
    fleets = [_fleet(question, pair) for pair in _best(pairs, threshold)]
    tasks = [partial(contest.least, *fleet) for fleet in fleets]
    rows = [row for row in spread("Fleets that are split", tasks) if row]
    budget = min((row.usd_per_h for row in rows), default=math.inf)
    alone = list(_alone(question, machines.values(), threshold))
    tasks = [partial(_within, contest, fleet, budget) for fleet in alone]
    dearer = list[str]()
    for (name, *_), row in zip(alone, spread("Fleets of one pool", tasks), strict=True):
        rows, dearer = ([*rows, row], dearer) if row else (rows, [*dearer, name])
    return Hardware(
        question=question,
        threshold=threshold,
        requests=requests,
        tried=len(pairs),
        rows=tuple(sorted(rows, key=lambda row: row.usd_per_h)),
        dearer=tuple(dearer),
    )


def _candidates(question: Question, threshold: int) -> list[int]:
    short, long = goals_of(question)
    # With a lower threshold the long pool has to hold the short class's objectives as well, and its
    # own prefills alone exceed them.
    least = 0 if short == long else threshold
    return sorted({threshold, *(t for t in Planner(question).candidates if t >= least)})


def _within(contest: Contest, fleet: Fleet, budget: float) -> TailRow | None:
    """Return the smallest fleet of one pool; None if it is dearer than the budget."""
    name, (shape,), (start,) = fleet
    price = shape.profile.gpus * shape.profile.price_per_gpu_h
    most = min(_MOST_TIMES * start, math.floor(budget / price)) if price else start
    # The most first: where it does not hold, nothing need be searched.
    return contest.least(name, (shape,), (max(1, most),), (max(1, most),))


def _pairs(
    planners: Mapping[str, Planner],
    offers: tuple[Sequence[Machine], Sequence[Machine]],
    threshold: int,
    window: int,
) -> Iterator[_Pair]:
    """Yield the pairs of pools, split here, of which both meet their objectives by formula.

    Those that are offered, and those of each machine alone.
    """
    short_names, long_names = ({machine.name for machine in offer} for offer in offers)
    for short, long in product(
        _halves(planners, (0, threshold)), _halves(planners, (threshold, window))
    ):
        pair = _Pair(threshold, short, long)
        first, second = pair.machines
        if first == second or (first in short_names and second in long_names):
            yield pair


def _halves(planners: Mapping[str, Planner], side: tuple[int, int]) -> list[_Half]:
    """Return the pools between two thresholds that meet their objectives."""
    found = []
    for name, planner in planners.items():
        try:
            pool = planner.pool(*side)
        except PlanError:  # its KV cache does not hold the window
            continue
        if pool.meets:
            asked = planner.question
            machine = Machine(name, asked.profile, asked.max_num_batched_tokens)
            found.append(_Half(machine, pool))
    return found


def _best(pairs: Sequence[_Pair], threshold: int) -> list[_Pair]:
    """Return what is proved: of the cheapest pairs of machines, and of each machine alone.

    Of each the cheapest threshold and, as the formulas are not exact, that of the classes.
    """
    by_machines = dict[tuple[str, str], list[_Pair]]()
    for pair in pairs:
        by_machines.setdefault(pair.machines, []).append(pair)
    chosen = {
        machines: {
            min(found, key=lambda pair: (pair.usd_per_h, abs(pair.threshold - threshold))),
            *(pair for pair in found if pair.threshold == threshold),
        }
        for machines, found in by_machines.items()
    }
    mixed = [found for (short, long), found in chosen.items() if short != long]
    mixed.sort(key=lambda found: min(pair.usd_per_h for pair in found))
    single = [found for (short, long), found in chosen.items() if short == long]
    proved = [pair for found in (*mixed[:_MIXED], *single) for pair in found]
    return sorted(proved, key=lambda pair: (pair.usd_per_h, pair.threshold, pair.machines))


def _on(question: Question, machine: Machine) -> Question:
    profile, batched = machine.profile, machine.max_num_batched_tokens
    batched = profile.max_num_batched_tokens if batched is None else batched
    return replace(question, profile=profile, max_num_batched_tokens=batched)


def _fleet(question: Question, pair: _Pair) -> Fleet:
    halves = {"short": pair.short, "long": pair.long}
    shapes = tuple(
        shape_of(name, half.pool, _on(question, half.machine)) for name, half in halves.items()
    )
    machines = " + ".join(dict.fromkeys(pair.machines))
    name = f"{machines}, split at {pair.threshold}"
    return name, shapes, tuple(half.pool.instances for half in halves.values())


def _alone(question: Question, machines: Iterable[Machine], threshold: int) -> Iterator[Fleet]:
    """Yield the fleets of one pool on each machine."""
    for machine in machines:
        try:
            *alone, _ = fleets_of(_on(question, machine), threshold)
        except PlanError:  # its KV cache does not hold the largest window
            continue
        for name, shapes, counts in (*alone, chunks_of(alone[0], CHUNK)):
            yield f"{machine.name}, {name}", shapes, counts
