"""Names that belong together: a base model, its aliases and its adapters have one tokenizer.

Names share token weights, and what one of them is answered teaches all. A new name is on probation:
it is estimated by the weights of the names that begin with the same word, or else by those that
have learnt the most, with a wider margin, and teaches nothing until PROBATION answers show whose
weights fit it. If none do it gets weights of its own. So does a name whose answers keep
contradicting the weights that it shares, as after its model was changed for another.

    llama-3-70b, llama-3-70b:sql      probably one tokenizer: they begin with "llama"

Invariant: there are at most MOST_WEIGHTS sets of weights; further names share what fits best.
"""

import math
import re
from typing import Final
from weakref import WeakSet, WeakValueDictionary

from extproc.budget.counted import Template
from extproc.budget.values import Measure
from extproc.budget.weights import (
    CLIP,
    SURPRISE,
    UNSURPRISING,
    Prediction,
    Prior,
    TokenWeights,
    oddity,
)

PROBATION: Final = 8
"""The answers by which a name is placed, to prompts that tell tokenizers apart."""
MOST_PROBATION: Final = 64
"""The answers after which it is placed in any case."""
DOUBT: Final = 0.08
"""The deviation of an estimate during the probation, as a share of the prompt."""
MOST_WEIGHTS: Final = 16
CONTRADICTION: Final = 200.0
"""Squared standardised error above SURPRISE, summed, at which shared weights do not fit: that of 16
answers in a row that are wrong by CLIP deviations or more."""
_WORD: Final = re.compile(r"[^-_.:/@ ]*")


class Contradiction:
    """Whether answers keep contradicting weights that others share."""

    def __init__(self) -> None:
        self._excess = 0.0
        self._of = 0  # whose answers: the weights' identity
        self._since = 0  # answers that they had learnt before the first of these
        self._answers = 0

    def add(self, shared: TokenWeights, odd: float) -> bool:
        """Count an answer that the weights mispredicted and have learnt; return whether they fail.

        Without an answer of anybody else meanwhile there is nobody to keep apart: the weights
        themselves then learn what has changed.
        """
        if self._excess == 0.0 or self._of != id(shared):
            self._excess, self._of = 0.0, id(shared)
            self._since, self._answers = shared.observations - 1, 0
        self._answers += 1
        self._excess = max(0.0, self._excess + min(odd, CLIP * CLIP) - SURPRISE)
        others = shared.observations - self._since - self._answers
        return self._excess > CONTRADICTION and others > 0


class Member:
    """One name: the weights that it shares, and whether it is on probation."""

    def __init__(self, weights: TokenWeights, *, placed: bool) -> None:
        self.weights = weights
        self.placed = placed
        self.answers = 0
        self.template = Template()
        """What is added to text that a tokenizer has counted."""
        self._tried = 0  # answers of this probation
        self._samples: list[tuple[Measure, float]] = []
        self._contradiction = Contradiction()

    def predict(self, measure: Measure) -> Prediction:
        """Return the prompt's tokens, less certain during the probation."""
        found = self.weights.predict(measure)
        if not self.placed:
            deviation = math.hypot(found.deviation, DOUBT * found.tokens)
            found = Prediction(found.tokens, deviation)
        if not measure.counted:
            return found
        return min(found, self.template.predict(measure), key=lambda each: each.deviation)

    def learn(self, families: "Families", measure: Measure, tokens: float, odd: float) -> None:
        """Learn from an answer; `odd` is its oddity by `predict`."""
        self.answers += 1
        if measure.counted:
            self.template.learn(measure, tokens)
        if not self.placed:
            self._tried += 1
            # The few tokens of a short prompt fit any tokenizer.
            if self.weights.predict(measure).deviation > UNSURPRISING / 2:
                self._samples.append((measure, tokens))
            if len(self._samples) == PROBATION or self._tried == MOST_PROBATION:
                self._place(families)
            return
        self.weights.learn(measure, tokens)
        if self._contradiction.add(self.weights, odd):
            self.placed, self._contradiction = False, Contradiction()

    def _place(self, families: "Families") -> None:
        self._tried = 0
        if self._samples:
            self.weights = families.fitting(self._samples)
        for measure, tokens in self._samples:
            self.weights.learn(measure, tokens)
        self.placed, self._samples = True, []


class Families:
    """The sets of weights that names share."""

    def __init__(self, prior: Prior) -> None:
        self._prior = prior
        # Those that no name has any more are forgotten.
        self._weights: WeakSet[TokenWeights] = WeakSet()
        self._words: WeakValueDictionary[str, TokenWeights] = WeakValueDictionary()

    def find(self, name: str) -> Member:
        """Return a new name: on probation, unless it is the first of all. It is not kept yet."""
        if not self._weights:
            return Member(TokenWeights(self._prior), placed=True)
        most = max(self._weights, key=lambda weights: weights.observations)
        return Member(self._words.get(_word(name), most), placed=False)

    def keep(self, name: str, member: Member) -> None:
        """Keep the weights of a name that an answer has taught."""
        self._weights.add(member.weights)
        if member.placed and (_word(name) in self._words or len(self._words) < MOST_WEIGHTS):
            self._words[_word(name)] = member.weights

    def fitting(self, samples: list[tuple[Measure, float]]) -> TokenWeights:
        """Return the weights that fit some answers best, or new ones if none fit."""
        odd, best = math.inf, TokenWeights(self._prior)
        for weights in self._weights:
            if (found := _oddity(weights, samples)) < odd:
                odd, best = found, weights
        fits = odd <= SURPRISE or len(self._weights) >= MOST_WEIGHTS
        return best if fits else TokenWeights(self._prior)


def _oddity(weights: TokenWeights, samples: list[tuple[Measure, float]]) -> float:
    total = 0.0
    for measure, tokens in samples:
        found = weights.predict(measure)
        total += min(oddity(found.score(tokens), found.deviation), CLIP * CLIP)
    return total / len(samples)


def _word(name: str) -> str:
    found = _WORD.match(name.lower())
    return found.group() if found else ""
