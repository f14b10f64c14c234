"""What a process has learnt: its estimator, and the categories that metrics name."""

from extproc.budget import Asked, Budget, Estimator, Learnt, Observation
from extproc.category import Labels


class Learner:
    """Gives budgets, and learns from observations."""

    def __init__(self, estimator: Estimator, labels: Labels) -> None:
        self._estimator, self._labels = estimator, labels

    def budget(self, asked: Asked, limit: int) -> Budget:
        """Estimate what a request needs that will be held against `limit` tokens."""
        return self._estimator.budget(asked, limit)

    def learn(self, observation: Observation) -> None:
        """Teach the estimator."""
        self._labels.admit(name_category(observation.asked))
        self._estimator.observe(observation)

    def label(self, asked: Asked) -> str:
        """Return the category for metrics: bounded, `other` where it was never taught."""
        return self._labels.known(name_category(asked))

    def learnt(self) -> Learnt:
        """Return what was learnt."""
        return self._estimator.learnt()


def name_category(asked: Asked) -> str:
    """Return a category as people read it, as in `prose/llama-3-70b`."""
    return f"{asked.category}/{asked.model}"
