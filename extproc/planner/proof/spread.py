"""Run many simulations: one after the other here, or as the caller spreads them.

Invariant: a task depends on its arguments alone, so where it runs does not change its result.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Spread(Protocol):
    """Runs tasks."""

    def __call__(self, text: str, tasks: Sequence[Callable[[], T]]) -> Iterator[T]:
        """Yield the results in the order of the tasks; `text` says what they do."""


def in_turn(text: str, tasks: Sequence[Callable[[], T]]) -> Iterator[T]:  # noqa: ARG001
    """Run the tasks one after the other in this process."""
    return (task() for task in tasks)
