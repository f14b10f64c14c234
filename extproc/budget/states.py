"""What is known of a model name, and of a category of it."""

import enum
from collections.abc import Sequence
from typing import Final

import msgspec

from extproc.budget.estimate import Budget
from extproc.budget.families import Member, SavedMember
from extproc.budget.features import OPTIONAL
from extproc.budget.outputs import Outputs, SavedOutputs
from extproc.budget.saved import Count, Finite, Name, Share
from extproc.budget.sketch import SavedSketch, Scores, Sketch, score_prior
from extproc.budget.values import Asked, Observation
from extproc.budget.weights import Prediction

SCORE_MEMORY: Final = 1000.0
OFTEN: Final = 0.05
"""The share of implausible answers from which on they are believed to be the model's own."""
_RECENT: Final = 200

CategoryKey = tuple[str | None, str]
"""Model and category; None for all other models."""


class SavedRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record in a snapshot."""

    bytes_per_token: Finite
    error: Finite
    margin: Finite
    covered: Finite
    seen: Count


class SavedErrors(msgspec.Struct, frozen=True, array_like=True):
    """Errors in a snapshot."""

    whole: SavedSketch
    rest: SavedSketch | None
    optional: SavedSketch | None


class SavedDistributions(msgspec.Struct, frozen=True, array_like=True):
    """Distributions in a snapshot."""

    errors: SavedErrors
    outputs: SavedOutputs


class SavedModel(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A model in a snapshot; `name` is None for all others."""

    name: Name | None
    touched: Count
    member: SavedMember
    known: SavedDistributions
    implausible: Share
    seen: Count


