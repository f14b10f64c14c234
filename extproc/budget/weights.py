"""Tokens of a prompt as a linear function of its features, one filter per tokenizer.

A Kalman filter with a random walk: the weights start at a measured prior, every answer updates them
in O(1), and what was learnt fades slowly.

Text and media are separate: a tokenizer makes tokens of text within a band around the prior, while
an image, a recording or a video may cost anything. So the band holds for text alone, and media have
an error of their own, a share of their tokens that is learnt.

Invariants: one answer moves a prediction by at most `CLIP` of its own deviations, and what a
prediction has for text never leaves the band around the prior.
"""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Final

from extproc.budget.features import (
    FEATURES,
    MEDIA,
    NO_MEDIA,
    OPTIONAL,
    OPTIONAL_FEATURES,
    SIZED_FEATURES,
    TEMPLATE_FEATURES,
)
from extproc.budget.linear import dot, holds, learn, project
from extproc.budget.saved import SavedWeights, doubles
from extproc.budget.values import Measure, Row
from extproc.frozen import Frozen

RELATIVE_NOISE: Final = 0.016
"""The error that no linear model of the features explains, as a share of the text. With TOKEN_NOISE
it is about twice the measured error, for those of a second model to fit in `sketch.Scores`."""
TOKEN_NOISE: Final = 0.65
"""The squared error that every token of the text adds. Unlike a share of the text, such errors even
out over a long one. With it, errors in deviations are as large for 300 as for 30,000 tokens."""
ABSOLUTE_NOISE: Final = 3.0
"""Tokens. With it, prompts of a few words teach only the constants of the template."""
SAMPLING_NOISE: Final = 0.01
"""The error of a small sample, as a share of the text."""
MEDIA_NOISE: Final[tuple[float, ...]] = (0.1, 0.7)
"""The error of media of known and of unknown size at first, as a share of their tokens."""
LEAST_MEDIA_NOISE: Final = 0.02
MOST_MEDIA_NOISE: Final = 2.0
NOISE_RATE: Final = 0.03
"""The part of the squared error of media that an answer with hardly anything else replaces."""
CLIP: Final = 4.0
WALK: Final = 1e-5
"""The share of the prior variance that every informative answer restores."""
SURPRISED_WALK: Final = 1.5e-2
SURPRISE: Final = 3.0
"""Mean squared standardised error above which the model behind a name has changed."""
UNSURPRISING: Final = 12.0
"""Tokens by which templates and odd texts differ on short prompts: no sign of another model."""
SHORT: Final = 100.0
"""Tokens of a prompt that says as much of its template as of the tokenizer."""
BAND: Final = 2.5
BAND_TOKENS: Final = 1000.0
"""What is predicted for text differs from the prior by at most this factor, plus tokens for a
template."""

MOST_WEIGHT: Final = 1e12
"""More than any weight, and than the covariance of any two."""

_SIZE: Final = len(FEATURES)
_WEIGHTS: Final = slice(_SIZE * _SIZE, _SIZE * (_SIZE + 1))
_SIZED: Final = len(SIZED_FEATURES)


