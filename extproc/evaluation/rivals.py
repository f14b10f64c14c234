"""The estimators that are compared; each sees of a case what it would see in service.

Only `Exact` looks at the true prompt tokens beforehand: it is the floor, a tokenizer in the router.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Protocol

from extproc.budget.calibrated import Calibrated
from extproc.budget.features import FEATURES
from extproc.budget.paper import PaperEstimator
from extproc.budget.prior import MEASURED
from extproc.budget.values import Asked, Basis, Budget, Estimator, Measure, Observation
from extproc.evaluation.cases import Case

OURS: Final = "calibrated"
EXACT: Final = "exact tokenizer"
TARGET: Final = 0.001
_CATEGORIES: Final = 64
_BYTES_PER_TOKEN: Final = 4.0
_DEFAULT_OUTPUT: Final = 1024  # as the setting budget.default_output_tokens

_PEER_SAMPLES: Final = 10
_PEER_DOWN, _PEER_UP = 0.90, 0.10
_PEER_PART: Final = 4, 8  # tokens a message, and a tool or a call of one


class Rival(Protocol):
    """Gives budgets for cases, and learns from their answers."""

    def budget(self, case: Case, limit: int) -> Budget:
        """Return what it would reserve where that is held against `limit` tokens."""

    def observe(self, case: Case, observation: Observation) -> None:
        """Learn from the answer."""


class Served:
    """An estimator of the service."""

    def __init__(self, estimator: Estimator) -> None:
        self._estimator = estimator

    def budget(self, case: Case, limit: int) -> Budget:
        """See `Rival`."""
        return self._estimator.budget(case.asked, limit)

    def observe(self, case: Case, observation: Observation) -> None:  # noqa: ARG002
        """See `Rival`."""
        self._estimator.observe(observation)


class Exact:
    """Knows the prompt's tokens; outputs and the level of risk are learnt as `Calibrated` does."""

    def __init__(self, limit: int) -> None:
        self._calibrated = calibrated(limit)

    def budget(self, case: Case, limit: int) -> Budget:
        """See `Rival`."""
        return self._calibrated.budget(_counted(case, case.prompt_tokens), limit)

    def observe(self, case: Case, observation: Observation) -> None:
        """See `Rival`."""
        asked = _counted(case, observation.prompt_tokens or case.prompt_tokens)
        self._calibrated.observe(replace(observation, asked=asked))


class Peer:
    """The nearest peer's rule, as its source has it.

    One ratio for all: the first sample replaces it, later ones move it .90 of the way down or .10
    up; it is used from ten samples on. The larger of what it gives and a floor is routed by; only
    the floor (4 bytes a token, 1 where structured, constants for each part) holds the stated
    output. Requests with tools teach nothing.
    """

    def __init__(self) -> None:
        self._ratio = _BYTES_PER_TOKEN
        self._samples = 0

    def budget(self, case: Case, limit: int) -> Budget:  # noqa: ARG002 - the same for every limit
        """See `Rival`."""
        text = case.asked.measure.text_bytes - case.structured_bytes
        learnt = math.ceil(text / (self._ratio if self._samples >= _PEER_SAMPLES else 4.0))
        parts = _PEER_PART[0] * case.messages + _PEER_PART[1] * case.tools
        floor = math.ceil(text / 4) + case.structured_bytes + parts
        prompt = max(learnt, floor)
        total = max(learnt, floor + (case.asked.output_limit or 0))
        return Budget(prompt, 0, total - prompt, Basis.CALIBRATED)

    def observe(self, case: Case, observation: Observation) -> None:
        """See `Rival`."""
        size = case.asked.measure.text_bytes
        if case.tools or size <= 0 or observation.prompt_tokens <= 0:
            return
        self._samples += 1
        gap = size / observation.prompt_tokens - self._ratio
        share = 1.0 if self._samples == 1 else _PEER_DOWN if gap < 0 else _PEER_UP
        self._ratio += share * gap


def calibrated(limit: int) -> Calibrated:
    """Return the service's own estimator, with nothing learnt."""
    return Calibrated(MEASURED, (limit,), target=TARGET, categories=_CATEGORIES)


def static() -> PaperEstimator:
    """Return the rule of 4.0 bytes a token: the paper's, when nothing moves it."""
    return _paper(beta=1.0, gamma=0.0)


def _paper(*, beta: float, gamma: float) -> PaperEstimator:
    return PaperEstimator(
        beta=beta,
        gamma=gamma,
        prior_bytes_per_token=_BYTES_PER_TOKEN,
        default_output_tokens=_DEFAULT_OUTPUT,
        categories=_CATEGORIES,
    )


def _counted(case: Case, tokens: int) -> Asked:
    measure = Measure(case.asked.measure.text_bytes, tokens, (0.0,) * len(FEATURES))
    return replace(case.asked, measure=measure)


RIVALS: Final[Mapping[str, Callable[[int], Rival]]] = {
    "static 4.0": lambda _: Served(static()),
    "paper": lambda _: Served(_paper(beta=0.95, gamma=1.0)),
    "nearest peer": lambda _: Peer(),
    EXACT: Exact,
    OURS: lambda limit: Served(calibrated(limit)),
}
"""By name, what makes one that is held against a limit, with nothing learnt."""
