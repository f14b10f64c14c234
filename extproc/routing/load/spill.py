"""Move a share of the requests from a saturated pool to one that is not and can hold them.

The expected wait of a request in a pool is what queues there, divided by the requests that leave
the queue per second. What queues is what the servers last reported, and what has been sent since. A
pool is saturated from `Limits.wait_s` on, until half of it is reached.

Of the requests that belong to a saturated pool only a share moves, drawn at random: as many as make
the waits of both equal, over a horizon that outlasts the delay of the reports, and no more than the
other pool can take without being saturated itself. So the share is the same for every replica
that sees the same reports, and all of them together move what one would. For example, a queue of 60
requests at 10 a second (6 s) beside an idle pool that answers as many calls for 30 requests to
move; if 20 arrive a second and the horizon is 2 s, that is a share of 0.75.

A pool that is not known is neither saturated nor gets what another pool cannot serve, unless all
servers of that other pool are down.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from extproc.budget.estimate import Budget
from extproc.routing.load.pool_load import PoolLoad, State, describe
from extproc.routing.pools import Decision, Pool, Reason

EVERY_S: Final = 0.1
"""How often the shares are computed anew."""
_HORIZON_S: Final = 1.0
_MOST_STEPS: Final = 64
_FULL_KV: Final = 0.9
"""The share of a KV cache in use from which on more requests are likely to preempt others."""
_PROBE: Final = 4.0
"""Requests per server that a pool which has never been seen full takes at once."""
_USUAL: Final = 4.0
"""Requests whose number is taken to be the usual one, beside those that were counted."""
_MOVABLE: Final = frozenset({Reason.FITS, Reason.THRESHOLD, Reason.CAPACITY})


@dataclass(frozen=True, slots=True)
class Limits:
    """When a pool is saturated, and when a report is too old; both in seconds."""

    wait_s: float
    stale_s: float


@dataclass(slots=True)
class _Pool:
    """What is known of a pool, and what this process has sent there."""

    load: PoolLoad
    at_s: float = -math.inf
    """When the reports were made, by the clock of Spill."""
    home: int = 0
    """Requests whose budget belongs here, wherever they went."""
    sent: int = 0
    saturated: bool = False
    wait_s: float = 0.0
    state: State = State.UNKNOWN


class _Step(NamedTuple):
    """What each pool had been sent at one moment, by the counts of _Pool."""

    at_s: float
    sent: tuple[int, ...]
    home: tuple[int, ...]


class Spill:
    """Told the reports, and asked about each decision; of one process.

    Every request that is sent anywhere passes through `count`.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        limits: Limits,
        clock: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        """`clock` returns seconds, monotonic; `draw` a new random number from 0 to 1."""
        self._limits, self._clock, self._draw = limits, clock, draw
        self._pools = {pool.name: _Pool(PoolLoad()) for pool in pools}
        self._next_s = -math.inf
        self._steps: deque[_Step] = deque(maxlen=_MOST_STEPS)  # oldest first
        self._shares: dict[str, list[tuple[str, float]]] = {}

    def tell(self, loads: Mapping[str, PoolLoad]) -> None:
        """Take new loads, made `age_s` ago; those of pools that this one does not have are left."""
        now = self._clock()
        for name, load in loads.items():
            if pool := self._pools.get(name):
                pool.load, pool.at_s = load, now - load.age_s
        self._next_s = -math.inf

    def count(self, pool: str) -> None:
        """Count a request that is sent to a pool."""
        self._pools[pool].sent += 1

    def move(self, decision: Decision, budget: Budget, pools: Sequence[Pool]) -> Decision:
        """Return the decision for a request that was read, which may be another pool now.

        The window of the other pool holds the whole budget.
        """
        if decision.reason not in _MOVABLE:
            return decision
        self._pools[decision.pool.name].home += 1
        now = self._clock()
        if now >= self._next_s:
            self._refresh(now)
        shares = self._shares.get(decision.pool.name)
        if not shares:
            return decision
        windows = {pool.name: pool for pool in pools}
        for name, share in shares:
            pool = windows.get(name)
            if pool and budget.tokens <= pool.max_model_len:
                return Decision(pool, Reason.SPILL) if self._draw() < share else decision
        return decision

    def is_down(self, pool: str) -> bool:
        """Return whether all servers of a pool refuse connections, as last told."""
        found = self._pools.get(pool)
        return found is not None and found.load.state is State.DOWN

    def describe(self) -> dict[str, object]:
        """Return what is known and decided of each pool, for GET /state."""
        self._refresh(self._clock())
        return {
            name: {
                **describe(pool.load),
                "state": pool.state.value,
                **({"wait_s": round(pool.wait_s, 3)} if pool.state is State.KNOWN else {}),
                "saturated": pool.saturated,
                "spills": {to: round(share, 3) for to, share in self._shares.get(name, ())},
            }
            for name, pool in self._pools.items()
        }

    def _refresh(self, now_s: float) -> None:
        """Compute the shares anew."""
        self._next_s = now_s + EVERY_S
        pools = self._pools
        sent = tuple(pool.sent for pool in pools.values())
        home = tuple(pool.home for pool in pools.values())
        self._steps.append(_Step(now_s, sent, home))
        senders = self._senders()
        for index, pool in enumerate(pools.values()):
            self._estimate(index, pool, now_s, senders)
        homes = self._home_rates(senders)
        sources = [(name, pool) for name, pool in pools.items() if pool.saturated]
        self._shares = {
            name: self._shares_of(pool, homes[name], len(sources), now_s) for name, pool in sources
        }

    def _estimate(self, index: int, pool: _Pool, now_s: float, senders: float) -> None:
        """Estimate the wait in a pool, and whether it is saturated."""
        load, age_s = pool.load, now_s - pool.at_s
        pool.state = load.state if age_s <= self._limits.stale_s else State.UNKNOWN
        if pool.state is not State.KNOWN:
            pool.saturated = pool.state is State.DOWN
            pool.wait_s = math.inf if pool.saturated else 0.0
            return
        since = (pool.sent - self._sent_before(index, pool.at_s)) * senders
        # While it is full, it answers as many as it can.
        queue = load.waiting - load.rate * age_s
        if load.room:
            queue = max(queue, queue + since - max(0.0, load.room - load.running))
        pool.wait_s = max(0.0, queue) / load.rate
        least = self._limits.wait_s / 2 if pool.saturated else self._limits.wait_s
        pool.saturated = pool.wait_s >= least

    def _shares_of(
        self, source: _Pool, home_rate: float, sources: int, now_s: float
    ) -> list[tuple[str, float]]:
        """Return the pools to which requests of a saturated pool move, the best first."""
        found = list[tuple[float, str, float]]()
        for name, pool in self._pools.items():
            if pool is source or pool.saturated:
                continue
            if source.state is State.DOWN:
                found.append((pool.wait_s, name, 1.0))
            elif pool.state is State.KNOWN:
                horizon_s = _HORIZON_S + 2 * (now_s - source.at_s)
                # What queues by then, if nothing moves.
                growth = max(0.0, home_rate - source.load.rate) * horizon_s
                queue = source.wait_s * source.load.rate + growth
                moved = self._moved(queue, source.load.rate, pool, sources)
                share = min(1.0, moved / max(home_rate * horizon_s, 1.0))
                found.append((pool.wait_s, name, share))
        return [(name, share) for _, name, share in sorted(found) if share > 0]

    def _moved(self, queue: float, rate: float, other: _Pool, sources: int) -> float:
        """Return how many requests of a queue, of which `rate` are answered per second, move.

        As many as make the waits equal, and no more than leave the other pool unsaturated.
        """
        free = _free(other.load)
        most = free + (self._limits.wait_s - other.wait_s) * other.load.rate if free else 0.0
        # Those that find a free place there prolong no wait.
        seconds = 1.0 / rate + 1.0 / other.load.rate
        equal = (queue / rate - other.wait_s + free / other.load.rate) / seconds
        return max(0.0, min(queue, equal, most / sources))

    def _sent_before(self, index: int, at_s: float) -> int:
        """Return what a pool had been sent at a time, or at the oldest step."""
        sent = self._steps[0].sent[index]
        for step in self._steps:
            if step.at_s > at_s:
                break
            sent = step.sent[index]
        return sent

    def _senders(self) -> float:
        """Return how many times as much all senders send as this one, by the servers' reports."""
        before, now = self._steps[0], self._steps[-1]
        sent = arrived = 0.0
        for index, pool in enumerate(self._pools.values()):
            if pool.load.state is State.KNOWN:
                sent += now.sent[index] - before.sent[index]
                arrived += pool.load.arrivals * (now.at_s - before.at_s)
        return max(1.0, arrived / sent) if sent else 1.0

    def _home_rates(self, senders: float) -> dict[str, float]:
        """Return the requests per second, of all senders, whose budget belongs to each pool."""
        before, now = self._steps[0], self._steps[-1]
        seconds = max(now.at_s - before.at_s, EVERY_S)
        counts = zip(self._pools, before.home, now.home, strict=True)
        return {name: senders * (last - first) / seconds for name, first, last in counts}


def _free(load: PoolLoad) -> float:
    """Return how many more requests a pool runs at once, as far as it is known."""
    free = load.room - load.running if load.room else max(load.running, _PROBE * load.servers)
    if load.kv_usage:
        free = min(free, load.running * (_FULL_KV / load.kv_usage - 1.0))
    return max(0.0, free)
