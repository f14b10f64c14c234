"""Budgets of requests of one model and category, from numbers that hold until the next answer.

Invariant: a budget is that of the estimator for the same request, if that is one plain text.
"""

import math
from typing import NamedTuple

from extproc.budget.estimate import Basis, Budget
from extproc.budget.outputs import Kind, size_class
from extproc.budget.states import Distributions
from extproc.budget.values import Row
from extproc.budget.weights import TokenWeights
from extproc.tokens import MAX_TOKENS


class Levels(NamedTuple):
    """The shares of requests that may exceed a budget's tokens, what it expects, and its most."""

    usual: float
    expected: float
    most: float


class _Outputs(NamedTuple):
    """Completion tokens that half of all answers exceed, and the share of each level."""

    middle: float
    usual: float
    expected: float
    most: float


class Outlook:
    """Estimates budgets of texts by their features, and the share that their sample left out.

    `doubt` is a deviation to add to that of the weights, as a share of the prompt.
    """

    def __init__(
        self,
        weights: TokenWeights,
        doubt: float,
        known: Distributions,
        levels: Levels,
        basis: Basis,
    ) -> None:
        self.basis = basis
        self._weights, self._doubt = weights, doubt
        self._known, self._levels = known, levels
        upper = known.errors.whole.upper
        self._errors = Levels(*map(upper, levels))
        self._centre, self._lowest = upper(0.5), upper(1.0 - levels.most)
        self._outputs: dict[tuple[Kind, int], _Outputs] = {}

    def reserved(self, features: Row, unseen: float, output: int) -> Budget:
        """Return the budget of a request whose output limit is reserved in full."""
        tokens, deviation = self._predict(features, unseen)
        prompt, (usual, expected, most) = round(tokens), self._errors
        return Budget(
            prompt,
            math.ceil(tokens + usual * deviation + output) - prompt - output,
            output,
            self.basis,
            math.ceil(tokens + expected * deviation + output),
            math.ceil(tokens + most * deviation + output),
            math.floor(tokens + self._lowest * deviation + output),
        )

    def expected(
        self, features: Row, unseen: float, floor: int, limit: int | None, form: str
    ) -> Budget:
        """Return the budget of a request of which the output counts that it is expected to have.

        `floor` and `limit` are the least and the most that the request states, `form` is that of
        the answer.
        """
        tokens, deviation = self._predict(features, unseen)
        prompt, errors = round(tokens), self._errors
        outputs = self._find_outputs(Kind("", form, limit is not None), size_class(int(tokens)))
        ceiling = limit or MAX_TOKENS
        middle, *highs = [min(max(floor, each), ceiling) for each in outputs]
        centre = self._centre * deviation
        total, expected, most = [
            math.ceil(
                tokens + centre + middle + math.hypot(error * deviation - centre, high - middle)
            )
            for error, high in zip(errors, highs, strict=True)
        ]
        output = round(highs[0])
        least = math.floor(tokens + self._lowest * deviation + output)
        return Budget(prompt, total - prompt - output, output, self.basis, expected, most, least)

    def _predict(self, features: Row, unseen: float) -> tuple[float, float]:
        """Return tokens and their deviation."""
        tokens, deviation = self._weights.predict_text(features, unseen)
        doubt = self._doubt
        return tokens, math.hypot(deviation, doubt * tokens) if doubt else deviation

    def _find_outputs(self, kind: Kind, size: int) -> _Outputs:
        known = self._outputs.get((kind, size))
        if known is None:
            upper = self._known.outputs.find(kind, size).upper
            known = self._outputs[kind, size] = _Outputs(upper(0.5), *map(upper, self._levels))
        return known
