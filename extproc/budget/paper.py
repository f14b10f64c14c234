"""The estimator of arXiv 2604.08075, section 3: one ratio of bytes per token for each category."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, TypedDict, Unpack

import msgspec
from msgspec import Meta

from extproc.budget.bounded import BoundedMap
from extproc.budget.category import OTHER
from extproc.budget.estimate import Basis, Budget
from extproc.budget.measure import prior_total
from extproc.budget.saved import Amount, Count, Name, SavedTouches
from extproc.budget.values import Asked, Figures, Learnt, Measure, Observation, Recalled

_LEAST_RATIO = 1 / 16  # bytes per token: keeps a budget finite where sigma exceeds c


@dataclass(slots=True)
class _Ratio:
    mean: float  # bytes per token
    deviation: float = 0.0
    samples: int = 0


class SavedRatio(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=21):
    """A ratio in a snapshot; `category` is None for all others."""

    category: Name | None
    model: Name
    touched: Count
    mean: Annotated[float, Meta(gt=0, le=1e12)]
    deviation: Amount
    samples: Count


class SavedRatios(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=20):
    """The counts over all ratios in a snapshot."""

    touches: SavedTouches


class PaperSettings(TypedDict):
    """What the operator sets; the units are those of BudgetSettings."""

    beta: float
    gamma: float
    prior_bytes_per_token: float
    default_output_tokens: int
    categories: int


class PaperEstimator:
    """c* = c - gamma sigma; c and sigma are moving averages of weight beta.

    sigma starts at 0 and is updated after c; the paper leaves both open, and what to reserve if no
    output limit is stated. Beyond `categories` categories further ones share one ratio.
    """

    def __init__(self, **settings: Unpack[PaperSettings]) -> None:
        self._ratios: BoundedMap[tuple[str, str], _Ratio] = BoundedMap(settings["categories"])
        self._other = _Ratio(settings["prior_bytes_per_token"])
        self.retune(**settings)

    def retune(self, **settings: Unpack[PaperSettings]) -> None:
        """Go on with other settings; the ratios stay."""
        self._beta, self._gamma = settings["beta"], settings["gamma"]
        self._prior = settings["prior_bytes_per_token"]
        self._output = settings["default_output_tokens"]
        self._ratios.resize(settings["categories"])

    def budget(self, asked: Asked) -> Budget:
        """ceil(bytes / c*) plus the ids that were given, plus the output."""
        ratio, size = self._ratio((asked.category, asked.model)), asked.measure.text_bytes
        text, stated = math.ceil(size / ratio.mean), asked.output_limit
        return Budget(
            prompt_tokens=text + asked.measure.token_ids,
            margin_tokens=math.ceil(size / self._conservative(ratio)) - text,
            output_tokens=max(self._output, asked.output_floor) if stated is None else stated,
            basis=Basis.CALIBRATED if ratio.samples else Basis.PRIOR,
        )

    def observe(self, observation: Observation) -> None:
        """Update the category's ratio; a refusal or a prompt without text teaches nothing."""
        asked = observation.asked
        tokens = observation.prompt_tokens - asked.every.token_ids
        if asked.every.text_bytes <= 0 or tokens <= 0 or not observation.by_chance:
            return
        ratio = self._taught((asked.category, asked.model))
        observed, beta = asked.every.text_bytes / tokens, self._beta
        ratio.mean = beta * ratio.mean + (1 - beta) * observed
        ratio.deviation = beta * ratio.deviation + (1 - beta) * abs(observed - ratio.mean)
        ratio.samples += 1

    def knows(self, model: str) -> bool:  # noqa: ARG002
        """Return True: the paper's ratio is of answers."""
        return True

    def weigh(self, model: str, tenant: str, measure: Measure) -> float:  # noqa: ARG002
        """Return the tokens by the prior: a ratio knows only bytes."""
        return prior_total(measure)

    def recall(self, digest: str) -> Recalled | None:
        """Return nothing: the ratio is of whole prompts."""

    def learnt(self) -> Learnt:
        """Return bytes_per_token, deviation, conservative (c*) and samples of each category."""
        ratios = {f"{category}/{model}": ratio for (category, model), ratio in self._ratios.items()}
        if self._other.samples:
            ratios[f"{OTHER}/{OTHER}"] = self._other
        categories = {name: self._figures(ratio) for name, ratio in ratios.items()}
        return Learnt(categories, evicted=self._ratios.evicted)

    def learnt_parts(self) -> Iterator[Learnt]:
        """Yield what was learnt, in one part: it is cheap."""
        yield self.learnt()

    def save(self) -> Iterator[msgspec.Struct]:
        """Yield what is kept in a snapshot."""
        yield SavedRatios(self._ratios.save())
        for (category, model), ratio in self._ratios.items():
            touched = self._ratios.touched((category, model))
            yield SavedRatio(category, model, touched, ratio.mean, ratio.deviation, ratio.samples)
        other = self._other
        yield SavedRatio(None, "", 0, other.mean, other.deviation, other.samples)

    def load(self, parts: Iterable[object]) -> None:
        """Continue as the one that was saved. Raises ValueError."""
        for part in parts:
            match part:
                case SavedRatios():
                    self._ratios.load(part.touches)
                case SavedRatio():
                    ratio = _Ratio(part.mean, part.deviation, part.samples)
                    if part.category is None:
                        self._other = ratio
                    else:
                        self._ratios.restore((part.category, part.model), ratio, part.touched)
                case _:
                    raise ValueError(f"{type(part).__name__} is of another estimator")

    def _figures(self, ratio: _Ratio) -> Figures:
        return {
            "bytes_per_token": ratio.mean,
            "deviation": ratio.deviation,
            "conservative": self._conservative(ratio),
            "samples": ratio.samples,
        }

    def _ratio(self, key: tuple[str, str]) -> _Ratio:
        known = self._ratios.get(key)
        if known is not None:
            return known
        return _Ratio(self._prior) if self._ratios.has_room(key) else self._other

    def _taught(self, key: tuple[str, str]) -> _Ratio:
        ratio = self._ratio(key)
        if ratio is self._other:
            self._ratios.pass_by()
        else:
            self._ratios.touch(key, ratio)
        return ratio

    def _conservative(self, ratio: _Ratio) -> float:
        return max(ratio.mean - self._gamma * ratio.deviation, _LEAST_RATIO)
