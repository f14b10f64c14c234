"""What a process has learnt: its estimator, the categories that metrics name, and the lengths."""

from extproc.budget.category import Labels
from extproc.budget.lengths import LengthHistogram
from extproc.budget.values import Asked, Budget, Estimator, Learnt, Observation, Outcome


class Learner:
    """Gives budgets, and learns from observations."""

    def __init__(self, estimator: Estimator, labels: Labels) -> None:
        self._estimator, self._labels = estimator, labels
        self._lengths = LengthHistogram()

    def budget(self, asked: Asked, limit: int) -> Budget:
        """Estimate what a request needs that will be held against `limit` tokens."""
        return self._estimator.budget(asked, limit)

    def learn(self, observation: Observation) -> None:
        """Teach the estimator."""
        self._labels.admit(name_category(observation.asked))
        self._estimator.observe(observation)
        if observation.outcome is not Outcome.REFUSED:
            label = self.label(observation.asked)
            tokens = (observation.prompt_tokens, observation.completion_tokens)
            self._lengths.observe(label, *tokens)

    def label(self, asked: Asked) -> str:
        """Return the category for metrics: bounded, `other` where it was never taught."""
        return self._labels.known(name_category(asked))

    @property
    def lengths(self) -> LengthHistogram:
        """How long the answered requests of each category were."""
        return self._lengths

    def learnt(self) -> Learnt:
        """Return what was learnt."""
        return self._estimator.learnt()


def name_category(asked: Asked) -> str:
    """Return a category as people read it, as in `prose/llama-3-70b`."""
    return f"{asked.category}/{asked.model}"