class SavedCategory(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A category in a snapshot; `category` is None for all others of the model."""

    model: Name | None
    category: Name | None
    touched: Count
    known: SavedDistributions
    record: SavedRecord


class CategoryRecord:
    """Running means of how a category fares, for people; they decide nothing."""

    def __init__(self) -> None:
        self.bytes_per_token = 0.0
        self.error = 0.0
        self.margin = 0.0
        self.covered = 0.0
        self._seen = 0

    def add(self, seen: Observation, budget: Budget) -> None:
        """Count an answer, compared with the budget that its request would have had."""
        self._seen = min(self._seen + seen.stands_for, max(1000, seen.stands_for))
        share = seen.stands_for / self._seen
        ratio = seen.asked.every.text_bytes / seen.prompt_tokens
        prompt = seen.largest_prompt
        self.bytes_per_token += share * (ratio - self.bytes_per_token)
        self.error += share * (abs(budget.prompt_tokens / prompt - 1.0) - self.error)
        self.margin += share * (budget.margin_tokens / prompt - self.margin)
        self.covered += share * ((seen.needed <= budget.tokens) - self.covered)

    def save(self) -> SavedRecord:
        """Return what is kept in a snapshot."""
        return SavedRecord(self.bytes_per_token, self.error, self.margin, self.covered, self._seen)

    def load(self, saved: SavedRecord) -> None:
        """Continue as the record that was saved."""
        self.bytes_per_token, self.error = saved.bytes_per_token, saved.error
        self.margin, self.covered, self._seen = saved.margin, saved.covered, saved.seen


class Apart(enum.Enum):
    """Estimates whose errors are kept apart, in the order of SavedErrors."""

    REST = "rest"  # of the rest after a known part, or beside a text that was counted
    OPTIONAL = "optional"  # of prompts with text that templates may drop


class Errors:
    """The standardised errors of estimates: of whole prompts, and of the rest after a known part.

    The latter, and those beside a text that was counted, are kept apart: they are mostly small, but
    a template that renders the known part otherwise than before makes them large. Those of prompts
    with text that templates may drop are kept apart because they are large where it is rendered:
    the weights of its characters are not learnt.
    """

    def __init__(self, wider: "Errors | None" = None, *, outgrows: bool = False) -> None:
        self._wider, self._outgrows = wider, outgrows
        self.whole: Sketch = self._new(wider.whole if wider else score_prior())
        # Most services remember no beginnings, and see no such text.
        kinds = () if wider else Apart
        self._apart: dict[Apart, Sketch] = {kind: self._new(score_prior()) for kind in kinds}

    def add(self, asked: Asked, found: Prediction, score: float, weight: float) -> None:
        """Count an error; the wider ones were told of it before."""
        kind = _apart(asked, found)
        errors = self.whole if kind is None else self._own(kind)
        errors.add(score, weight)

    @property
    def observations(self) -> int:
        """The errors that were counted."""
        return self.whole.observations + sum(each.observations for each in self._apart.values())

    def of(self, asked: Asked, found: Prediction) -> Sketch:
        """Return those of requests of this kind, and of estimates like this one."""
        kind = _apart(asked, found)
        return self.whole if kind is None else self.find_apart(kind)

    def save(self) -> SavedErrors:
        """Return what is kept in a snapshot."""
        apart = {kind: each.save() for kind, each in self._apart.items()}
        return SavedErrors(self.whole.save(), *map(apart.get, Apart))

    def load(self, saved: SavedErrors) -> None:
        """Continue as those that were saved. Raises ValueError."""
        self.whole.load(saved.whole)
        for kind, errors in zip(Apart, (saved.rest, saved.optional), strict=True):
            if errors:
                self._own(kind).load(errors)

    def find_apart(self, kind: Apart) -> Sketch:
        """Return the errors of a kind: those of more requests while there are none here."""
        own = self._apart.get(kind)
        if own is None and self._wider:
            return self._wider.find_apart(kind)
        return own or self.whole

    def _own(self, kind: Apart) -> Sketch:
        if kind not in self._apart:
            self._apart[kind] = self._new(self.find_apart(kind))
        return self._apart[kind]

    def _new(self, wider: Sketch | Sequence[float]) -> Sketch:
        return Sketch(Scores(), wider, SCORE_MEMORY, outgrows=self._outgrows)


def _apart(asked: Asked, found: Prediction) -> Apart | None:
    """Return with which errors that of this estimate counts; None: with those of whole prompts."""
    if asked.resumes or found.is_counted:
        return Apart.REST
    return Apart.OPTIONAL if any(asked.measure.features[OPTIONAL]) else None


class ModelState:
    """What is known of one model name."""

    def __init__(self, member: Member, errors: Errors, outputs: Outputs) -> None:
        self.member = member
        self.errors: Errors = Errors(errors)
        self.outputs = Outputs(outputs)
        self._implausible = 0.0
        self._seen = 0

    def believes(self, *, plausible: bool, by_chance: bool = True) -> bool:
        """Return whether an answer may teach: a rare one that no tokenizer can have counted lies.

        If there are many, the model costs what the prior does not know: then they teach how wrong
        the estimates are. One that is seen for what it states says nothing of how many there are.
        """
        if by_chance:
            self._seen = min(self._seen + 1, _RECENT)
            self._implausible += ((not plausible) - self._implausible) / self._seen
        return plausible or self._implausible > OFTEN

    def save(self, name: str | None, touched: int, member: SavedMember) -> SavedModel:
        """Return what is kept in a snapshot."""
        known = SavedDistributions(self.errors.save(), self.outputs.save())
        return SavedModel(name, touched, member, known, self._implausible, self._seen)

    def load(self, saved: SavedModel) -> None:
        """Continue as the model that was saved, beside its member. Raises ValueError."""
        self.errors.load(saved.known.errors)
        self.outputs.load(saved.known.outputs)
        self._implausible, self._seen = saved.implausible, min(saved.seen, _RECENT)


class Distributions:
    """The errors and the outputs of some requests; `wider` are those of more requests."""

    def __init__(self, wider: "ModelState | Distributions", *, outgrows: bool = False) -> None:
        self.errors: Errors = Errors(wider.errors, outgrows=outgrows)
        self.outputs: Outputs = Outputs(wider.outputs, outgrows=outgrows)

    @property
    def observations(self) -> int:
        """The answers that were learnt."""
        return self.errors.observations

    def save(self) -> SavedDistributions:
        """Return what is kept in a snapshot."""
        return SavedDistributions(self.errors.save(), self.outputs.save())

    def load(self, saved: SavedDistributions) -> None:
        """Continue as those that were saved. Raises ValueError."""
        self.errors.load(saved.errors)
        self.outputs.load(saved.outputs)


class CategoryState(Distributions):
    """What is known of one category of one model."""

    def __init__(self, model: ModelState) -> None:
        super().__init__(model)
        self.record = CategoryRecord()
