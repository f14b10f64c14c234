"""The estimator of arXiv 2604.08075, section 3: one ratio of bytes per token for each category."""

import math
from collections import OrderedDict
from dataclasses import dataclass

from extproc.budget.values import Asked, Basis, Budget, Learnt, Observation

_LEAST_RATIO = 1 / 16  # bytes per token: keeps a budget finite where sigma exceeds c


@dataclass(slots=True)
class _Ratio:
    mean: float  # bytes per token
    deviation: float = 0.0
    samples: int = 0


class PaperEstimator:
    """c* = c - gamma sigma, with c and sigma moving averages of weight beta.

    sigma starts at 0 and is updated after c; the paper leaves both open, and what to reserve where
    no output limit is stated. Of more than `categories` categories the least recently taught is
    forgotten.
    """

    def __init__(
        self,
        *,
        beta: float,
        gamma: float,
        prior_bytes_per_token: float,
        default_output_tokens: int,
        categories: int,
    ) -> None:
        self._beta, self._gamma, self._prior = beta, gamma, prior_bytes_per_token
        self._output = default_output_tokens
        self._most = categories
        self._ratios: OrderedDict[tuple[str, str], _Ratio] = OrderedDict()

    def budget(self, asked: Asked, limit: int) -> Budget:  # noqa: ARG002 - the same for every limit
        """ceil(bytes / c*) plus the ids that were given, plus the output."""
        learnt = self._ratios.get((asked.category, asked.model))
        ratio, size = learnt or _Ratio(self._prior), asked.measure.text_bytes
        text = math.ceil(size / ratio.mean)
        return Budget(
            prompt_tokens=text + asked.measure.token_ids,
            margin_tokens=math.ceil(size / self._conservative(ratio)) - text,
            output_tokens=self._output if asked.output_limit is None else asked.output_limit,
            basis=Basis.CALIBRATED if learnt else Basis.PRIOR,
        )

    def observe(self, observation: Observation) -> None:
        """Move the category's ratio; a refusal, or a prompt without text, teaches nothing."""
        asked = observation.asked
        tokens = observation.prompt_tokens - asked.measure.token_ids
        if asked.measure.text_bytes <= 0 or tokens <= 0:
            return
        ratio = self._taught((asked.category, asked.model))
        observed, beta = asked.measure.text_bytes / tokens, self._beta
        ratio.mean = beta * ratio.mean + (1 - beta) * observed
        ratio.deviation = beta * ratio.deviation + (1 - beta) * abs(observed - ratio.mean)
        ratio.samples += 1

    def learnt(self) -> Learnt:
        """Per category: bytes_per_token, deviation, conservative (bytes per token), samples."""
        return Learnt(
            categories={
                f"{category}/{model}": {
                    "bytes_per_token": ratio.mean,
                    "deviation": ratio.deviation,
                    "conservative": self._conservative(ratio),
                    "samples": ratio.samples,
                }
                for (category, model), ratio in self._ratios.items()
            },
            models={},
            limits={},
        )

    def _taught(self, key: tuple[str, str]) -> _Ratio:
        ratio = self._ratios.setdefault(key, _Ratio(self._prior))
        self._ratios.move_to_end(key)
        if len(self._ratios) > self._most:
            self._ratios.popitem(last=False)
        return ratio

    def _conservative(self, ratio: _Ratio) -> float:
        return max(ratio.mean - self._gamma * ratio.deviation, _LEAST_RATIO)
