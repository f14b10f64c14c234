"""Learn at a constant price: beyond a rate for each model, one answer stands for several.

Every process learns what one of them observes, so the price of an answer grows with their number.
The estimator weighs answers by how many they stand for, and remembers a few thousand: more of them
a second teach nothing more.

Invariant: an answer is kept with the probability 1 / k and then counts k times what it did, so that
every sum over answers stays the same on average.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec import structs

from extproc.budget.bounded import BoundedMap
from extproc.budget.estimate import Budget
from extproc.budget.learner import Learner
from extproc.budget.values import Observation, Outcome
from extproc.routing.pools import Pool, limits
from extproc.routing.route import is_informative
from extproc.stream.sampling import MOST, Sampling

ORDINARY_PER_S: Final = 20.0
"""Answers of one model that tell little; at 0.1 ms each a five-hundredth of a core for each process
that learns them."""
NEAR_PER_S: Final = 100.0
"""Answers to requests that may exceed a window, or whose category is not calibrated."""
SURPRISES_PER_S: Final = 500.0
"""Answers that exceeded their window, and refusals: all, unless a pool refuses everything."""


@dataclass(frozen=True, slots=True)
class _Rates:
    """How many answers of one model come, by how much they tell."""

    ordinary: Sampling
    near: Sampling
    surprises: Sampling


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much one process may learn.

    share: its part of each rate, 0 to 1. models: how many have rates of their own; all further ones
    have one set of rates together.
    """

    share: float = 1.0
    models: int = 256


class Thinning:
    """Passes a part of the answers on to `learn`.

    `row` returns the pools that have a model, `clock` seconds, monotonic, and `draw` a new random
    number from 0 to 1.
    """

    def __init__(
        self,
        learn: Callable[[Observation], None],
        learner: Learner,
        row: Callable[[str], Sequence[Pool]],
        clock: Callable[[], float],
        draw: Callable[[], float],
        allowance: Allowance,
    ) -> None:
        self._learn, self._learner, self._row = learn, learner, row
        self._clock, self._draw, self._share = clock, draw, allowance.share
        self._models: BoundedMap[str, _Rates] = BoundedMap(allowance.models - 1)
        self._others = self._new()

    def learn(self, seen: Observation) -> None:
        """Pass an answer on, or drop it: others then stand for it."""
        rates = self._rates(seen.asked.model)
        if (ordinary := self._one_in(rates.ordinary)) == 1:
            self._learn(seen)
        else:
            self._thin(seen, rates, ordinary)

    def _thin(self, seen: Observation, rates: _Rates, ordinary: int) -> None:
        drawn, pools = self._draw(), self._row(seen.asked.model)
        chance_in = kept_in = ordinary
        # An answer that stands for others is to a request that was found far from every window. If
        # it fitted all of them too, its budget would tell nothing more.
        if seen.stands_for == 1 or _exceeds_one(seen, pools):
            budget = self._learner.budget(seen.asked)
            # By what was known before the answer came.
            if is_informative(budget, pools):
                chance_in = kept_in = min(ordinary, self._one_in(rates.near))
            if _is_surprise(seen, budget, pools):
                kept_in = min(chance_in, self._one_in(rates.surprises))
        if drawn * kept_in < 1.0:
            stands_for, by_chance = seen.stands_for * kept_in, drawn * chance_in < 1.0
            self._learn(structs.replace(seen, stands_for=stands_for, by_chance=by_chance))

    def _one_in(self, answers: Sampling) -> int:
        return answers.one_in(1.0 / MOST, self._learner.replicas)

    def _rates(self, model: str) -> _Rates:
        found = self._models.get(model)
        if found is None:
            if not self._models.has_room(model):
                self._models.pass_by()
                return self._others
            found = self._new()
        self._models.touch(model, found)
        return found

    def _new(self) -> _Rates:
        rates = (ORDINARY_PER_S, NEAR_PER_S, SURPRISES_PER_S)
        return _Rates(*(Sampling(self._clock, rate * self._share) for rate in rates))


def _exceeds_one(seen: Observation, pools: Sequence[Pool]) -> bool:
    if seen.outcome is Outcome.REFUSED or seen.needed > seen.window:
        return True
    return any(limit < seen.needed for limit in limits(pools))


def _is_surprise(seen: Observation, budget: Budget, pools: Sequence[Pool]) -> bool:
    """Return whether it exceeded its window, or one that its budget would have fitted."""
    if seen.outcome is Outcome.REFUSED or seen.needed > seen.window:
        return True
    return any(budget.tokens <= limit < seen.needed for limit in limits(pools))
