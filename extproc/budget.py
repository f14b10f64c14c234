"""How many tokens a request may need: an estimate of its prompt and a reserve for its output.

`PaperEstimator` is the rule of arXiv 2604.08075, section 3: one ratio of bytes per token for each
category, learned from `usage.prompt_tokens`, and lowered by its own deviation.
"""

import enum
import math
from dataclasses import dataclass
from typing import Protocol

_LEAST_RATIO = 1 / 16  # bytes per token: keeps a budget finite where sigma exceeds c


@dataclass(frozen=True, slots=True)
class Measure:
    """What an estimate is made from, and what an observation is held against."""

    text_bytes: int
    """UTF-8 bytes of the text that the chat template sees, after JSON decoding."""
    token_ids: int = 0
    """Prompt tokens that the client sent as ids: exact, nothing to learn."""


class Basis(enum.Enum):
    """What an estimate rests on."""

    PRIOR = "prior"
    LEARNT = "learnt"


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens that a request may need."""

    prompt_tokens: int
    """The estimate with its margin."""
    output_tokens: int
    basis: Basis
    margin_tokens: int = 0
    """What prompt_tokens holds beyond the estimate itself."""

    @property
    def tokens(self) -> int:
        """Prompt plus output, in tokens: what the pools are chosen by."""
        return self.prompt_tokens + self.output_tokens


class Estimator(Protocol):
    """Gives budgets, and learns from what the pools counted."""

    def budget(self, category: str, measure: Measure, output_tokens: int) -> Budget:
        """Estimate; output_tokens is the reserve for all sequences together."""

    def observe(self, category: str, measure: Measure, prompt_tokens: int) -> None:
        """Learn that `measure` was prompt_tokens long."""

    def snapshot(self) -> dict[str, dict[str, float]]:
        """Return what was learnt, category to figures."""


@dataclass(slots=True)
class _Ratio:
    mean: float  # bytes per token
    deviation: float = 0.0
    samples: int = 0


class PaperEstimator:
    """c* = c - gamma sigma, with c and sigma moving averages of weight beta (2604.08075, sec. 3).

    sigma starts at 0 and is updated after c; the paper leaves both open.
    """

    def __init__(self, *, beta: float, gamma: float, prior_bytes_per_token: float) -> None:
        self._beta, self._gamma, self._prior = beta, gamma, prior_bytes_per_token
        self._ratios: dict[str, _Ratio] = {}

    def budget(self, category: str, measure: Measure, output_tokens: int) -> Budget:
        """ceil(bytes / c*) plus the ids that were given, plus output_tokens."""
        learnt = self._ratios.get(category)
        ratio = learnt or _Ratio(self._prior)
        text = math.ceil(measure.text_bytes / self._conservative(ratio))
        return Budget(
            text + measure.token_ids,
            output_tokens,
            Basis.LEARNT if learnt else Basis.PRIOR,
            text - math.ceil(measure.text_bytes / ratio.mean),
        )

    def observe(self, category: str, measure: Measure, prompt_tokens: int) -> None:
        """Move the category's ratio; a prompt of ids alone, or of no text, teaches nothing."""
        tokens = prompt_tokens - measure.token_ids
        if measure.text_bytes <= 0 or tokens <= 0:
            return
        ratio = self._ratios.setdefault(category, _Ratio(self._prior))
        observed, beta = measure.text_bytes / tokens, self._beta
        ratio.mean = beta * ratio.mean + (1 - beta) * observed
        ratio.deviation = beta * ratio.deviation + (1 - beta) * abs(observed - ratio.mean)
        ratio.samples += 1

    def snapshot(self) -> dict[str, dict[str, float]]:
        """Per category: bytes_per_token, deviation, conservative (bytes per token), samples."""
        return {
            category: {
                "bytes_per_token": ratio.mean,
                "deviation": ratio.deviation,
                "conservative": self._conservative(ratio),
                "samples": ratio.samples,
            }
            for category, ratio in self._ratios.items()
        }

    def _conservative(self, ratio: _Ratio) -> float:
        return max(ratio.mean - self._gamma * ratio.deviation, _LEAST_RATIO)
