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
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from extproc.budget.features import (
    FEATURES,
    MEDIA,
    MEDIA_FEATURES,
    NO_MEDIA,
    OPTIONAL_FEATURES,
    SIZED_FEATURES,
    TEMPLATE_FEATURES,
)
from extproc.budget.saved import SavedWeights, doubles
from extproc.budget.values import Measure
from extproc.frozen import Frozen

Vector = NDArray[np.float64]

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
_BOUNDS: Final = 2  # rows

_KINDS: Final = np.array(
    [[name in SIZED_FEATURES, name not in SIZED_FEATURES] for name in MEDIA_FEATURES], np.float64
)

_PACK: Final = struct.Struct(f"{len(FEATURES)}d").pack


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
        self._spread: Vector = np.square(np.array(prior.deviation))
        # One matrix, so that one product predicts: a row of the covariance for each feature, then
        # the mean, then the least and the most that text can cost.
        self._all = np.vstack([np.diag(self._spread), prior.mean, *_bounds(prior)])
        self._media_noise: Vector = np.square(np.array(MEDIA_NOISE))
        self._surprise = 1.0
        self.observations = 0

    def predict(self, measure: Measure) -> Prediction:
        """Return prompt tokens without the ids, which are exact and added by the caller."""
        return self._predict(measure, _vector(measure.features))[0]

    def predict_text(self, features: Vector, unseen: float) -> tuple[float, float]:
        """Return tokens and deviation of a plain text, of which the sample left out a share."""
        found, size = self._all.dot(features), features.size
        text, least, most = found[size:].tolist()
        tokens = _in_band(text, least, most)
        known = max(float(found[:size].dot(features)), 0.0)
        return tokens, math.sqrt(known + _noise(tokens, unseen))

    def plausible(self, measure: Measure, tokens: float) -> bool:
        """Return whether some model could count so many; other counts must not move weights.

        With media a model can count any number.
        """
        features, limit = _vector(measure.features), 2 * BAND
        if measure.features[MEDIA] != NO_MEDIA:
            return True
        low, high = self._all[-_BOUNDS:].dot(features).tolist()
        return bool(low / limit - BAND_TOKENS / limit <= tokens <= high * limit + 4 * BAND_TOKENS)

    def learn(self, measure: Measure, tokens: float) -> None:
        """Update the weights by a true count, which the caller found `plausible`."""
        features = _vector(measure.features)
        found, gain = self._predict(measure, features)
        error = tokens - float(self._mean.dot(features))
        score = error / found.deviation
        if measure.features[MEDIA] != NO_MEDIA:
            self._learn_media_noise(features, error, found.deviation)
        size, shared = features.size, self._all
        shared[size] += gain * (max(-CLIP, min(CLIP, score)) / found.deviation)
        # np.outer, and the operator @, take several times as long for so few numbers.
        shared[:size] -= gain[:, None] * (gain / found.deviation**2)
        # The few tokens of a short prompt are mostly its template's: they say little about the
        # tokenizer, and thousands of them must not make the rest fade.
        informative = 1.0 / (1.0 + (SHORT / max(found.tokens, 1.0)) ** 2)
        odd = min(oddity(score, found.deviation), CLIP * CLIP)
        self._surprise += 0.03 * informative * (odd - self._surprise)
        self._fade(informative * (SURPRISED_WALK if self._surprise > SURPRISE else WALK))
        self.observations += 1

    def save(self) -> SavedWeights:
        """Return what is kept in a snapshot."""
        noise: tuple[float, float] = tuple(self._media_noise.tolist())
        learnt = self._all[:-_BOUNDS].tobytes()
        return SavedWeights(learnt, noise, self._surprise, self.observations)

    def load(self, saved: SavedWeights) -> None:
        """Continue as the weights that were saved. Raises ValueError if there were none such."""
        rows, columns = self._all.shape
        numbers = (rows - _BOUNDS) * columns
        learnt = np.array(doubles(saved.all, numbers, MOST_WEIGHT, -MOST_WEIGHT))
        learnt = learnt.reshape(rows - _BOUNDS, columns)
        if learnt.diagonal().min() < 0.0:
            raise ValueError("a negative variance")
        self._all[:-_BOUNDS] = learnt
        self._media_noise[:] = saved.media_noise
        self._surprise, self.observations = saved.surprise, saved.observations

    def copy(self) -> "TokenWeights":
        """Return the same weights, to learn apart from these."""
        same = TokenWeights(self._prior)
        same._all[:], same._media_noise[:] = self._all, self._media_noise
        same._surprise, same.observations = self._surprise, self.observations
        return same

    @property
    def _mean(self) -> Vector:
        mean: Vector = self._all[self._spread.size]
        return mean

    @property
    def surprise(self) -> float:
        """The running mean of the squared standardised error: about 1, more after a change."""
        return self._surprise

    def template(self) -> dict[str, float]:
        """Return the template's tokens: per prompt, per message, per tool, and for any tool."""
        tokens = self._mean[: len(TEMPLATE_FEATURES)].tolist()
        return dict(zip(TEMPLATE_FEATURES, tokens, strict=True))

    def _predict(self, measure: Measure, features: Vector) -> tuple[Prediction, Vector]:
        """Return the prediction, and what one token of error would teach each weight."""
        found = self._all.dot(features)
        gain = found[: features.size]
        text, least, most = found[features.size :].tolist()
        known, media = max(float(gain.dot(features)), 0.0) + measure.doubt**2, 0.0
        if measure.features[MEDIA] != NO_MEDIA:
            tokens = self._media_tokens(features)
            text -= float(self._mean[MEDIA] @ features[MEDIA])
            media = float(tokens.sum())
            known += float(self._media_noise @ np.square(tokens))
        text = _in_band(text, least, most)
        deviation = math.sqrt(known + _noise(text, measure.unseen))
        return Prediction(text + media, deviation), gain

    def _media_tokens(self, features: Vector) -> Vector:
        """Return the tokens of media of known size, and of those of unknown size."""
        media: Vector = (self._mean[MEDIA] * features[MEDIA]) @ _KINDS
        return np.maximum(media, 0.0)

    def _learn_media_noise(self, features: Vector, error: float, deviation: float) -> None:
        media, noise = np.square(self._media_tokens(features)), self._media_noise
        kinds = media > 0.0
        media = media[kinds]
        # What else explains the error blurs what it says of the media.
        others = deviation**2 - noise[kinds] * media
        own = np.maximum(noise[kinds], MEDIA_NOISE[0] ** 2) * media
        rates = NOISE_RATE * np.square(own / (own + others))
        squared = min(error * error, (CLIP * deviation) ** 2)
        noise[kinds] += rates * ((squared - others) / media - noise[kinds])
        np.clip(noise, LEAST_MEDIA_NOISE**2, MOST_MEDIA_NOISE**2, out=noise)

    def _fade(self, walk: float) -> None:
        size = self._spread.size
        covariance = self._all[:size]
        covariance *= 1.0 - walk
        variances = covariance.reshape(-1)[:: size + 1]  # a view
        variances += walk * self._spread


