"""The values that estimators take and return; all counts are tokens unless named otherwise."""

import enum
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import msgspec

from extproc.budget.estimate import Budget

if TYPE_CHECKING:
    from array import array

Row: TypeAlias = "array[float] | memoryview[float]"
"""Numbers as C has them, side by side."""
Column: TypeAlias = "Row | tuple[float, ...]"

_MOST: Final = 1 << 40  # more than any count of a request
KNOWN: Final = 0.02
"""The deviation up to which the tokens of a beginning count as known, as a share of them."""


class Measure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A prompt as estimators see it, without its text."""

    text_bytes: int
    """UTF-8 bytes of the text that the chat template sees, after JSON decoding."""
    token_ids: int = 0
    """Prompt tokens that the client sent as ids: exact, never estimated."""
    features: tuple[float, ...] = ()
    """One count for each of features.FEATURES, scaled from the sample to the whole text."""
    unseen: float = 0.0
    """The share of the text that the sample leaves out, 0 to 1."""
    doubt: float = 0.0
    """The standard deviation of `token_ids` that are known from earlier answers."""
    counted: int = 0
    """The tokens of the text, if a tokenizer counted them; the features count that text too."""
    counted_tools: int = 0
    """Of these, the tokens of tool definitions."""

    def check(self, features: int) -> None:
        """Raise ValueError unless it has so many features, and all counts are in range."""
        known = (self.text_bytes, self.token_ids, self.unseen, self.doubt)
        counts = (*known, self.counted, self.counted_tools, *self.features)
        if len(self.features) != features or not all(0 <= count <= _MOST for count in counts):
            raise ValueError("no measure of a prompt")


class Prefix(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The beginnings of a prompt, by digests, whose tokens its answer tells."""

    whole: str
    """The digest of the whole prompt."""
    part: str = ""
    """That of the longest known part of it, or of its instructions; empty if it has none."""
    rest: Measure | None = None
    """What follows the part, where its tokens are not known well enough yet."""
    known: bool = False
    """Whether the tokens of the part are among those given as ids."""


class Asked(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What is known of a request before it is answered."""

    model: str
    category: str
    """The content class, or the value of the operator's header."""
    measure: Measure
    """The prompt of the largest sequence: a window holds one sequence."""
    output_limit: int | None
    """The output limit stated for one sequence, in tokens; None if none is stated."""
    output_floor: int = 0
    """The least output stated for one sequence, in tokens."""
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
    form: str = ""
    """What form the answer must have: a value of request.form.Form; empty if any."""
    limit_is_hint: bool = False
    """Whether the pools cut an answer at the end of their window, whatever limit is stated."""
    prefix: Prefix | None = None
    """None if beginnings are not remembered, or if the prompt is no conversation or a short one."""

    @property
    def resumes(self) -> bool:
        """Whether only the rest of the prompt is estimated, after a part that is known."""
        return self.prefix is not None and self.prefix.known

    @property
    def reserved(self) -> int | None:
        """The output limit that counts in full; None if what is generated counts."""
        return None if self.limit_is_hint and self.output_limit else self.output_limit

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
    COUNTED = "counted"  # its prompt was counted for us, and nothing was generated


class Observation(msgspec.Struct, frozen=True, gc=False):
    """What one answer teaches; counts are those of its usage, over all prompts and sequences."""

    asked: Asked
    outcome: Outcome
    window: int
    """The max_model_len of its pool."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    stands_for: int = 1
    """How many such answers this one stands for: one in so many is seen."""
    by_chance: bool = True
    """Whether what was known of the request decided that it is seen. False: its answer did, so that
    it teaches only what weighs answers."""

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
        """Tokens of a window that the largest sequence needs, its reserved limit in full."""
        reserved = self.asked.reserved
        return self.used if reserved is None else self.largest_prompt + reserved

    @property
    def used(self) -> int:
        """Tokens of a window that the largest sequence used; one more if the window cut it."""
        # An answer that its own limit ended would have been no longer in a larger window.
        cut = self.outcome is Outcome.CUT and self.output_tokens != self.asked.output_limit
        used = self.largest_prompt + self.output_tokens + cut
        return max(used, self.window + 1) if cut and self._may_fill() else used

    def _may_fill(self) -> bool:
        """Return whether one of several cut sequences may have filled the window."""
        several = self.asked.sequences - 1
        longest = self.completion_tokens - several  # the others have at least one token each
        longest = min(longest, self.asked.output_limit or longest)
        return bool(several) and self.largest_prompt + longest >= self.window


@dataclass(frozen=True, slots=True)
class Recalled:
    """The tokens of a beginning, and the standard deviation of their error."""

    tokens: float = 0.0
    deviation: float = math.inf

    @property
    def is_known(self) -> bool:
        """Whether it is known better than an estimate of it would be."""
        return self.deviation <= KNOWN * self.tokens


Figures = dict[str, float | str]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What an estimator has learnt, as figures by name, for people and metrics."""

    categories: dict[str, Figures] = field(default_factory=dict)
    """By category/model."""
    models: dict[str, Figures] = field(default_factory=dict)
    limits: dict[str, Figures] = field(default_factory=dict)
    """By the window, in tokens, that budgets are compared with."""
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

    def budget(self, asked: Asked) -> Budget:
        """Return what to reserve."""

    def observe(self, observation: Observation) -> None:
        """Learn from an answer."""

    def knows(self, model: str) -> bool:
        """Return whether counted prompts would teach nothing of a model."""

    def weigh(self, model: str, tenant: str, measure: Measure) -> float:
        """Return the tokens that a prompt, or several together, are expected to have; above 0."""

    def recall(self, digest: str) -> "Recalled | None":
        """Return what is known of the beginning of a prompt, if it was seen before."""

    def learnt(self) -> Learnt:
        """Return what was learnt."""

    def learnt_parts(self) -> Iterator[Learnt]:
        """Yield what was learnt in small parts; more may be learnt between two of them."""

    def save(self) -> Iterator[msgspec.Struct]:
        """Yield what a snapshot keeps in small parts; nothing may be learnt between two of them."""

    def load(self, parts: Iterable[object]) -> None:
        """Continue as the one that was saved; this one has learnt nothing. Raises ValueError."""
