"""The estimators of several rows of pools as one: what a row learns stays in it.

Each row has windows of its own, so that each is steered to the target by itself; then the target
holds for all of them together too.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from extproc.budget.category import OTHER_MODELS
from extproc.budget.estimate import Budget
from extproc.budget.saved import Name
from extproc.budget.values import Asked, Estimator, Figures, Learnt, Measure, Observation, Recalled


class SavedRow(msgspec.Struct, frozen=True, array_like=True, tag=30):
    """A row in a snapshot; the parts of its estimator follow."""

    name: Name


class RowEstimators:
    """Gives each request to the estimator of its model's row.

    `rows` are the estimators by the names that figures call the rows, and `number` returns that of
    the row that has a model, None if none has it.
    """

    def __init__(self, rows: Mapping[str, Estimator], number: Callable[[str], int | None]) -> None:
        self.rows, self._number = rows, number
        self._estimators = tuple(rows.values())

    def budget(self, asked: Asked) -> Budget:
        """Return what to reserve; a model without a row counts as one of the first."""
        return self._estimators[self._number(asked.model) or 0].budget(asked)

    def observe(self, observation: Observation) -> None:
        """Learn from an answer, unless no row has its model."""
        number = self._number(observation.asked.model)
        if number is not None:
            self._estimators[number].observe(observation)

    def knows(self, model: str) -> bool:
        """Return whether counted prompts would teach nothing of a model, as without a row."""
        number = self._number(model)
        return number is None or self._estimators[number].knows(model)

    def weigh(self, model: str, tenant: str, measure: Measure) -> float:
        """Return the tokens of a prompt by the estimator of its model, as `budget` does."""
        return self._estimators[self._number(model) or 0].weigh(model, tenant, measure)

    def recall(self, digest: str) -> Recalled | None:
        """Return what is known of the beginning of a prompt: its digest is that of one model."""
        found = (estimator.recall(digest) for estimator in self._estimators)
        return next((recalled for recalled in found if recalled), None)

    def save(self) -> Iterator[msgspec.Struct]:
        """Yield what a snapshot keeps in small parts; nothing may be learnt between two of them."""
        for name, estimator in self.rows.items():
            yield SavedRow(name)
            yield from estimator.save()

    def load(self, parts: Iterable[object]) -> None:
        """Continue as those that were saved, in rows of the same names. Raises ValueError."""
        rows: dict[str, list[object]] = {}
        row = None
        for part in parts:
            if isinstance(part, SavedRow):
                row = rows.setdefault(part.name, [])
            elif row is None:
                raise ValueError("a part of no row")
            else:
                row.append(part)
        for name, own in rows.items():
            if name in self.rows:
                self.rows[name].load(own)

    def learnt(self) -> Learnt:
        """Return what was learnt."""
        return Learnt.merged(self.learnt_parts())

    def learnt_parts(self) -> Iterator[Learnt]:
        """Yield what was learnt in small parts; a limit is named after its row, `NAME/LIMIT`."""
        tenants: dict[str, float] = {}
        for name, estimator in self.rows.items():
            for part in estimator.learnt_parts():
                yield Learnt(
                    categories=_apart(part.categories, name),
                    models=_apart(part.models, name),
                    limits={f"{name}/{limit}": row for limit, row in part.limits.items()},
                    evicted=part.evicted,
                )
                for key, value in part.tenants.items():
                    tenants[key] = tenants.get(key, 0.0) + float(value)
        yield Learnt(tenants=dict(tenants))


def _apart(figures: Mapping[str, Figures], row: str) -> dict[str, Figures]:
    """Name what all further models of a row share after the row."""
    others = f"{OTHER_MODELS[:-1]}, {row})"
    return {name.replace(OTHER_MODELS, others): each for name, each in figures.items()}