def _noise(tokens: float, unseen: float) -> float:
    """Return the variance of the error of a text whose weights are known."""
    common = math.hypot(RELATIVE_NOISE, SAMPLING_NOISE * unseen) * tokens
    return common * common + TOKEN_NOISE * tokens + ABSOLUTE_NOISE**2


def _in_band(text: float, least: float, most: float) -> float:
    """Return what is predicted for text, by the least and the most that it can cost."""
    return max(max(least, 1.0) / BAND, min(most * BAND + BAND_TOKENS, text))


def _vector(features: tuple[float, ...]) -> Vector:
    """Return features as an array, in a third of the time that numpy takes for a tuple."""
    return np.frombuffer(_PACK(*features))


def oddity(score: float, deviation: float) -> float:
    """Return the squared score of an answer, less for a short prompt; about 1 on average."""
    return score * score / (1.0 + (UNSURPRISING / deviation) ** 2)


def _bounds(prior: Prior) -> tuple[Vector, Vector]:
    """Return the least and the most that text can cost: a template drops optional text or not."""
    least, most = np.array(prior.mean), np.array(prior.mean)
    optional = [FEATURES.index(name) for name in OPTIONAL_FEATURES]
    least[optional], most[optional] = 0.0, 1.0
    least[MEDIA], most[MEDIA] = 0.0, 0.0
    return least, most
