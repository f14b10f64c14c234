"""The decisions of one process, counted by pool and reason, with a sample of the latest."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from extproc.budget.category import label
from extproc.budget.learner import name_category
from extproc.names import UNDECIDED
from extproc.routing.pools import Reason
from extproc.routing.route import Routed

EVERY_S: Final = 0.1
"""The least time between two decisions that are kept."""

LATEST: Final = 20
"""Decisions kept at once."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One decision in figures; all but the time are those of the request's headers and note."""

    at: float
    """Seconds since the epoch."""
    pool: str
    reason: str
    model: str
    category: str
    """Empty, as the model, if the request was not read."""
    basis: str
    prompt_tokens: int
    margin_tokens: int
    output_tokens: int
    budget_tokens: int
    placed_tokens: int
    """What is compared with a threshold."""
    counted_tokens: int
    """Tokens of the text by the model's tokenizer; 0 if they were estimated."""


class Decisions:
    """Is told every decision. `note` is on the path of each request, so it does next to nothing."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock, self._wall_clock = clock, wall_clock
        # dualpool_decisions_total has a series for each category: to add up thousands of them
        # every two seconds would cost more than to count twice.
        self._counts: dict[tuple[str, str], int] = {}
        self._latest: deque[Shown] = deque(maxlen=LATEST)
        self._next = 0.0

    def note(self, pool: str, reason: Reason, collect: Callable[[], Routed]) -> None:
        """Count a decision, and keep it unless another one was just kept."""
        key = pool or UNDECIDED, reason
        self._counts[key] = self._counts.get(key, 0) + 1
        now = self._clock()
        if now >= self._next:
            self._next = now + EVERY_S
            self._latest.append(_shown(collect(), self._wall_clock()))

    def counts(self) -> dict[str, float]:
        """Return the counts since the start, by metric name, pool and reason."""
        return {
            f"dualpool_decisions_total {pool} {reason}": float(count)
            for (pool, reason), count in self._counts.items()
        }

    def take_latest(self) -> list[Shown]:
        """Return what was kept since the last call, oldest first."""
        latest = list(self._latest)
        self._latest.clear()
        return latest


def _shown(routed: Routed, at: float) -> Shown:
    budget, is_read = routed.budget, routed.reason.is_read
    return Shown(
        at=at,
        pool=routed.pool,
        reason=routed.reason.value,
        model=label(routed.asked.model),
        category=label(name_category(routed.asked)) if is_read else "",
        basis=budget.basis.value if is_read else "",
        prompt_tokens=budget.prompt_tokens,
        margin_tokens=budget.margin_tokens,
        output_tokens=budget.output_tokens,
        budget_tokens=budget.tokens,
        placed_tokens=budget.placed,
        counted_tokens=routed.asked.measure.counted,
    )
