"""A plan as a value: its pools, their instances, their cost."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """A pool of a plan.

    threshold: the largest total that is routed to it, in tokens. sent: the share of all requests
    that the rule sends to it; those of a plan add up to 1. share: the share that loads it, with
    wrongly routed requests in both pools, so those of a plan add up to more. mu_per_instance:
    requests per second with all slots taken. utilisation: load over capacity. meets: both
    percentiles and the utilisation meet the objectives.
    """

    name: str
    max_model_len: int
    max_num_seqs: int
    threshold: int
    sent: float
    share: float
    mu_per_instance: float
    instances: int
    gpus: int
    utilisation: float
    ttft_p99_s: float
    tpot_p99_s: float
    meets: bool

    def beyond_load(self, cap: float) -> bool:
        """Return whether one instance fewer would be within this cap on the utilisation.

        A latency objective decides the size then.
        """
        return self.utilisation * self.instances <= cap * (self.instances - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A fleet for a workload, in ascending order of windows.

    against: the fleet of one pool that it is compared with; None if this is one pool. over_window:
    the share of requests that no pool can hold; every other figure leaves them out.
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
        """Instances of all pools."""
        return sum(pool.instances for pool in self.pools)

    @property
    def gpus(self) -> int:
        """GPUs of all pools."""
        return sum(pool.gpus for pool in self.pools)

    @property
    def usd_per_year(self) -> float:
        """Cost of the GPUs per year of `hours_per_year`."""
        return self.gpus * self.price_per_gpu_h * self.hours_per_year

    @property
    def yearly(self) -> str:
        """The cost per year as the end of a list: `, $1,000 a year`; "" without a price."""
        return f", ${self.usd_per_year:,.0f} a year" if self.price_per_gpu_h else ""

    @property
    def saving(self) -> float:
        """The saved share of the GPUs of one pool; negative if the split costs GPUs."""
        return 1 - self.gpus / self.against.gpus if self.against else 0.0

    @property
    def meets(self) -> bool:
        """Whether every pool meets the objectives."""
        return self.failing == 0

    @property
    def failing(self) -> int:
        """Number of pools that miss the objectives."""
        return sum(not pool.meets for pool in self.pools)

    @property
    def thresholds(self) -> tuple[int, ...]:
        """Thresholds of all pools but the largest."""
        return tuple(pool.threshold for pool in self.pools[:-1])

    @property
    def closed_form(self) -> int:
        """Instances by the closed form: load over rate, without queues or a utilisation cap."""
        return sum(
            math.ceil(self.rate_per_s * pool.share / pool.mu_per_instance) for pool in self.pools
        )


def count_gpus(number: int) -> str:
    """Return a number of GPUs as text: 1 GPU, 2 GPUs."""
    return "1 GPU" if number == 1 else f"{number} GPUs"