@dataclass(frozen=True, slots=True)
class Prior:
    """Means and standard deviations of the weights of `features.FEATURES` between tokenizers."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class Prediction(Frozen, frozen=True):
    """Prompt tokens and the standard deviation of their error."""

    tokens: float
    deviation: float
    is_counted: bool = False
    """Whether a tokenizer counted the text."""

    def score(self, tokens: float) -> float:
        """Return the error of a true count in deviations, positive if it was under-estimated."""
        return (tokens - self.tokens) / self.deviation


class TokenWeights:
    """The weights of one tokenizer. Not thread-safe. `observations` counts the answers learnt."""

    def __init__(self, prior: Prior) -> None:
        self._prior = prior
        self._spread = array("d", [each * each for each in prior.deviation])
        # For one product that predicts: a row of the covariance for each feature, then the mean,
        # then the least and the most that text can cost.
        self._all = array("d", bytes(8 * _SIZE * _SIZE))
        self._all[:: _SIZE + 1] = self._spread
        for row in (prior.mean, *_bounds(prior)):
            self._all.extend(row)
        self._media_noise = MEDIA_NOISE[0] ** 2, MEDIA_NOISE[1] ** 2
        self._surprise = 1.0
        self.observations = 0

    def predict(self, measure: Measure) -> Prediction:
        """Return prompt tokens without the ids, which are exact and added by the caller."""
        features = measure.features
        variance, text, least, most = project(self._all, features)
        known, media = max(variance, 0.0) + measure.doubt**2, 0.0
        if features[MEDIA] != NO_MEDIA:
            kinds = self._media_tokens(features)
            text -= dot(self._mean[MEDIA], features[MEDIA])
            media = sum(kinds)
            known += sum(map(mul, self._media_noise, map(mul, kinds, kinds)))
        text = _in_band(text, least, most)
        deviation = math.sqrt(known + _noise(text, measure.unseen))
        return Prediction(text + media, deviation)

    def predict_text(self, features: Row, unseen: float) -> tuple[float, float]:
        """Return tokens and deviation of a plain text, of which the sample left out a share."""
        variance, text, least, most = project(self._all, features)
        tokens = _in_band(text, least, most)
        return tokens, math.sqrt(max(variance, 0.0) + _noise(tokens, unseen))

    def plausible(self, measure: Measure, tokens: float) -> bool:
        """Return whether some model could count so many; other counts must not move weights.

        With media a model can count any number.
        """
        features, limit = measure.features, 2 * BAND
        if features[MEDIA] != NO_MEDIA:
            return True
        _, _, low, high = project(self._all, features)
        return low / limit - BAND_TOKENS / limit <= tokens <= high * limit + 4 * BAND_TOKENS

    def learn(self, measure: Measure, tokens: float) -> None:
        """Update the weights by a true count, which the caller found `plausible`."""
        features, found = measure.features, self.predict(measure)
        error = tokens - dot(self._mean, features)
        score = error / found.deviation
        if features[MEDIA] != NO_MEDIA:
            self._learn_media_noise(features, error, found.deviation)
        # The few tokens of a short prompt are mostly its template's: they say little about the
        # tokenizer, and thousands of them must not make the rest fade.
        informative = 1.0 / (1.0 + (SHORT / max(found.tokens, 1.0)) ** 2)
        odd = min(oddity(score, found.deviation), CLIP * CLIP)
        self._surprise += 0.03 * informative * (odd - self._surprise)
        walk = informative * (SURPRISED_WALK if self._surprise > SURPRISE else WALK)
        step = max(-CLIP, min(CLIP, score)) / found.deviation
        learn(self._all, features, step, 1.0 / found.deviation**2, walk, self._spread)
        self.observations += 1

    def save(self) -> SavedWeights:
        """Return what is kept in a snapshot."""
        learnt = self._all[: _WEIGHTS.stop].tobytes()
        return SavedWeights(learnt, self._media_noise, self._surprise, self.observations)

    def load(self, saved: SavedWeights) -> None:
        """Continue as the weights that were saved. Raises ValueError if there were none such."""
        learnt = doubles(saved.all, _WEIGHTS.stop, MOST_WEIGHT, -MOST_WEIGHT)
        if not holds(learnt, self._spread):
            raise ValueError("no covariance")
        self._all[: _WEIGHTS.stop] = learnt
        self._media_noise = saved.media_noise
        self._surprise, self.observations = saved.surprise, saved.observations

    def copy(self) -> "TokenWeights":
        """Return the same weights, to learn apart from these."""
        same = TokenWeights(self._prior)
        same._all, same._media_noise = self._all[:], self._media_noise
        same._surprise, same.observations = self._surprise, self.observations
        return same

    @property
    def surprise(self) -> float:
        """The running mean of the squared standardised error: about 1, more after a change."""
        return self._surprise

    def template(self) -> dict[str, float]:
        """Return the template's tokens: per prompt, per message, per tool, and for any tool."""
        return dict(zip(TEMPLATE_FEATURES, self._mean, strict=False))

    @property
    def _mean(self) -> "array[float]":
        return self._all[_WEIGHTS]

    def _media_tokens(self, features: tuple[float, ...]) -> tuple[float, float]:
        """Return the tokens of media of known size, and of those of unknown size."""
        tokens = tuple(map(mul, self._mean[MEDIA], features[MEDIA]))
        return max(sum(tokens[:_SIZED]), 0.0), max(sum(tokens[_SIZED:]), 0.0)

    def _learn_media_noise(
        self, features: tuple[float, ...], error: float, deviation: float
    ) -> None:
        squared, kinds = min(error * error, (CLIP * deviation) ** 2), self._media_tokens(features)

        def learnt(noise: float, tokens: float) -> float:
            media = tokens * tokens
            if media > 0.0:
                # What else explains the error blurs what it says of the media.
                others = deviation**2 - noise * media
                own = max(noise, MEDIA_NOISE[0] ** 2) * media
                rate = NOISE_RATE * (own / (own + others)) ** 2
                noise += rate * ((squared - others) / media - noise)
            return max(LEAST_MEDIA_NOISE**2, min(MOST_MEDIA_NOISE**2, noise))

        sized, unsized = self._media_noise
        self._media_noise = learnt(sized, kinds[0]), learnt(unsized, kinds[1])


def _noise(tokens: float, unseen: float) -> float:
    """Return the variance of the error of a text whose weights are known."""
    common = math.hypot(RELATIVE_NOISE, SAMPLING_NOISE * unseen) * tokens
    return common * common + TOKEN_NOISE * tokens + ABSOLUTE_NOISE**2


def _in_band(text: float, least: float, most: float) -> float:
    """Return what is predicted for text, by the least and the most that it can cost."""
    return max(max(least, 1.0) / BAND, min(most * BAND + BAND_TOKENS, text))


def oddity(score: float, deviation: float) -> float:
    """Return the squared score of an answer, less for a short prompt; about 1 on average."""
    return score * score / (1.0 + (UNSURPRISING / deviation) ** 2)


def _bounds(prior: Prior) -> tuple[Sequence[float], Sequence[float]]:
    """Return the least and the most that text can cost: a template drops optional text or not."""
    least, most = list(prior.mean), list(prior.mean)
    for each in (OPTIONAL, MEDIA):
        least[each] = most[each] = [0.0] * (each.stop - each.start)
    most[OPTIONAL] = [1.0] * len(OPTIONAL_FEATURES)
    return least, most
