"""The service's rule with `load.spill`, of one or several replicas that see the same reports."""

import random
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from extproc.build import build_estimator, build_spill
from extproc.config.settings import Settings
from extproc.planner.simulation.rules import Estimated
from extproc.planner.simulation.run import Watch
from extproc.planner.traffic.arrivals import Incoming
from extproc.routing.load.pool_load import Tracker
from extproc.routing.load.report import Report
from extproc.routing.load.spill import Spill
from extproc.routing.pools import Pool, choose
from extproc.routing.route import Moving
from extproc.routing.sticky import StickyPools

_NS: Final = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """How reports reach the replicas.

    Replicas share what is learnt of tokens. garble: from the index of a pool and a report to the
    report that arrives; None: it is lost.
    """

    replicas: int = 1
    at_once: bool = False
    """Whether all requests move while any do: what the drawn shares avoid."""
    conversations: int = 0
    """How many each replica remembers, and leaves in their pool; 0: none."""
    delay_s: float = 0.0
    garble: Callable[[int, Report], Report | None] = lambda _, report: report


@dataclass(frozen=True, slots=True)
class _Replica:
    spill: Spill
    sticky_pools: StickyPools | None


class Spilling(Estimated):
    """`Estimated`, and after it the service's own `Spill`; each request is one replica's."""

    def __init__(
        self,
        pools: Sequence[Pool],
        settings: Settings,
        seed: int,
        reporting: Reporting = Reporting(),
    ) -> None:
        super().__init__(pools, build_estimator(settings, pools))
        self._reporting = reporting
        self._rng = random.Random(seed)  # noqa: S311 - reproducible, not secret
        self._now_s = 0.0
        self._on_the_way = deque[tuple[float, list[list[Report]]]]()  # when they were made
        self._tracker = Tracker((pool.name for pool in pools), settings.load.stale_s)
        draw = (lambda: 0.0) if reporting.at_once else self._rng.random
        self._replicas = [
            _Replica(
                build_spill(settings, pools, lambda: self._now_s, draw),
                StickyPools(reporting.conversations) if reporting.conversations else None,
            )
            for _ in range(reporting.replicas)
        ]
        self.moved = array("b")
        """Whether each request went to another pool than its budget's, in order of arrival."""
        self.watch: Final = Watch(settings.load.every_ms * 1_000_000, self._report)

    def choose(self, incoming: Incoming) -> int:
        """See `Rule`."""
        self._now_s = incoming.at_ns / _NS
        self._receive()
        budget = self._estimator.budget(incoming.asked)
        replica = self._replicas[int(self._rng.random() * len(self._replicas))]
        home = choose(budget, self._pools)
        # Prompts with one beginning are of one conversation.
        names = [str(incoming.prefix[0])] if incoming.prefix else []
        moving = Moving(replica.spill, replica.sticky_pools)
        decision = moving.decide(home, budget, self._pools, names)
        replica.spill.count(decision.pool.name)
        self.moved.append(decision is not home)
        return self._pools.index(decision.pool)

    def _report(self, at_ns: int, reports: list[list[Report]]) -> None:
        self._on_the_way.append((at_ns / _NS, reports))

    def _receive(self) -> None:
        """Pass on what has arrived by now, all of it before it is acted upon."""
        received = False
        while self._on_the_way and self._now_s >= self._on_the_way[0][0] + self._reporting.delay_s:
            self._take(*self._on_the_way.popleft())
            received = True
        if received:
            loads = self._tracker.loads(self._now_s)
            for replica in self._replicas:
                replica.spill.tell(loads)

    def _take(self, at_s: float, reports: list[list[Report]]) -> None:
        for index, (pool, servers) in enumerate(zip(self._pools, reports, strict=True)):
            self._tracker.set_servers(pool.name, range(len(servers)))
            for server, report in enumerate(servers):
                arrived = self._reporting.garble(index, report)
                if arrived is not None:
                    self._tracker.tell(pool.name, server, arrived, at_s)
