"""A plan as a value: which pools, of how many instances, for how much."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """A pool of a plan.

    threshold: the largest total that is sent to it, in tokens. share: of all requests, wrongly
    routed ones included. mu_per_instance: requests a second with all slots taken. utilisation:
    load over capacity. meets: whether both percentiles and the utilisation hold.
    """

    name: str
    max_model_len: int
    max_num_seqs: int
    threshold: int
    share: float
    mu_per_instance: float
    instances: int
    gpus: int
    utilisation: float
    ttft_p99_s: float
    tpot_p99_s: float
    meets: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A fleet for a traffic, the smallest pool first.

    against: the homogeneous fleet for the same; None in that one itself. over_window: the share of
    requests that no pool can hold, which are left out of everything else.
    """

    pools: tuple[PoolPlan, ...]
    rate_per_s: float
    price_per_gpu_h: float
    hours_per_year: float
    over_window: float = 0.0
    against: "Plan | None" = None
    verdict: str = ""

    @property
    def instances(self) -> int:
        """Of all pools."""
        return sum(pool.instances for pool in self.pools)

    @property
    def gpus(self) -> int:
        """Of all pools."""
        return sum(pool.gpus for pool in self.pools)

    @property
    def usd_per_year(self) -> float:
        """What the GPUs cost in a year of so many hours."""
        return self.gpus * self.price_per_gpu_h * self.hours_per_year

    @property
    def saving(self) -> float:
        """The saved share of the homogeneous fleet's GPUs; negative where the split costs."""
        return 1 - self.gpus / self.against.gpus if self.against else 0.0

    @property
    def meets(self) -> bool:
        """Whether every pool holds the objectives."""
        return self.failing == 0

    @property
    def failing(self) -> int:
        """How many pools do not hold the objectives."""
        return sum(not pool.meets for pool in self.pools)

    @property
    def thresholds(self) -> tuple[int, ...]:
        """Thresholds of all pools but the largest."""
        return tuple(pool.threshold for pool in self.pools[:-1])

    @property
    def closed_form(self) -> int:
        """Instances by the closed form: the load over what is served, without queues or a cap."""
        return sum(
            math.ceil(self.rate_per_s * pool.share / pool.mu_per_instance) for pool in self.pools
        )
