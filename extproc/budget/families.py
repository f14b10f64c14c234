"""Names that belong together: a base model, its aliases and its adapters have one tokenizer.

Names share token weights, and what one of them is answered teaches all. A new name is on probation:
it is estimated by the weights of the names that begin with the same word, or else by those that
have learnt the most, with a wider margin, and teaches nothing until PROBATION answers show whose
weights fit it. If none do it gets weights of its own. So does a name whose answers keep
contradicting the weights that it shares, as after its model was changed for another.

The more names that begin with the word were found to share weights, the less is a new one doubted.

    llama-3-70b, llama-3-70b:sql      probably one tokenizer: they begin with "llama"

Invariant: there are at most MOST_WEIGHTS sets of weights; further names share what fits best.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Annotated, Final, Self

import msgspec
from msgspec import Meta

from extproc.budget.counted import SavedTemplate, Template
from extproc.budget.features import FEATURES
from extproc.budget.saved import Amount, Count, Name
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

_Tokens = Annotated[int, Meta(ge=-(1 << 53), le=1 << 53)]
PROBATION: Final = 8
"""The answers by which a name is placed, to prompts that tell tokenizers apart."""
ENOUGH: Final = 29
"""Observations from which on weights learn nothing from prompts that were only counted."""
MOST_PROBATION: Final = 64
"""The answers after which it is placed in any case."""
DOUBT: Final = 0.08
"""The deviation of an estimate during the probation, as a share of the prompt, of a name whose word
says nothing of its weights; also where counted samples alone have taught the weights."""
MOST_WEIGHTS: Final = 16
CONTRADICTION: Final = 200.0
"""Squared standardised error above SURPRISE, summed, at which shared weights do not fit: that of 16
answers in a row that are wrong by CLIP deviations or more."""
_WORD: Final = re.compile(r"[^-_.:/@ ]*")

Place = Annotated[int, Meta(ge=-1)]
"""Where weights are among those of a snapshot; -1 if nobody uses them any more."""


class SavedContradiction(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A contradiction in a snapshot."""

    excess: Amount
    of: Place
    since: Annotated[int, Meta(ge=-1)]
    answers: Count


class SavedMember(msgspec.Struct, frozen=True, array_like=True):
    """A name in a snapshot."""

    weights: Place
    placed: bool
    answers: Count
    tried: Count
    samples: Annotated[list[tuple[Measure, _Tokens]], Meta(max_length=PROBATION)]
    contradiction: SavedContradiction
    template: SavedTemplate
    doubt: Annotated[float, Meta(ge=0.0, le=DOUBT)] = DOUBT
    is_primed: bool = False


