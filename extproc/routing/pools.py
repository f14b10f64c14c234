"""Which pool a token budget belongs to, and whether that was right in the end: pure functions.

The rule is that of arXiv 2604.08075, section 3, for any number of pools in ascending order of their
windows: hard capacity first (`tokens > max_model_len` never stays), then the threshold
(`tokens <= threshold` goes to that pool). What fits nowhere goes to the largest pool, whose own
answer tells the client so.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pool:
    """A set of servers with one window; both limits in tokens of prompt plus output."""

    name: str
    max_model_len: int
    threshold: int

    @property
    def limit(self) -> int:
        """The largest budget that the pool is given, in tokens."""
        return min(self.threshold, self.max_model_len)


class Reason(enum.Enum):
    """Why a request went where it went."""

    FITS = "fits"  # the smallest pool takes it
    THRESHOLD = "threshold"  # the next smaller pool could hold it, but is kept for shorter ones
    CAPACITY = "capacity"  # the next smaller pool could not hold it
    OVERSIZE = "oversize"  # no pool can hold it
    UNREADABLE = "unreadable"  # its body could not be read: the largest pool


@dataclass(frozen=True, slots=True)
class Decision:
    """The pool for a request."""

    pool: Pool
    reason: Reason


def limits(pools: Sequence[Pool]) -> tuple[int, ...]:
    """Return what budgets are held against: the limit of each pool that has a larger neighbour."""
    return tuple(pool.limit for pool in pools[:-1]) or (pools[0].limit,)


def choose(budgets: Sequence[int], pools: Sequence[Pool]) -> Decision:
    """Choose among `pools`, in ascending order.

    `budgets` are tokens of prompt plus output, one for each of `limits(pools)`, since a margin may
    differ with the limit that it is for.
    """
    largest = pools[-1]
    if budgets[-1] > largest.max_model_len:
        return Decision(largest, Reason.OVERSIZE)
    fitting = (i for i, tokens in enumerate(budgets) if tokens <= pools[i].limit)
    index = next(fitting, len(pools) - 1)
    if index == 0:
        return Decision(pools[0], Reason.FITS)
    held = budgets[index - 1] <= pools[index - 1].max_model_len
    return Decision(pools[index], Reason.THRESHOLD if held else Reason.CAPACITY)


class Verdict(enum.Enum):
    """How a decision looks once the tokens are known."""

    RIGHT = "right"
    MISROUTED = "misrouted"  # its pool could not hold it, a larger one exists
    OVER_ROUTED = "over_routed"  # a smaller pool would have taken it


def judge(name: str, tokens: int, pools: Sequence[Pool]) -> Verdict:
    """Judge the choice of the pool `name` for a request whose true total is `tokens`.

    Raises KeyError for a name that is not among `pools`.
    """
    index = {pool.name: i for i, pool in enumerate(pools)}[name]
    if tokens > pools[index].max_model_len and index < len(pools) - 1:
        return Verdict.MISROUTED
    if index > 0 and tokens <= pools[index - 1].limit:
        return Verdict.OVER_ROUTED
    return Verdict.RIGHT
