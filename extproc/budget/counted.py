"""What a chat template adds to a prompt whose text was counted by a tokenizer.

A Kalman filter of a few weights: tokens for a request, a message, a tool, and for any tool, and for
each token of tool definitions, which were counted as compact JSON while a template may indent them.
Its error is learnt, and apart for prompts with tools. A tokenizer that is not the model's makes
that error large, so that the estimate from the features, whose error is smaller then, is used
instead.

Invariant: one answer moves a prediction by at most CLIP of its deviations.
"""

import math
from array import array
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from extproc.budget.features import TEMPLATE_FEATURES
from extproc.budget.linear import holds, learn, project
from extproc.budget.saved import Amount, doubles
from extproc.budget.values import Measure
from extproc.budget.weights import CLIP, MOST_WEIGHT, Prediction

_MEAN: Final = (10.0, 4.0, 10.0, 80.0, 0.2)
_SPREAD: Final = array("d", [each * each for each in (40.0, 4.0, 10.0, 100.0, 0.3)])
_SIZE: Final = len(_MEAN)
_COVARIANCE: Final = _SIZE * _SIZE
_NOISE: Final = (9.0, 400.0)
"""The squared error, in tokens, of prompts without and with tools."""
_LEAST_NOISE: Final = 0.25  # the square of half a token: counts are whole
_NOISE_RATE: Final = 0.05
_WALK: Final = 1e-4
"""The share of the first variance that every answer restores."""


class SavedTemplate(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A template in a snapshot."""

    learnt: Annotated[bytes, Meta(max_length=8 * _SIZE * (_SIZE + 1))]
    noise: tuple[Amount, Amount]


class Template:
    """The tokens that one model's template adds. Not thread-safe."""

    def __init__(self) -> None:
        # A row of the covariance for each weight, then their means.
        self._all = array("d", bytes(8 * _COVARIANCE))
        self._all[:: _SIZE + 1] = _SPREAD
        self._all.extend(_MEAN)
        self._noise = list(_NOISE)

    def predict(self, measure: Measure) -> Prediction:
        """Return prompt tokens without the ids; the measure's text was counted."""
        variance, added = project(self._all, _counts(measure))
        deviation = math.sqrt(max(variance, 0.0) + self._noise[_kind(measure)])
        return Prediction(measure.counted + added, deviation, is_counted=True)

    def learn(self, measure: Measure, tokens: float) -> None:
        """Update the weights by a true count without the ids."""
        found = self.predict(measure)
        variance = found.deviation**2
        most = CLIP * found.deviation
        error = max(-most, min(most, tokens - found.tokens))
        learn(self._all, _counts(measure), error / variance, 1.0 / variance, _WALK, _SPREAD)
        # What the weights do not know yet explains a part of the error.
        kind = _kind(measure)
        noise = self._noise[kind]
        own = noise / variance
        noise += _NOISE_RATE * own * own * (error * error - variance)
        self._noise[kind] = max(noise, _LEAST_NOISE)

    def save(self) -> SavedTemplate:
        """Return what is kept in a snapshot."""
        plain, tools = self._noise
        return SavedTemplate(self._all.tobytes(), (plain, tools))

    def load(self, saved: SavedTemplate) -> None:
        """Continue as the template that was saved. Raises ValueError if there is none such."""
        learnt = doubles(saved.learnt, len(self._all), MOST_WEIGHT, -MOST_WEIGHT)
        if not holds(learnt, _SPREAD):
            raise ValueError("no covariance")
        self._all = learnt
        self._noise = [max(noise, _LEAST_NOISE) for noise in saved.noise]


def _counts(measure: Measure) -> tuple[float, ...]:
    return *measure.features[: len(TEMPLATE_FEATURES)], float(measure.counted_tools)


def _kind(measure: Measure) -> int:
    """Return which error a prompt has: 1 if it has tools."""
    return int(measure.features[TEMPLATE_FEATURES.index("tools")] > 0)
