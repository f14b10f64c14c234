"""What is known of a model name, and of a category of it."""

from collections.abc import Sequence
from typing import Final

from extproc.budget.families import Member
from extproc.budget.outputs import Outputs
from extproc.budget.sketch import Scores, Sketch, score_prior
from extproc.budget.values import Asked, Budget, Observation
from extproc.budget.weights import Prediction

SCORE_MEMORY: Final = 1000.0
OFTEN: Final = 0.05
"""The share of implausible answers from which on they are believed to be the model's own."""
_RECENT: Final = 200

CategoryKey = tuple[str | None, str]
"""Model and category; None for all other models."""


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


class Errors:
    """The standardised errors of estimates: of whole prompts, and of the rest after a known part.

    The latter, and those beside a text that was counted, are kept apart: they are mostly small, but
    a template that renders the known part otherwise than before makes them large.
    """

    def __init__(self, wider: "Errors | None" = None, *, outgrows: bool = False) -> None:
        self._wider = wider
        self._outgrows = outgrows
        self.whole: Sketch = self._new(wider.whole if wider else score_prior())
        self._rest: Sketch | None = None  # most services remember no beginnings

    @property
    def rest(self) -> Sketch:
        """Those of the rest after a known part, or beside a text that was counted."""
        if self._rest is None:
            self._rest = self._new(self._wider.rest if self._wider else score_prior())
        return self._rest

    @property
    def observations(self) -> int:
        """The errors that were counted."""
        return self.whole.observations + (self._rest.observations if self._rest else 0)

    def of(self, asked: Asked, found: Prediction) -> Sketch:
        """Return those of requests of this kind, and of estimates like this one."""
        return self.rest if asked.resumes or found.is_counted else self.whole

    def _new(self, wider: Sketch | Sequence[float]) -> Sketch:
        return Sketch(Scores(), wider, SCORE_MEMORY, outgrows=self._outgrows)


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


class Distributions:
    """The errors and the outputs of some requests; `wider` are those of more requests."""

    def __init__(self, wider: "ModelState | Distributions", *, outgrows: bool = False) -> None:
        self.errors: Errors = Errors(wider.errors, outgrows=outgrows)
        self.outputs: Outputs = Outputs(wider.outputs, outgrows=outgrows)

    @property
    def observations(self) -> int:
        """The answers that were learnt."""
        return self.errors.observations


class CategoryState(Distributions):
    """What is known of one category of one model."""

    def __init__(self, model: ModelState) -> None:
        super().__init__(model)
        self.record = CategoryRecord()
