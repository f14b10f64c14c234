"""The estimators to compare; each sees only what it would see in service.

`Exact` alone knows the true prompt tokens in advance: it is the lower bound, a tokenizer in the
router.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from msgspec import structs

from extproc.budget.estimate import Basis, Budget
from extproc.budget.features import FEATURES
from extproc.budget.values import Asked, Estimator, Measure, Observation
from extproc.build import build_estimator
from extproc.config.settings import EstimatorName, Settings
from extproc.evaluation.cases import Case
from extproc.routing.pools import Pool

STATIC: Final = "static 4.0"
PAPER: Final = "paper"
PEER: Final = "nearest peer"
EXACT: Final = "exact tokenizer"
OURS: Final = "calibrated"
STATIC_BYTES_PER_TOKEN: Final = 4.0

_PEER_BYTES_PER_TOKEN: Final = 4.0
_PEER_SAMPLES: Final = 10
_PEER_DOWN, _PEER_UP = 0.90, 0.10
_PEER_PART: Final = 4, 8  # tokens per message, and per tool or tool call


class Rival(Protocol):
    """Estimates budgets for cases and learns from their answers."""

    def budget(self, case: Case) -> Budget:
        """Return the tokens to reserve."""

    def observe(self, case: Case, observation: Observation) -> None:
        """Learn from the answer."""


Rivals = Mapping[str, Callable[[int], Rival]]
"""By name, a function that builds an estimator for a limit, with nothing learnt."""


class Served:
    """An estimator of the service."""

    def __init__(self, estimator: Estimator) -> None:
        self._estimator = estimator

    def budget(self, case: Case) -> Budget:
        """See `Rival`."""
        return self._estimator.budget(case.asked)

    def observe(self, case: Case, observation: Observation) -> None:  # noqa: ARG002
        """See `Rival`."""
        self._estimator.observe(observation)


class Exact:
    """Knows the tokens of the prompt; learns outputs and the level of risk as `Calibrated` does."""

    def __init__(self, calibrated: Estimator) -> None:
        self._calibrated = calibrated

    def budget(self, case: Case) -> Budget:
        """See `Rival`."""
        return self._calibrated.budget(_counted(case, case.prompt_tokens, case.whole_tokens))

    def observe(self, case: Case, observation: Observation) -> None:
        """See `Rival`."""
        # Usage counts all prompts of a batch; the largest, which decides, is known from the case
        # alone.
        whole = observation.prompt_tokens or case.whole_tokens
        asked = _counted(case, case.prompt_tokens if case.asked.whole else whole, whole)
        self._calibrated.observe(structs.replace(observation, asked=asked))


class Peer:
    """The rule of the nearest peer, after its source.

    One ratio for all requests: the first sample replaces it, later ones move it .90 of the way down
    or .10 up; it is used after ten samples. (Its running mean, of decay .995, feeds metrics alone.)
    The estimate is the larger of the ratio's and a floor;
    only the floor (4 bytes per token, 1 if structured, constants per part) includes the stated
    output. Requests with tools teach nothing.
    """

    def __init__(self) -> None:
        self._ratio = _PEER_BYTES_PER_TOKEN
        self._samples = 0

    def budget(self, case: Case) -> Budget:
        """See `Rival`."""
        text = case.asked.measure.text_bytes - case.structured_bytes
        learnt = math.ceil(
            text / (self._ratio if self._samples >= _PEER_SAMPLES else _PEER_BYTES_PER_TOKEN)
        )
        parts = _PEER_PART[0] * case.messages + _PEER_PART[1] * case.tools
        floor = math.ceil(text / _PEER_BYTES_PER_TOKEN) + case.structured_bytes + parts
        prompt = max(learnt, floor)
        total = max(learnt, floor + (case.asked.output_limit or 0))
        return Budget(prompt, 0, total - prompt, Basis.CALIBRATED)

    def observe(self, case: Case, observation: Observation) -> None:
        """See `Rival`."""
        size = case.asked.every.text_bytes
        if case.tools or size <= 0 or observation.prompt_tokens <= 0:
            return
        self._samples += 1
        gap = size / observation.prompt_tokens - self._ratio
        # Quickly down and slowly up: fewer bytes per token mean more tokens, which is safe.
        share = 1.0 if self._samples == 1 else _PEER_DOWN if gap < 0 else _PEER_UP
        self._ratio += share * gap


def static_settings(settings: Settings) -> Settings:
    """Return settings under which the paper's estimator is 4.0 bytes per token, unmoved."""
    # beta 1 keeps the prior whatever is observed, gamma 0 subtracts no margin.
    fixed = {"beta": 1.0, "gamma": 0.0, "prior_bytes_per_token": STATIC_BYTES_PER_TOKEN}
    return settings.model_copy(update={"budget": settings.budget.model_copy(update=fixed)})


def make_rivals(settings: Settings) -> Rivals:
    """Return the estimators under these settings, in the order of reports."""
    static = static_settings(settings)
    return {
        STATIC: lambda limit: Served(_estimator(static, limit, EstimatorName.PAPER)),
        PAPER: lambda limit: Served(_estimator(settings, limit, EstimatorName.PAPER)),
        PEER: lambda _: Peer(),
        EXACT: lambda limit: Exact(_estimator(settings, limit, EstimatorName.CALIBRATED)),
        OURS: lambda limit: Served(_estimator(settings, limit, EstimatorName.CALIBRATED)),
    }


def _estimator(settings: Settings, limit: int, name: EstimatorName) -> Estimator:
    return build_estimator(settings, [Pool("short", limit, limit)], name)


def _counted(case: Case, largest: int, whole: int) -> Asked:
    """Return the request with exact token counts in place of its text."""
    asked = case.asked
    every = _exact(asked.whole, whole) if asked.whole else None
    return structs.replace(asked, measure=_exact(asked.measure, largest), whole=every)


def _exact(measure: Measure, tokens: int) -> Measure:
    # As token ids, which every estimator counts one by one; without features there is no text left
    # to estimate.
    return Measure(measure.text_bytes, tokens, (0.0,) * len(FEATURES))
