"""What a request may need, in tokens: the values that estimators take and give."""

import enum
from dataclasses import dataclass
from typing import Protocol


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
    """The share of the text that the sample left out, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a request before it is answered."""

    model: str
    category: str
    """The content class, or what the operator's header says."""
    measure: Measure
    """The prompt of the largest sequence: a window holds one sequence."""
    output_limit: int | None
    """The output limit stated for one sequence, in tokens; None if none is stated."""
    sequences: int = 1
    """How many sequences the answer has: prompts times `n`."""
    whole: Measure | None = None
    """All prompts together, which usage.prompt_tokens counts; None if there is one prompt."""


class Outcome(enum.Enum):
    """How the pool dealt with a request."""

    COMPLETE = "complete"
    CUT = "cut"  # a limit, stated or the window's, ended the answer: it would have been longer
    REFUSED = "refused"  # it does not fit the window; how many tokens it has is unknown


@dataclass(frozen=True, slots=True)
class Observation:
    """What one answer teaches."""

    asked: Asked
    outcome: Outcome
    limit: int
    """The largest budget that its pool is given, in tokens."""
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Basis(enum.Enum):
    """What an estimate rests on."""

    PRIOR = "prior"  # nothing was learnt for the model
    BORROWED = "borrowed"  # the category has seen too little, and leans on wider ones
    CALIBRATED = "calibrated"


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens to reserve."""

    prompt_tokens: int
    """The estimate itself, with the ids that were given."""
    margin_tokens: int
    """What is added against its error."""
    output_tokens: int
    basis: Basis

    @property
    def tokens(self) -> int:
        """What is compared with a pool's limit."""
        return self.prompt_tokens + self.margin_tokens + self.output_tokens


Figures = dict[str, float | str]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What an estimator has learnt, for people and metrics: figures by name."""

    categories: dict[str, Figures]
    """By category/model."""
    models: dict[str, Figures]
    limits: dict[str, Figures]
    """By the limit, in tokens, that requests are held against."""


class Estimator(Protocol):
    """Gives budgets, and learns from answers; bounded in memory."""

    def budget(self, asked: Asked, limit: int) -> Budget:
        """Return what to reserve where it will be held against `limit` tokens."""

    def observe(self, observation: Observation) -> None:
        """Learn from an answer."""

    def learnt(self) -> Learnt:
        """Return what was learnt."""