class SavedWord(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """The weights of the names that begin with a word, in a snapshot."""

    word: Name
    weights: Place


PlaceOf = Callable[[TokenWeights | None], int]
"""Tells the place of weights in a snapshot."""
WeightsAt = Callable[[int], TokenWeights]
"""Tells the weights at a place; raises ValueError if there are none."""


class Contradiction:
    """Whether answers keep contradicting weights that others share."""

    def __init__(self) -> None:
        self._excess = 0.0
        self._of: TokenWeights | None = None  # whose answers
        self._since = 0  # answers that they had learnt before the first of these
        self._answers = 0

    def add(self, shared: TokenWeights, odd: float) -> bool:
        """Count an answer that the weights mispredicted and have learnt; return whether they fail.

        Without an answer of anybody else meanwhile there is nobody to keep apart: the weights
        themselves then learn what has changed.
        """
        if self._excess == 0.0 or self._of is not shared:
            self._excess, self._of = 0.0, shared
            self._since, self._answers = shared.observations - 1, 0
        self._answers += 1
        self._excess = max(0.0, self._excess + min(odd, CLIP * CLIP) - SURPRISE)
        others = shared.observations - self._since - self._answers
        return self._excess > CONTRADICTION and others > 0

    def save(self, place: PlaceOf) -> SavedContradiction:
        """Return what is kept in a snapshot."""
        return SavedContradiction(self._excess, place(self._of), self._since, self._answers)

    def load(self, saved: SavedContradiction, weights: WeightsAt) -> None:
        """Continue as the one that was saved. Raises ValueError."""
        self._excess, self._since, self._answers = saved.excess, saved.since, saved.answers
        self._of = weights(saved.of) if saved.of >= 0 else None


class Member:
    """One name: the weights that it shares, and whether it is on probation."""

    def __init__(self, weights: TokenWeights, *, placed: bool, doubt: float = DOUBT) -> None:
        """Take the deviation of its estimates during the probation, as a share of the prompt."""
        self.weights = weights
        self.placed = placed
        self.answers = 0
        self.template = Template()
        """What is added to text that a tokenizer has counted."""
        self._doubt = doubt
        self._is_primed = False  # by counts of samples
        self._tried = 0  # answers of this probation
        self._samples: list[tuple[Measure, int]] = []
        self._contradiction = Contradiction()

    def predict(self, measure: Measure) -> Prediction:
        """Return the prompt's tokens, less certain during the probation."""
        found = self.weights.predict(measure)
        if doubt := self.doubt:
            deviation = math.hypot(found.deviation, doubt * found.tokens)
            found = Prediction(found.tokens, deviation)
        if not measure.counted:
            return found
        return min(found, self.template.predict(measure), key=lambda each: each.deviation)

    @property
    def doubt(self) -> float:
        """The deviation to add to that of its weights, as a share of the prompt."""
        if self.placed:
            # Requests may be of kinds of text that the samples do not have.
            return DOUBT if self._is_counted_alone else 0.0
        return self._doubt

    @doubt.setter
    def doubt(self, doubt: float) -> None:
        self._doubt = doubt

    def learn(self, families: "Families", measure: Measure, tokens: int, odd: float) -> None:
        """Learn from an answer; `odd` is its oddity by `predict`."""
        self.answers += 1
        if measure.counted:
            self.template.learn(measure, tokens)
        if not self.placed:
            self._tried += 1
            # The few tokens of a short prompt fit any tokenizer.
            if self.weights.predict(measure).deviation > UNSURPRISING:
                self._samples.append((measure, tokens))
            if len(self._samples) == PROBATION or self._tried == MOST_PROBATION:
                self._place(families)
            return
        self.weights.learn(measure, tokens)
        if self._contradiction.add(self.weights, odd):
            self.placed, self._doubt, self._contradiction = False, DOUBT, Contradiction()

    @property
    def _is_counted_alone(self) -> bool:
        """Whether hardly more is known of its weights than counts of samples."""
        few = self.answers < PROBATION and self.weights.observations < ENOUGH + PROBATION
        return few and self._is_primed

    @property
    def is_known(self) -> bool:
        """Whether counts of samples would teach nothing."""
        return self.placed and self.weights.observations >= ENOUGH

    def prime(self, families: "Families", measure: Measure, tokens: int) -> None:
        """Learn the count of a sample; a name on probation is placed by PROBATION of them."""
        self._is_primed = True
        if self.placed:
            self._learn_samples([(measure, tokens)])
            return
        self._samples.append((measure, tokens))
        if len(self._samples) == PROBATION:
            samples, self._samples, self._tried = self._samples, [], 0
            if weights := families.fitting_counts(samples):
                self.weights, self.placed = weights, True
                self._learn_samples(samples)

    def _learn_samples(self, samples: list[tuple[Measure, int]]) -> None:
        # All names have the same samples: to learn them twice would feign certainty.
        for measure, tokens in samples:
            if self.weights.observations < ENOUGH:
                self.weights.learn(measure, tokens)

    @property
    def is_new(self) -> bool:
        """Whether this is its first probation."""
        return not self.placed and self._tried == self.answers

    def _place(self, families: "Families") -> None:
        self._tried = 0
        if self._samples:
            self.weights = families.fitting(self._samples)
        for measure, tokens in self._samples:
            self.weights.learn(measure, tokens)
        self.placed, self._samples = True, []

    def save(self, place: PlaceOf) -> SavedMember:
        """Return what is kept in a snapshot."""
        return SavedMember(
            place(self.weights),
            self.placed,
            self.answers,
            self._tried,
            self._samples,
            self._contradiction.save(place),
            self.template.save(),
            self._doubt,
            self._is_primed,
        )

    @classmethod
    def load(cls, saved: SavedMember, weights: WeightsAt) -> Self:
        """Return the name that was saved. Raises ValueError."""
        member = cls(weights(saved.weights), placed=saved.placed, doubt=saved.doubt)
        member._is_primed = saved.is_primed
        member.answers, member._tried = saved.answers, min(saved.tried, MOST_PROBATION - 1)
        for measure, _ in saved.samples[: PROBATION - 1]:
            measure.check(len(FEATURES))
        member._samples = list(saved.samples[: PROBATION - 1])
        member._contradiction.load(saved.contradiction, weights)
        member.template.load(saved.template)
        return member


class Families:
    """The sets of weights that names share."""

    def __init__(self, prior: Prior) -> None:
        self._prior = prior
        # In the order of their last answers: all processes that learn the same have one order.
        self._members: dict[str, Member] = {}
        self._words: dict[str, TokenWeights] = {}

    @property
    def weights(self) -> list[TokenWeights]:
        """Those that names have."""
        return list(dict.fromkeys(member.weights for member in self._members.values()))

    def find(self, name: str) -> Member:
        """Return a new name: on probation, unless it is the first of all. It is not kept yet."""
        kept = self.weights
        if not kept:
            return Member(TokenWeights(self._prior), placed=True)
        most = max(kept, key=lambda weights: weights.observations)
        word = self._words.get(_word(name))
        likely = word if word in kept else most
        return Member(likely, placed=False, doubt=self._doubt(name, likely))

    def _doubt(self, name: str, weights: TokenWeights) -> float:
        """Return the doubt that a new name has these weights, by the placed names of its word.

        By the rule of succession, as if one more had others: if k of n have others, (k + 1) /
        (n + 1) of the variance that a name without such names has.
        """
        word = _word(name)
        kin = [
            each.weights
            for known, each in self._members.items()
            if each.placed and _word(known) == word
        ]
        others = sum(each is not weights for each in kin)
        return DOUBT * math.sqrt((others + 1) / (len(kin) + 1))

    def keep(self, name: str, member: Member) -> None:
        """Keep the weights of a name that an answer has taught."""
        self._members.pop(name, None)
        self._members[name] = member
        if member.is_new:
            member.doubt = self._doubt(name, member.weights)
        word = _word(name)
        if not member.placed or self._words.get(word) is member.weights:
            return
        kept = self.weights
        self._words = {each: known for each, known in self._words.items() if known in kept}
        if word in self._words or len(self._words) < MOST_WEIGHTS:
            self._words[word] = member.weights

    def forget(self, name: str) -> None:
        """Forget a name; weights that no other name has go with it."""
        self._members.pop(name, None)

    def save(self, place: PlaceOf) -> Iterator[SavedWord]:
        """Yield what is kept in a snapshot beside the names, in their order."""
        kept = self.weights
        for word, weights in self._words.items():
            if weights in kept:
                yield SavedWord(word, place(weights))

    def restore(self, name: str, member: Member) -> None:
        """Continue with a name that was saved."""
        self._members[name] = member

    def load(self, saved: SavedWord, weights: WeightsAt) -> None:
        """Continue with a word that was saved. Raises ValueError."""
        if saved.weights >= 0 and len(self._words) < MOST_WEIGHTS:
            self._words[saved.word] = weights(saved.weights)

    def fitting(self, samples: list[tuple[Measure, int]]) -> TokenWeights:
        """Return the weights that fit some answers best, or new ones if none fit."""
        best, fits = self._best(samples)
        fits = fits or len(self.weights) >= MOST_WEIGHTS
        return best if fits else TokenWeights(self._prior)

    def fitting_counts(self, samples: list[tuple[Measure, int]]) -> TokenWeights | None:
        """Return the weights that fit counts of samples best, or new ones; None without room.

        No answer confirms these counts yet: half of all sets are left to names that answer.
        """
        best, fits = self._best(samples)
        if fits:
            return best
        return TokenWeights(self._prior) if 2 * len(self.weights) < MOST_WEIGHTS else None

    def _best(self, samples: list[tuple[Measure, int]]) -> tuple[TokenWeights, bool]:
        odd, best = math.inf, TokenWeights(self._prior)
        for weights in self.weights:
            if (found := mean_oddity(weights, samples)) < odd:
                odd, best = found, weights
        return best, odd <= SURPRISE


def mean_oddity(weights: TokenWeights, samples: Sequence[tuple[Measure, int]]) -> float:
    """Return how odd counts are by some weights: about 1 if these fit."""
    total = 0.0
    for measure, tokens in samples:
        found = weights.predict(measure)
        total += min(oddity(found.score(tokens), found.deviation), CLIP * CLIP)
    return total / len(samples)


@lru_cache(4096)
def _word(name: str) -> str:
    found = _WORD.match(name.lower())
    return found.group() if found else ""
