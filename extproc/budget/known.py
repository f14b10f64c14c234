"""What a request is estimated from, and the estimates that follow from it.

A worked example, for a request without an output limit: the weights predict 3,000 prompt tokens
with a deviation of 90; the level is 0.02. Two in a hundred standardised errors exceed 2.3, so the
prompt's margin is 207 over its median of 0. The category's outputs have the median 200 and exceed
3,200 twice in a hundred. The two errors are independent: the total is
3,000 + 200 + hypot(207, 3,000) = 6,207, and the request goes to the pool with a window of 8,192.
"""

import math
from collections.abc import Callable
from typing import Final

import msgspec

from extproc.budget.estimate import Basis, Budget
from extproc.budget.outlook import Levels, Outlook
from extproc.budget.outputs import output_kind, size_class
from extproc.budget.states import CategoryKey, CategoryState, Distributions, ModelState
from extproc.budget.steering import CEILING, FLOOR, LEVELS, Steering
from extproc.budget.tenants import Tenant
from extproc.budget.values import Asked, Measure
from extproc.budget.weights import SURPRISE, Prediction, TokenWeights
from extproc.tokens import MAX_TOKENS

CALIBRATED_FROM: Final = 50
"""Observations from which on the estimates of a category are called calibrated."""
NEW: Final = 0.7
"""The share of the level that a category may use before its first answer."""


class Known(msgspec.Struct, frozen=True, gc=False):
    """The states that a request is estimated from; a key is None if they stand for all others."""

    model_key: str | None
    model: ModelState
    category_key: CategoryKey | None
    category: CategoryState
    tenant: Tenant | None
    """None if tenants are not told apart."""
    steering: Steering
    distributions: Distributions
    """The errors and outputs that the request is expected to have."""
    evidence: float
    """The share of the level that a category may use, of `evidence_of`."""

    @property
    def weights(self) -> TokenWeights:
        """The weights that predict the prompt."""
        return self.own_weights or self.model.member.weights

    @property
    def own_weights(self) -> TokenWeights | None:
        """The weights of the tenant alone, if those of the model do not fit it."""
        return self.tenant.fit.own if self.tenant else None

    @property
    def levels(self) -> Levels:
        """The shares of such requests that may exceed their budget."""
        evidence = self.evidence
        return Levels(self.steering.level * evidence, CEILING * evidence, FLOOR * evidence)

    @property
    def basis(self) -> Basis:
        """What the estimate stands on."""
        is_known = self.distributions.observations >= CALIBRATED_FROM
        if is_known and self.weights.surprise <= SURPRISE:
            return Basis.CALIBRATED
        return Basis.BORROWED if self.weights.observations else Basis.PRIOR

    def predict(self, measure: Measure) -> Prediction:
        """Return the tokens of a prompt without the ids, which are exact."""
        return (self.own_weights or self.model.member).predict(measure)

    def outlook(self) -> Outlook:
        """Return what estimates plain texts."""
        doubt = 0.0 if self.own_weights else self.model.member.doubt
        return Outlook(self.weights, doubt, self.distributions, self.levels, self.basis)

    def budget(self, asked: Asked, found: Prediction) -> Budget:
        """Return the budget of a request whose prompt has the tokens `found`."""
        levels, prompt = self.levels, round(found.tokens) + asked.measure.token_ids
        reserve = _reserving(asked, found, self.distributions)
        total, output = reserve(levels.usual)
        expected, most = reserve(levels.expected)[0], reserve(levels.most)[0]
        margin = math.ceil(total) - prompt - output
        lowest = self.distributions.errors.of(asked, found).upper(1.0 - levels.most)
        least = found.tokens + lowest * found.deviation + output
        return Budget(
            prompt,
            margin,
            output,
            self.basis,
            math.ceil(expected),
            math.ceil(most),
            math.floor(least) + asked.measure.token_ids,
        )

    def risk_bin(self, asked: Asked, limit: int, found: Prediction) -> int:
        """Count the levels at which the request fits the limit: its risk is below each of them."""
        low, high = 0, len(LEVELS)
        reserve = _reserving(asked, found, self.distributions)
        while low < high:
            middle = (low + high) // 2
            total, _ = reserve(LEVELS[middle] * self.evidence)
            low, high = (middle + 1, high) if math.ceil(total) <= limit else (low, middle)
        return low


def evidence_of(answers: float) -> float:
    """Return the share of the level that a category may use after so many answers."""
    return min(1.0, NEW + (1.0 - NEW) * answers / CALIBRATED_FROM)


def asked_size(asked: Asked, found: Prediction) -> int:
    """Return the class of outputs.size_class of a prompt that has the tokens `found`."""
    return size_class(int(found.tokens) + asked.measure.token_ids)


def _reserving(
    asked: Asked, found: Prediction, category: Distributions
) -> Callable[[float], tuple[float, int]]:
    """Return what tells, for a level, the total that a share of it exceeds, and its output's part.

    Both in tokens. Invariant: the total never falls while the level falls; `Known.risk_bin` relies
    on it.
    """
    known, deviation = asked.measure.token_ids + found.tokens, found.deviation
    upper, reserved = category.errors.of(asked, found).upper, asked.reserved
    if reserved is not None:
        return lambda level: (known + upper(level) * deviation + reserved, reserved)
    outputs = category.outputs.find(output_kind(asked), asked_size(asked, found)).upper
    least, most = asked.output_floor, asked.output_limit or MAX_TOKENS
    sequences, centre = asked.sequences, upper(0.5) * deviation
    # The longest of n outputs exceeds a length about n times as often as one does.
    middle = min(max(least, outputs(0.5 / sequences)), most)

    def reserve(level: float) -> tuple[float, int]:
        high = min(max(least, outputs(level / sequences)), most)
        # Independent errors: distances from the medians add up as the root of their squares.
        spread = math.hypot(upper(level) * deviation - centre, high - middle)
        return known + centre + middle + spread, round(high)

    return reserve
