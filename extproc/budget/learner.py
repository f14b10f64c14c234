"""What one process has learnt: the estimator, the categories with labels, and the lengths."""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from extproc.budget.category import OTHER, Labels
from extproc.budget.estimate import Budget
from extproc.budget.lengths import Lengths, SavedLengths
from extproc.budget.saved import SavedLabels
from extproc.budget.values import Asked, Estimator, Learnt, Measure, Observation, Outcome, Recalled


class Learner:
    """Estimates budgets and learns from observations."""

    def __init__(self, estimator: Estimator, labels: Labels) -> None:
        self.estimator, self._labels = estimator, labels
        self._lengths = Lengths()
        self.on_replaced: Callable[[str], None] = lambda _: None
        """Is told each label that another one has replaced."""
        self.replicas = 1
        """How many services learn the same: each passes its share of the observations on."""

    def share(self, replicas: int) -> None:
        """Note how many services learn the same from now on."""
        self.replicas = replicas

    def budget(self, asked: Asked) -> Budget:
        """Estimate what a request needs."""
        return self.estimator.budget(asked)

    def weigh(self, model: str, tenant: str, measure: Measure) -> float:
        """Return the tokens that a prompt, or several together, are expected to have."""
        return self.estimator.weigh(model, tenant, measure)

    def recall(self, digest: str) -> Recalled | None:
        """Return what is known of the beginning of a prompt, if it was seen before."""
        return self.estimator.recall(digest)

    def knows(self, model: str) -> bool:
        """Return whether counted prompts would teach nothing of a model."""
        return self.estimator.knows(model)

    def learn(self, observation: Observation) -> None:
        """Teach the estimator."""
        if observation.outcome is Outcome.COUNTED:  # no answer: it has no category, and no length
            self.estimator.observe(observation)
            return
        if gone := self._labels.admit(name_category(observation.asked)):
            self._fold(gone)
        self.estimator.observe(observation)
        if observation.completion_tokens:  # embeddings have no length that a plan could use
            self._lengths.observe(self.label(observation.asked), observation)

    def relabel(self, limit: int, replaceable: float) -> None:
        """Label at most so many categories from now on; see Labels."""
        for gone in self._labels.resize(limit, replaceable):
            self._fold(gone)

    def label(self, asked: Asked) -> str:
        """Return the category as a metric label: `other` beyond the permitted number."""
        return self.label_of(name_category(asked))

    def label_of(self, name: str) -> str:
        """Return the metric label of a category by its full name."""
        return self._labels.known(name)

    def save(self) -> Iterator[msgspec.Struct]:
        """Yield what a snapshot keeps in small parts; nothing may be learnt between two of them."""
        yield self._labels.save()
        yield from self._lengths.save()
        yield from self.estimator.save()

    def load(self, parts: Iterable[object]) -> None:
        """Continue as the one that was saved; this one has learnt nothing. Raises ValueError."""
        self.estimator.load(self._own(parts))

    def replace(self, other: "Learner") -> None:
        """Know what another learner has learnt, instead of what this one has."""
        # ruff does not see that they are of the same class.
        self.estimator = other.estimator
        self._labels = other._labels  # noqa: SLF001
        self._lengths = other._lengths  # noqa: SLF001

    def _own(self, parts: Iterable[object]) -> Iterator[object]:
        """Load the parts of a learner; yield those of its estimator."""
        for part in parts:
            match part:
                case SavedLabels():
                    self._labels.load(part)
                case SavedLengths():
                    self._lengths.load(part, self._labels.known(part.category))
                case _:
                    yield part

    @property
    def lengths(self) -> Lengths:
        """The lengths of the answered requests of each category."""
        return self._lengths

    def learnt(self) -> Learnt:
        """Return what was learnt."""
        return self.estimator.learnt()

    def learnt_parts(self) -> Iterator[Learnt]:
        """Yield what was learnt in small parts; more may be learnt between two of them."""
        return self.estimator.learnt_parts()

    def _fold(self, gone: str) -> None:
        self._lengths.fold(gone, OTHER)
        self.on_replaced(gone)


def name_category(asked: Asked) -> str:
    """Return the full name of a category, such as `prose/llama-3-70b`."""
    return full_name(asked.category, asked.model)


def full_name(category: str, model: str) -> str:
    """Return the full name of a category of a model."""
    return f"{category}/{model}"
