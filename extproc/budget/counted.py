"""What a chat template adds to a prompt whose text was counted by a tokenizer.

A Kalman filter with two weights, tokens for a request and for a message, and an error that is
learnt. A tokenizer that is not the model's makes that error large, so that the estimate from the
features, whose error is smaller then, is used instead.

Invariant: one answer moves a prediction by at most CLIP of its deviations.
"""

import math
from typing import Final

import msgspec

from extproc.budget.saved import Amount, Finite
from extproc.budget.values import Measure
from extproc.budget.weights import CLIP, Prediction

_MEAN: Final = (10.0, 4.0)
_VARIANCE: Final = (1600.0, 16.0)
_NOISE: Final = 9.0
_LEAST_NOISE: Final = 0.25  # the square of half a token: counts are whole
_NOISE_RATE: Final = 0.05
_WALK: Final = 1e-4
"""The share of the first variance that every answer restores."""


class SavedTemplate(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A template in a snapshot."""

    request: Finite
    message: Finite
    covariance: tuple[Amount, Finite, Amount]
    noise: Amount


class Template:
    """The tokens that one model's template adds. Not thread-safe."""

    def __init__(self) -> None:
        self.request, self.message = _MEAN
        self.covariance: tuple[float, float, float] = (_VARIANCE[0], 0.0, _VARIANCE[1])
        """Of the request's tokens, of both, and of a message's."""
        self.noise = _NOISE
        """The squared error, in tokens, that the two weights leave."""

    def predict(self, measure: Measure) -> Prediction:
        """Return prompt tokens without the ids; the measure's text was counted."""
        requests, messages = measure.features[:2]
        tokens = measure.counted + self.request * requests + self.message * messages
        _, _, known = self._gain(requests, messages)
        return Prediction(tokens, math.sqrt(known + self.noise), is_counted=True)

    def learn(self, measure: Measure, tokens: float) -> None:
        """Update the weights by a true count without the ids."""
        requests, messages = measure.features[:2]
        first, second, known = self._gain(requests, messages)
        variance = known + self.noise
        most = CLIP * math.sqrt(variance)
        error = tokens - self.predict(measure).tokens
        error = max(-most, min(most, error))
        self.request += first * error / variance
        self.message += second * error / variance
        one, both, other = self.covariance
        fade = 1.0 - _WALK
        self.covariance = (
            fade * (one - first * first / variance) + _WALK * _VARIANCE[0],
            fade * (both - first * second / variance),
            fade * (other - second * second / variance) + _WALK * _VARIANCE[1],
        )
        # What the weights do not know yet explains a part of the error.
        own = self.noise / variance
        self.noise += _NOISE_RATE * own * own * (error * error - variance)
        self.noise = max(self.noise, _LEAST_NOISE)

    def save(self) -> SavedTemplate:
        """Return what is kept in a snapshot."""
        return SavedTemplate(self.request, self.message, self.covariance, self.noise)

    def load(self, saved: SavedTemplate) -> None:
        """Continue as the template that was saved."""
        self.request, self.message = saved.request, saved.message
        self.covariance, self.noise = saved.covariance, max(saved.noise, _LEAST_NOISE)

    def _gain(self, requests: float, messages: float) -> tuple[float, float, float]:
        """Return what one token of error teaches each weight, and the variance of their sum."""
        one, both, other = self.covariance
        first = one * requests + both * messages
        second = both * requests + other * messages
        return first, second, max(0.0, first * requests + second * messages)
