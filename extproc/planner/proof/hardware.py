"""Search the cheapest fleet of several accelerators, and prove it beside fleets of a single one.

Formulas rank the combinations; the simulator, with the service's own rule,
finds the least instances of the cheapest few. All of them hold the same objectives of each class.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

from extproc.planner.proof.catalogue import Machine
from extproc.planner.proof.tails import (
    Fleet,
    TailRow,
    contest_of,
    fleets_of,
    goals_of,
    shape_of,
)
from extproc.planner.sizing.plans import PoolPlan
from extproc.planner.sizing.question import PlanError, Question
from extproc.planner.sizing.search import Planner

_MIXED: Final = 3  # combinations that are proved
_MOST_TIMES: Final = 4  # the instances by formula


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The fleets that were proved, the cheapest first; `threshold` divides the classes.

    tried: combinations by formula. dearer: fleets of one pool that do not hold the objectives at
    the price of the cheapest fleet.
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


def is_mixed(row: TailRow) -> bool:
    """Return whether the pools run on different profiles."""
    return len({shape.profile.name for shape in row.shapes}) > 1


def search(
    question: Question,
    offers: tuple[Sequence[Machine], Sequence[Machine]],
    threshold: int,
    requests: int,
    progress: Callable[[], None] = lambda: None,
) -> Hardware:
    """Return the cheapest fleets of a short and a long pool, and their rivals of one machine.

    offers: the machines of either pool. progress: called for each fleet that is proved. Raises
    PlanError if no combination meets the objectives by formula.
    """
    sides = ((0, threshold), (threshold, question.window))
    halves = [_halves(question, each, *side) for each, side in zip(offers, sides, strict=True)]
    pairs = list(product(*halves))
    if not pairs:
        raise PlanError("--pool: no combination holds the objectives of its class; relax them")
    contest = contest_of(question, threshold, requests, goals_of(question))
    rows, dearer = list[TailRow](), list[str]()
    machines = {each.name: each for each in (*offers[0], *offers[1])}.values()
    splits, alone = _single(question, machines, threshold)
    for fleet in (*_mixed(question, pairs, threshold), *splits):
        row = contest.least(*fleet)
        rows += [row] if row else []
        progress()
    budget = min((row.usd_per_h for row in rows), default=math.inf)
    for name, (shape,), start in alone:
        # A fleet of one pool that is dearer than what is found already need not be sized.
        price = shape.profile.gpus * shape.profile.price_per_gpu_h
        most = min(_MOST_TIMES * start[0], math.floor(budget / price)) if price else start[0]
        row = contest.least(name, (shape,), (max(1, most),), (max(1, most),))
        rows, dearer = ([*rows, row], dearer) if row else (rows, [*dearer, name])
        progress()
    return Hardware(
        question=question,
        threshold=threshold,
        requests=requests,
        tried=len(pairs),
        rows=tuple(sorted(rows, key=lambda row: row.usd_per_h)),
        dearer=tuple(dearer),
    )


def _halves(question: Question, machines: Sequence[Machine], above: int, up_to: int) -> list[_Half]:
    """Return the pools between two thresholds that meet their objectives."""
    found = []
    for machine in machines:
        try:
            pool = Planner(_on(question, machine)).pool(above, up_to)
        except PlanError:  # its KV cache does not hold the window
            continue
        if pool.meets:
            found.append(_Half(machine, pool))
    return found


def _on(question: Question, machine: Machine) -> Question:
    return replace(question, profile=machine.profile)


def _cost(pair: Sequence[_Half]) -> float:
    return sum(half.usd_per_h for half in pair)


def _mixed(
    question: Question, pairs: Iterable[tuple[_Half, ...]], threshold: int
) -> Iterator[Fleet]:
    several = (pair for pair in pairs if pair[0].machine.name != pair[1].machine.name)
    for pair in sorted(several, key=_cost)[:_MIXED]:
        name = " + ".join(half.machine.name for half in pair) + f", split at {threshold}"
        shapes = tuple(
            shape_of(pool, half.pool, _on(question, half.machine))
            for half, pool in zip(pair, ("short", "long"), strict=True)
        )
        yield name, shapes, tuple(half.pool.instances for half in pair)


def _single(
    question: Question, machines: Iterable[Machine], threshold: int
) -> tuple[list[Fleet], list[Fleet]]:
    """Return the fleets of each machine alone: split, and one pool."""
    found = list[Fleet]()
    for machine in machines:
        try:
            fleets = list(fleets_of(_on(question, machine), threshold))
        except PlanError:  # its KV cache does not hold the largest window
            continue
        found += [(f"{machine.name}, {name}", shapes, n) for name, shapes, n in fleets]
    return [each for each in found if len(each[1]) > 1], [
        each for each in found if len(each[1]) == 1
    ]
