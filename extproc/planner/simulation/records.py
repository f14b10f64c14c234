"""The requests of a simulated run: columns of equal length, in order of arrival."""

import enum
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from extproc.planner.simulation.fleet import FleetSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Fate(enum.IntEnum):
    """How a request ended. Every arrival has exactly one fate."""

    UNFINISHED = 0  # the run ended before its answer
    COMPLETED = 1
    FAILED_OVER = 2  # its pool refused it and the largest pool completed it
    CLAMPED = 3  # the window cut its answer
    REJECTED = 4  # it was refused: its prompt fills the window


class Timing(NamedTuple):
    """One request as its client saw it; times in seconds, infinite if there was no token."""

    pool: str
    fate: Fate
    ttft_s: float
    tpot_s: float
    """Seconds per token after the first; 0.0 if there is no second token."""
    output_tokens: int
    preemptions: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Records:
    """The columns. Times are seconds from the start of the trace, infinite if it never happened.

    pool: index of the pool that answered, or refused last. chosen: index of the pool that the rule
    chose. needed: tokens of a window that the request needs. tokens: output tokens produced.
    reused: prompt tokens found in the prefix cache.
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
        """Seconds from arrival to first token, including the time outside the engine."""
        overhead = np.array([pool.overhead_s for pool in self.fleet.pools])
        return np.asarray(self.first_s - self.at_s + overhead[self.pool])

    @property
    def tpot_s(self) -> Floats:
        """Seconds per token after the first; NaN for a complete answer of one token."""
        answered = np.isfinite(self.end_s)
        several = answered & (self.tokens > 1)
        found = np.where(answered, np.nan, np.inf)
        taken = self.end_s[several] - self.first_s[several]
        found[several] = taken / (self.tokens[several] - 1)
        return found

    def timings(self) -> list[Timing]:
        """Return the requests one by one, for comparison with a real server."""
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
