"""What was learnt: the estimator and the categories it knows, one for each process."""

from dataclasses import dataclass

from extproc.budget import Budget, Estimator, Measure
from extproc.category import Categories


@dataclass(frozen=True, slots=True)
class Observation:
    """What one complete answer teaches."""

    category: str
    measure: Measure
    prompt_tokens: int
    completion_tokens: int


class Learner:
    """Gives budgets, and learns from observations."""

    def __init__(self, estimator: Estimator, categories: Categories) -> None:
        self._estimator, self._categories = estimator, categories

    def budget(self, category: str, measure: Measure, output_tokens: int) -> Budget:
        """Estimate what a request of this category needs, in tokens."""
        return self._estimator.budget(self.label(category), measure, output_tokens)

    def label(self, category: str) -> str:
        """Return the category, or `other` where it was never taught: bounded, for metrics."""
        return self._categories.known(category)

    def learn(self, observation: Observation) -> None:
        """Teach the estimator."""
        category = self._categories.admit(observation.category)
        self._estimator.observe(category, observation.measure, observation.prompt_tokens)

    def snapshot(self) -> dict[str, dict[str, float]]:
        """Return what was learnt, category to figures."""
        return self._estimator.snapshot()
