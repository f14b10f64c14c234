"""What live services have seen, beyond the lengths of all requests together."""

from dataclasses import dataclass

from extproc.planner.traffic.lengths import Workload


@dataclass(frozen=True, slots=True)
class Category:
    """The lengths of the answered requests of a category, and their number."""

    lengths: Workload
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveHour:
    """The requests of the last hour, or since the start if that is later.

    seconds: the longest span of a service. by_pool: decisions. misrouted: of `judged` answers.
    busiest_per_s: of the busiest minute; the sum of the services' own, so an upper bound.
    """

    seconds: float
    by_pool: dict[str, int]
    misrouted: int
    judged: int
    busiest_per_s: float

    @property
    def requests(self) -> int:
        """Decisions of all pools."""
        return sum(self.by_pool.values())

    @property
    def mean_per_s(self) -> float:
        """Requests per second over the whole span."""
        return self.requests / self.seconds
