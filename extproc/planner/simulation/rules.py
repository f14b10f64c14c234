"""How a simulated fleet routes: the service's own rule, and what it is compared with.

The one rule: a rule sees of a request what it would see in service. Only `Oracle` knows the answer
beforehand.
"""

import enum
import random
from collections.abc import Sequence
from typing import Final, Protocol

from extproc.budget.calibrated import Calibrated
from extproc.budget.category import Labels
from extproc.budget.learner import Learner
from extproc.budget.paper import PaperEstimator
from extproc.budget.prior import MEASURED
from extproc.budget.values import Estimator, Observation, Outcome
from extproc.planner.simulation.fleet import FleetSpec
from extproc.planner.traffic.arrivals import Incoming
from extproc.routing.pools import Pool, choose, limits

TARGET: Final = 0.001
"""The share of requests that may be misrouted: the service's default, as all of what follows."""
_CATEGORIES: Final = 64


class Rule(Protocol):
    """Chooses pools, and learns from answers."""

    def choose(self, incoming: Incoming, loads: Sequence[float]) -> int:
        """Return the index of a pool; `loads` are the requests in each pool for each slot of it."""

    def learn(self, incoming: Incoming, pool: int, outcome: Outcome, tokens: int) -> None:
        """Take in what came of the choice of a pool: so many output tokens, 0 where refused."""


class Estimated:
    """The service's rule: a budget by an estimator that learns, and the thresholds of the pools.

    spill: the load, in requests for each slot of the pool chosen, from which on a less loaded pool
    that can hold the budget gets the request (arXiv 2604.08075, step 5c). None: never, which is
    what the service does, since it does not look at the load of the pools.
    """

    def __init__(
        self, pools: Sequence[Pool], estimator: Estimator, spill: float | None = None
    ) -> None:
        self._pools, self._spill = pools, spill
        self._limits = limits(pools)
        self._learner = Learner(estimator, Labels(_CATEGORIES))

    def choose(self, incoming: Incoming, loads: Sequence[float]) -> int:
        """See `Rule`."""
        budgets = [self._learner.budget(incoming.asked, limit).tokens for limit in self._limits]
        index = self._pools.index(choose(budgets, self._pools).pool)
        if self._spill is None or loads[index] < self._spill:
            return index
        return _spill(index, budgets[min(index, len(budgets) - 1)], self._pools, loads)

    def learn(self, incoming: Incoming, pool: int, outcome: Outcome, tokens: int) -> None:
        """See `Rule`."""
        limit = self._pools[pool].limit
        prompt = 0 if outcome is Outcome.REFUSED else incoming.prompt_tokens
        self._learner.learn(Observation(incoming.asked, outcome, limit, prompt, tokens))


class ByInput:
    """The prompt's exact tokens alone decide: the smallest pool whose threshold they are within."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._pools = pools

    def choose(self, incoming: Incoming, loads: Sequence[float]) -> int:  # noqa: ARG002
        """See `Rule`."""
        return _smallest(incoming.prompt_tokens, self._pools)

    def learn(self, incoming: Incoming, pool: int, outcome: Outcome, tokens: int) -> None:
        """See `Rule`."""


class Oracle:
    """The true total decides, of the prompt and of what will be answered."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._pools = pools

    def choose(self, incoming: Incoming, loads: Sequence[float]) -> int:  # noqa: ARG002
        """See `Rule`."""
        return _smallest(incoming.prompt_tokens + incoming.wanted_tokens, self._pools)

    def learn(self, incoming: Incoming, pool: int, outcome: Outcome, tokens: int) -> None:
        """See `Rule`."""


class AtRandom:
    """Each instance of the fleet gets the same share, whatever its window."""

    def __init__(self, fleet: FleetSpec, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._weights = [pool.instances for pool in fleet.pools]

    def choose(self, incoming: Incoming, loads: Sequence[float]) -> int:  # noqa: ARG002
        """See `Rule`."""
        return self._rng.choices(range(len(self._weights)), self._weights)[0]

    def learn(self, incoming: Incoming, pool: int, outcome: Outcome, tokens: int) -> None:
        """See `Rule`."""


class RuleName(enum.Enum):
    """The rules by the names that commands and reports use."""

    DUALPOOL = "dualpool"  # Estimated, with the calibrated estimator
    PAPER = "paper"  # Estimated, with the estimator of arXiv 2604.08075
    INPUT_LENGTH = "input-length"
    RANDOM = "random"
    ORACLE = "oracle"
    HOMOGENEOUS = "homogeneous"  # nothing to choose: FleetSpec.homogeneous has one pool


def make_rule(name: RuleName, fleet: FleetSpec, seed: int, spill: float | None = None) -> Rule:
    """Return a rule that has learnt nothing yet; `spill` is for those that estimate."""
    pools = fleet.routing()
    match name:
        case RuleName.DUALPOOL:
            made = Calibrated(MEASURED, limits(pools), target=TARGET, categories=_CATEGORIES)
            return Estimated(pools, made, spill)
        case RuleName.PAPER:
            return Estimated(pools, _paper(), spill)
        case RuleName.INPUT_LENGTH:
            return ByInput(pools)
        case RuleName.RANDOM:
            return AtRandom(fleet, seed)
        case RuleName.ORACLE | RuleName.HOMOGENEOUS:
            return Oracle(pools)


def _paper() -> PaperEstimator:
    return PaperEstimator(
        beta=0.95,
        gamma=1.0,
        prior_bytes_per_token=4.0,
        default_output_tokens=1024,
        categories=_CATEGORIES,
    )


def _smallest(tokens: int, pools: Sequence[Pool]) -> int:
    fitting = (index for index, pool in enumerate(pools) if tokens <= pool.limit)
    return next(fitting, len(pools) - 1)


def _spill(index: int, tokens: int, pools: Sequence[Pool], loads: Sequence[float]) -> int:
    """Return the least loaded of the pools that can hold so many tokens, or `index` itself."""
    holding = (i for i, pool in enumerate(pools) if tokens <= pool.max_model_len)
    return min((index, *holding), key=lambda i: loads[i])
