"""What a process learns, in one order, and snapshots of it.

Observations are applied as they come, but not while a snapshot is taken: what was learnt is then
read in small parts, and decisions go on from it between two of them.

Invariant: an observation is applied once, and the event loop never waits for a snapshot.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from extproc.budget.learner import Learner
from extproc.budget.values import Observation
from extproc.service.pages import SLICE_S, in_slices
from extproc.state.snapshot import Snapshot, frames_of

MOST_HELD: Final = 10_000
"""The observations that are held back; more are dropped."""

_log = logging.getLogger(__name__)


class Journal:
    """Applies observations to a learner. Not thread-safe."""

    def __init__(
        self,
        learner: Learner,
        dropped: Callable[[], None],
        applied: Callable[[Observation], None] = lambda _: None,
        replaced: Callable[[], None] = lambda: None,
    ) -> None:
        """Call `applied` with each observation, in the order in which they are learnt.

        `dropped` is called for each that cannot be learnt, `replaced` once a snapshot was loaded.
        """
        self._learner, self._dropped, self._applied = learner, dropped, applied
        self._replaced = replaced
        self._held: deque[Callable[[], None]] | None = None
        self._turn = asyncio.Lock()
        self.changes = 0
        """How often something was learnt so far: observations, and snapshots that were loaded."""

    def apply(self, seen: Observation) -> None:
        """Learn, at once or after the snapshot that is taken."""
        if self._held is None:
            self._apply(seen)
        elif len(self._held) < MOST_HELD:
            self._held.append(partial(self._apply, seen))
        else:
            self._dropped()

    async def apply_all(self, seen: Iterable[Observation]) -> None:
        """Learn these, in slices, after the snapshot that is taken."""
        async with self._turn:
            await _in_turn(partial(self._apply, each) for each in seen)

    def run(self, change: Callable[[], None]) -> None:
        """Change the learner otherwise, at once or after the snapshot that is taken."""
        if self._held is None:
            change()
        else:
            self._held.append(change)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Hold observations back meanwhile."""
        async with self._turn:
            self._held = held = deque[Callable[[], None]]()
            try:
                yield
            finally:
                try:
                    await _in_turn(_taken(held))
                finally:
                    self._held = None
                    while held:  # it was cancelled meanwhile, or a change has failed
                        held.popleft()()

    async def take(self) -> Snapshot:
        """Take a snapshot, within `held`."""
        return Snapshot(tuple(await in_slices(frames_of(self._learner))))

    def load(self, learner: Learner) -> None:
        """Continue from another learner, which nobody else has."""
        self._learner.replace(learner)
        self.changes += 1
        self._replaced()

    def _apply(self, seen: Observation) -> None:
        try:
            self._learner.learn(seen)
        except Exception:  # noqa: BLE001 - whatever was observed, the process serves on
            _log.exception("an observation cannot be learnt; dropping it")
            self._dropped()
        else:
            self.changes += 1
            self._applied(seen)


def _taken(held: deque[Callable[[], None]]) -> Iterator[Callable[[], None]]:
    while held:
        yield held.popleft()


async def _in_turn(changes: Iterable[Callable[[], None]]) -> None:
    until = time.perf_counter() + SLICE_S
    for change in changes:
        change()
        if time.perf_counter() > until:
            await asyncio.sleep(0)
            until = time.perf_counter() + SLICE_S
