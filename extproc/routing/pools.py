"""Choose a pool for a token budget, and judge the choice afterwards: pure functions.

The rule is that of arXiv 2604.08075, section 3, for any number of pools in ascending order of their
windows. Hard capacity comes first (a pool never gets `tokens > max_model_len`), then the threshold
(`tokens <= threshold` goes to that pool). A request that fits nowhere goes to the largest pool,
whose own error tells the client so. For example, with windows of 8,192 and 65,536 tokens and a
threshold of 6,000, a budget of 5,000 goes short (`fits`), 7,000 long (`threshold`), 9,000 long
(`capacity`) and 70,000 long (`oversize`).
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

    FITS = "fits"  # within the limit of the smallest pool
    THRESHOLD = "threshold"  # the next smaller pool could hold it, but is kept for shorter ones
    CAPACITY = "capacity"  # the next smaller pool could not hold it
    OVERSIZE = "oversize"  # no pool can hold it
    UNREADABLE = "unreadable"  # its body could not be read: the largest pool
    STATEFUL = "stateful"  # later requests name its answer, and those go to the largest pool
    BUSY = "busy"  # the service was too late to read it: by the size of its body

    @property
    def is_read(self) -> bool:
        """Whether the request was read, so that something is known of its tokens."""
        return self not in {Reason.UNREADABLE, Reason.BUSY}


@dataclass(frozen=True, slots=True)
class Decision:
    """The pool for a request."""

    pool: Pool
    reason: Reason


def limits(pools: Sequence[Pool]) -> tuple[int, ...]:
    """Return what budgets are compared with: the limit of every pool but the largest."""
    return tuple(pool.limit for pool in pools[:-1]) or (pools[0].limit,)


def choose(budgets: Sequence[int], pools: Sequence[Pool]) -> Decision:
    """Choose among `pools`, in ascending order of their windows.

    `budgets` are tokens of prompt plus output, one for each of `limits(pools)`: the margin of a
    budget may depend on the limit.
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
    """Whether a decision was right, once the tokens are known."""

    RIGHT = "right"
    MISROUTED = "misrouted"  # its pool could not hold it, a larger one exists
    OVER_ROUTED = "over_routed"  # a smaller pool could have held it


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
