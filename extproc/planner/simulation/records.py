"""What happened to every request of a simulated run: columns of equal length, in arrival order."""

import enum
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from extproc.planner.simulation.fleet import FleetSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Fate(enum.IntEnum):
    """How a request ended: every arrival has exactly one."""

    UNFINISHED = 0  # the run ended before its answer
    COMPLETED = 1
    FAILED_OVER = 2  # its pool refused it, and the largest pool completed it
    CLAMPED = 3  # a window cut its answer
    REJECTED = 4  # it was refused: its prompt fills the window


class Timing(NamedTuple):
    """One request as a client saw it; times in seconds, infinite where they never came."""

    pool: str
    fate: Fate
    ttft_s: float
    tpot_s: float
    """Per token after the first; 0.0 where there is no second one."""
    output_tokens: int
    preemptions: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Records:
    """The columns. Times are seconds from the start of the trace, infinite where they never came.

    pool: the index of the pool that answered, or refused last. chosen: of the one that the rule
    chose. tokens: of the output that was produced. reused: prompt tokens that were cached.
    """

    fleet: FleetSpec
    at_s: Floats
    admitted_s: Floats
    first_s: Floats
    end_s: Floats
    prompt: Ints
    needed: Ints
    tokens: Ints
    reused: Ints
    pool: Ints
    chosen: Ints
    fate: Ints
    preemptions: Ints

    def __len__(self) -> int:
        """Count the requests."""
        return self.at_s.size

    @property
    def ttft_s(self) -> Floats:
        """From the arrival to the first token, what passes outside the engine included."""
        overhead = np.array([pool.overhead_s for pool in self.fleet.pools])
        return np.asarray(self.first_s - self.at_s + overhead[self.pool])

    @property
    def tpot_s(self) -> Floats:
        """Per token after the first; NaN where an answer is complete and has no second one."""
        answered = np.isfinite(self.end_s)
        several = answered & (self.tokens > 1)
        found = np.where(answered, np.nan, np.inf)
        taken = self.end_s[several] - self.first_s[several]
        found[several] = taken / (self.tokens[several] - 1)
        return found

    def timings(self) -> list[Timing]:
        """Return the requests one by one, to be held against those of a real server."""
        columns = zip(
            self.pool.tolist(),
            self.fate.tolist(),
            self.ttft_s.tolist(),
            np.nan_to_num(self.tpot_s, nan=0.0, posinf=np.inf).tolist(),
            self.tokens.tolist(),
            self.preemptions.tolist(),
            strict=True,
        )
        names = [pool.name for pool in self.fleet.pools]
        return [Timing(names[pool], Fate(fate), *rest) for pool, fate, *rest in columns]
