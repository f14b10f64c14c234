"""Route requests in a simulated fleet: the service's own rule, and the rules to compare it with.

Invariant: a rule sees only what it would see in service. `Oracle` alone knows the answer in
advance.
"""

import enum
import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from extproc.budget.values import Estimator, Observation, Outcome
from extproc.planner.simulation.fleet import FleetSpec
from extproc.planner.traffic.arrivals import Incoming
from extproc.routing.pools import Pool, choose

if TYPE_CHECKING:
    from extproc.config.settings import Settings


class Rule(Protocol):
    """Chooses pools and learns from answers."""

    def choose(self, incoming: Incoming) -> int:
        """Return the index of a pool."""

    def learn(self, incoming: Incoming, pool: int, outcome: Outcome, tokens: int) -> None:
        """Learn from the answer of the pool that was chosen: `tokens` of output, 0 if refused."""


class Estimated:
    """The service's rule: estimate the budget, learn from answers, compare with the thresholds."""

    def __init__(self, pools: Sequence[Pool], estimator: Estimator) -> None:
        self._pools, self._estimator = pools, estimator

    def choose(self, incoming: Incoming) -> int:
        """See `Rule`."""
        return self._pools.index(choose(self._estimator.budget(incoming.asked), self._pools).pool)

    def learn(self, incoming: Incoming, pool: int, outcome: Outcome, tokens: int) -> None:
        """See `Rule`."""
        window = self._pools[pool].max_model_len
        # A refusal carries no usage.
        prompt = 0 if outcome is Outcome.REFUSED else incoming.prompt_tokens
        self._estimator.observe(Observation(incoming.asked, outcome, window, prompt, tokens))


class Replayed:
    """Choose what an earlier run chose for the same arrivals, and learn nothing."""

    def __init__(self, chosen: Iterable[int]) -> None:
        self._chosen = iter(chosen)

    def choose(self, incoming: Incoming) -> int:  # noqa: ARG002
        """See `Rule`."""
        return next(self._chosen)

    def learn(self, incoming: Incoming, pool: int, outcome: Outcome, tokens: int) -> None:
        """See `Rule`."""


class ByInput:
    """Choose the smallest pool whose threshold holds the prompt, counted exactly, alone."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._pools = pools

    def choose(self, incoming: Incoming) -> int:
        """See `Rule`."""
        return _smallest(incoming.prompt_tokens, self._pools)

    def learn(self, incoming: Incoming, pool: int, outcome: Outcome, tokens: int) -> None:
        """See `Rule`."""


class Oracle:
    """Choose by the true total: the prompt and the answer that it will get."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._pools = pools

    def choose(self, incoming: Incoming) -> int:
        """See `Rule`."""
        return _smallest(incoming.prompt_tokens + incoming.wanted_tokens, self._pools)

    def learn(self, incoming: Incoming, pool: int, outcome: Outcome, tokens: int) -> None:
        """See `Rule`."""


class AtRandom:
    """Give every instance of the fleet the same share, whatever its window."""

    def __init__(self, fleet: FleetSpec, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._weights = [pool.instances for pool in fleet.pools]

    def choose(self, incoming: Incoming) -> int:  # noqa: ARG002
        """See `Rule`."""
        return self._rng.choices(range(len(self._weights)), self._weights)[0]

    def learn(self, incoming: Incoming, pool: int, outcome: Outcome, tokens: int) -> None:
        """See `Rule`."""


class RuleName(enum.Enum):
    """Names of the rules in commands and reports."""

    DUALPOOL = "dualpool"  # Estimated, with the estimator of the settings
    PAPER = "paper"  # Estimated, with the estimator of arXiv 2604.08075
    INPUT_LENGTH = "input-length"
    RANDOM = "random"
    ORACLE = "oracle"
    # Nothing to choose: the fleet has one pool, FleetSpec.one_pool or FleetSpec.homogeneous.
    ONE_POOL = "one-pool"
    HOMOGENEOUS = "homogeneous"


def make_rule(
    name: RuleName,
    fleet: FleetSpec,
    seed: int,
    settings: "Settings | None" = None,
) -> Rule:
    """Return a rule that has learnt nothing.

    The settings, by default the service's, apply to the rules that estimate, but for their section
    `load`. The fleet replaces the settings' pools.
    """
    pools = fleet.routing()
    match name:
        case RuleName.DUALPOOL | RuleName.PAPER:
            return _estimated(pools, settings, is_paper=name is RuleName.PAPER)
        case RuleName.INPUT_LENGTH:
            return ByInput(pools)
        case RuleName.RANDOM:
            return AtRandom(fleet, seed)
        case RuleName.ORACLE | RuleName.ONE_POOL | RuleName.HOMOGENEOUS:
            return Oracle(pools)


def _estimated(pools: Sequence[Pool], settings: "Settings | None", *, is_paper: bool) -> Estimated:
    # Imported here: settings and estimators take as long to import as a plan by formula takes.
    from extproc.build import build_estimator
    from extproc.config.settings import EstimatorName, Settings

    paper = EstimatorName.PAPER if is_paper else None
    return Estimated(pools, build_estimator(settings or Settings(), pools, paper))


def _smallest(tokens: int, pools: Sequence[Pool]) -> int:
    fitting = (index for index, pool in enumerate(pools) if tokens <= pool.limit)
    return next(fitting, len(pools) - 1)
