"""The values that estimators take and return; all counts are tokens unless named otherwise."""

import enum
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from extproc.tokens import needed_tokens


@dataclass(frozen=True, slots=True)
class Measure:
    """A prompt as estimators see it, without its text."""

    text_bytes: int
    """UTF-8 bytes of the text that the chat template sees, after JSON decoding."""
    token_ids: int = 0
    """Prompt tokens that the client sent as ids: exact, never estimated."""
    features: tuple[float, ...] = ()
    """One count for each of features.FEATURES, scaled from the sample to the whole text."""
    unseen: float = 0.0
    """The share of the text that the sample leaves out, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a request before it is answered."""

    model: str
    category: str
    """The content class, or the value of the operator's header."""
    measure: Measure
    """The prompt of the largest sequence: a window holds one sequence."""
    output_limit: int | None
    """The output limit stated for one sequence, in tokens; None if none is stated."""
    sequences: int = 1
    """How many sequences the answer has: prompts times `n`."""
    whole: Measure | None = None
    """All prompts together, which usage.prompt_tokens counts; None if there is one prompt."""
    share: float = 1.0
    """The part of all prompt tokens that is the largest prompt's, 0 to 1."""
    tenant: str = ""
    """The digest of the tenant's name; empty if tenants are not told apart."""
    thinking: str = ""
    """How long the model is to think: a value of request.thinking.Thinking; empty if unstated."""

    @property
    def every(self) -> Measure:
        """All prompts together, also if there is one."""
        return self.whole or self.measure

    def largest_prompt(self, prompt_tokens: int) -> int:
        """Return the largest prompt's part of the tokens of all prompts."""
        return math.ceil(prompt_tokens * self.share)


class Outcome(enum.Enum):
    """What the pool did with a request."""

    COMPLETE = "complete"
    CUT = "cut"  # the answer reached its limit or the end of the window
    REFUSED = "refused"  # it does not fit the window; its tokens are unknown


@dataclass(frozen=True, slots=True)
class Observation:
    """What one answer teaches; counts are those of its usage, over all prompts and sequences."""

    asked: Asked
    outcome: Outcome
    limit: int
    """The largest budget that its pool is given."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    window: int = 0
    """The max_model_len of its pool; 0 if unknown."""

    @property
    def largest_prompt(self) -> int:
        """Prompt tokens of the largest sequence."""
        return self.asked.largest_prompt(self.prompt_tokens)

    @property
    def output_tokens(self) -> int:
        """Completion tokens of one sequence, their mean if there are several."""
        return math.ceil(self.completion_tokens / self.asked.sequences)

    @property
    def needed(self) -> int:
        """Tokens of a window that the largest sequence needs; one more if it was cut."""
        cut = self.outcome is Outcome.CUT
        limit = self.asked.output_limit
        needed = needed_tokens(self.largest_prompt, limit, self.output_tokens, cut=cut)
        return max(needed, self.window + 1) if cut and self._may_fill(limit) else needed

    def _may_fill(self, limit: int | None) -> bool:
        """Return whether one of several cut sequences may have filled the window."""
        several = self.asked.sequences - 1
        longest = self.completion_tokens - several  # the others have at least one token each
        return bool(several) and limit is None and self.largest_prompt + longest >= self.window > 0


class Basis(enum.Enum):
    """What an estimate is based on."""

    PRIOR = "prior"  # no answer of the model was seen yet
    BORROWED = "borrowed"  # too few answers of the category: based on its model, or on all
    CALIBRATED = "calibrated"


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens to reserve for the largest sequence of a request."""

    prompt_tokens: int
    """The estimate, with the ids that were given."""
    margin_tokens: int
    """Added for the error of the estimate."""
    output_tokens: int
    basis: Basis

    @property
    def tokens(self) -> int:
        """The sum, which is compared with a pool's limit."""
        return self.prompt_tokens + self.margin_tokens + self.output_tokens


Figures = dict[str, float | str]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What an estimator has learnt, as figures by name, for people and metrics."""

    categories: dict[str, Figures] = field(default_factory=dict)
    """By category/model."""
    models: dict[str, Figures] = field(default_factory=dict)
    limits: dict[str, Figures] = field(default_factory=dict)
    """By the limit, in tokens, that budgets are compared with."""
    evicted: int = 0
    """Categories that were forgotten for others."""
    tenants: Figures = field(default_factory=dict)
    """Figures over all tenants; none names one."""

    @classmethod
    def merged(cls, parts: Iterable["Learnt"]) -> "Learnt":
        """Join parts that name different categories, models and limits."""
        every = list(parts)
        return cls(
            categories={name: row for part in every for name, row in part.categories.items()},
            models={name: row for part in every for name, row in part.models.items()},
            limits={name: row for part in every for name, row in part.limits.items()},
            evicted=sum(part.evicted for part in every),
            tenants={name: row for part in every for name, row in part.tenants.items()},
        )


class Estimator(Protocol):
    """Estimates budgets and learns from answers, in bounded memory."""

    def budget(self, asked: Asked, limit: int) -> Budget:
        """Return what to reserve if it will be compared with `limit` tokens."""

    def observe(self, observation: Observation) -> None:
        """Learn from an answer."""

    def learnt(self) -> Learnt:
        """Return what was learnt."""

    def learnt_parts(self) -> Iterator[Learnt]:
        """Yield what was learnt in small parts; more may be learnt between two of them."""
