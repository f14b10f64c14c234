"""Choose a pool for a token budget, and judge the choice afterwards: pure functions.

The rule is that of arXiv 2604.08075, section 3, for any number of pools in ascending order of their
windows. Hard capacity comes first: a pool never gets a budget above its max_model_len. Then the
threshold places what is expected, without the margin for the error of the estimate: to exceed a
window is a fault, to exceed a threshold is not. A request that fits nowhere goes to the largest
pool, whose own error tells the client so. For example, with windows of 8,192 and 65,536 tokens and
a threshold of 6,000, a budget of 7,000 goes short if 5,000 are expected (`fits`) and long if 6,500
are (`threshold`), 9,000 go long (`capacity`) and 70,000 too (`oversize`).
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from extproc.budget.estimate import Budget
from extproc.frozen import Frozen


@dataclass(frozen=True, slots=True)
class Pool:
    """A set of servers with one window; both limits in tokens of prompt plus output."""

    name: str
    max_model_len: int
    threshold: int

    @property
    def limit(self) -> int:
        """The largest total that the pool is meant for, in tokens."""
        return min(self.threshold, self.max_model_len)


class Reason(enum.StrEnum):
    """Why a request went where it went."""

    FITS = "fits"  # within the limit of the smallest pool
    THRESHOLD = "threshold"  # the next smaller pool could hold it, but is kept for shorter ones
    CAPACITY = "capacity"  # the next smaller pool could not hold it
    OVERSIZE = "oversize"  # no pool can hold it
    UNREADABLE = "unreadable"  # its body could not be read: the largest pool
    STATEFUL = "stateful"  # later requests name its answer, and those go to the largest pool
    SPILL = "spill"  # moved from a saturated pool to one that is not, and that holds its budget
    STICKY = "sticky"  # its conversation is in that pool, which holds its budget
    BUSY = "busy"  # the service was too late to read it: by the size of its body
    UNLISTED = "unlisted"  # no row of pools has its model: Envoy's default route

    @property
    def is_read(self) -> bool:
        """Whether the request was read, so that something is known of its tokens."""
        return (
            self is not Reason.UNREADABLE
            and self is not Reason.BUSY
            and self is not Reason.UNLISTED
        )


class Decision(Frozen, frozen=True):
    """The pool for a request."""

    pool: Pool
    reason: Reason


def limits(pools: Sequence[Pool]) -> tuple[int, ...]:
    """Return the windows that a request must not exceed: of every pool but the largest."""
    return tuple([pool.max_model_len for pool in pools[:-1]]) or (pools[0].max_model_len,)


def thresholds(pools: Sequence[Pool]) -> tuple[int, ...]:
    """Return the thresholds beside `limits`."""
    return tuple([pool.threshold for pool in pools[:-1]]) or (pools[0].threshold,)


def choose(budget: Budget, pools: Sequence[Pool]) -> Decision:
    """Choose among `pools`, in ascending order of their windows."""
    largest, tokens, placed = pools[-1], budget.tokens, budget.placed
    if tokens > largest.max_model_len:
        return Decision(largest, Reason.OVERSIZE)
    index, last = 0, len(pools) - 1
    while index < last:
        pool = pools[index]
        if tokens <= pool.max_model_len and placed <= pool.threshold:
            break
        index += 1
    if index == 0:
        return Decision(pools[0], Reason.FITS)
    held = tokens <= pools[index - 1].max_model_len
    return Decision(pools[index], Reason.THRESHOLD if held else Reason.CAPACITY)


class Verdict(enum.Enum):
    """Whether a decision was right, once the tokens are known."""

    RIGHT = "right"
    MISROUTED = "misrouted"  # its pool could not hold it, a larger one exists
    OVER_ROUTED = "over_routed"  # a smaller pool could have held it
    RESERVED = "reserved"  # a smaller pool held what it used, but not the output limit it states


def judge_moved(
    name: str, home: str, needed: int, pools: Sequence[Pool], used: int | None = None
) -> Verdict:
    """Judge the choice of the pool `home`, whose request the load moved to the pool `name`.

    That a smaller pool could have held it is no fault of a move, and that `home` could not have
    held it did no harm. The arguments are those of `judge`.
    """
    verdict = judge(name, needed, pools, used)
    if verdict in (Verdict.RIGHT, Verdict.MISROUTED):
        return verdict
    at_home = judge(home, needed, pools, used)
    return Verdict.RIGHT if at_home is Verdict.MISROUTED else at_home


def judge(name: str, needed: int, pools: Sequence[Pool], used: int | None = None) -> Verdict:
    """Judge the choice of the pool `name` for a request that needed so many tokens.

    `used` are fewer if it needed room for an output limit that it did not reach; None: all. Raises
    KeyError for a name that is not among `pools`.
    """
    index = {pool.name: i for i, pool in enumerate(pools)}[name]
    if needed > pools[index].max_model_len and index < len(pools) - 1:
        return Verdict.MISROUTED
    if index > 0 and needed <= pools[index - 1].limit:
        return Verdict.OVER_ROUTED
    if index > 0 and used is not None and used <= pools[index - 1].limit:
        return Verdict.RESERVED
    return Verdict.RIGHT
