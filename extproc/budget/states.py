"""What is known of a model name, and of a category of it."""

from collections.abc import Callable
from typing import Final

from extproc.budget.sketch import Counts, Scores, Sketch
from extproc.budget.values import Budget, Observation, Outcome
from extproc.budget.weights import Prior, TokenWeights

SCORE_MEMORY: Final = 1000.0
OUTPUT_MEMORY: Final = 1500.0
SIZES: Final = 6
"""Classes of prompts: below 512, 1024, 2048, 4096, 8192 tokens, and longer ones."""

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

    def add(self, seen: Observation, budget: Budget, *, covered: bool) -> None:
        """Count an answer, compared with the budget that its request would have had."""
        self._seen = min(self._seen + 1, 1000)
        share = 1.0 / self._seen
        ratio = seen.asked.every.text_bytes / seen.prompt_tokens
        prompt = seen.largest_prompt
        self.bytes_per_token += share * (ratio - self.bytes_per_token)
        self.error += share * (abs(budget.prompt_tokens / prompt - 1.0) - self.error)
        self.margin += share * (budget.margin_tokens / prompt - self.margin)
        self.covered += share * (covered - self.covered)


class ModelState:
    """What is known of one model name."""

    def __init__(self, prior: Prior, scores: Sketch, outputs: Sketch) -> None:
        self.weights = TokenWeights(prior)
        self.scores = Sketch(Scores(), scores, SCORE_MEMORY)
        self.outputs = Sketch(Counts(), outputs, OUTPUT_MEMORY)


class Distributions:
    """The errors and the outputs of some requests; `wider` are those of more requests."""

    def __init__(self, wider: "ModelState | Distributions", *, outgrows: bool = False) -> None:
        self.scores: Sketch = Sketch(Scores(), wider.scores, SCORE_MEMORY, outgrows=outgrows)
        self.outputs: Sketch = Sketch(Counts(), wider.outputs, OUTPUT_MEMORY, outgrows=outgrows)
        self.by_size = [
            Sketch(Counts(), self.outputs, OUTPUT_MEMORY, outgrows=outgrows) for _ in range(SIZES)
        ]

    @property
    def observations(self) -> int:
        """The answers that were learnt."""
        return self.scores.observations


class CategoryState(Distributions):
    """What is known of one category of one model."""

    def __init__(self, model: ModelState) -> None:
        super().__init__(model)
        self.record = CategoryRecord()


def add_output(sketch: Sketch, seen: Observation, weight: float = 1.0) -> None:
    """Count the output of an answer; one that was cut is known to be longer."""
    add: Callable[[float, float], None]
    add = sketch.add_censored if seen.outcome is Outcome.CUT else sketch.add
    add(seen.output_tokens, weight)
