"""What is simulated: pools of equal instances, in ascending order of their windows."""

from dataclasses import dataclass, replace

from extproc.routing.pools import Pool
from extproc.simulator.engine.instance import EngineConfig, Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSpec:
    """One pool. `overhead_s` is what a request takes outside the engine, before its first token.

    threshold: the largest budget, in tokens, that the pool is given; its window at most.
    gpus: of one instance. Raises ValueError where vLLM would not start.
    """

    name: str
    engine: EngineConfig
    profile: Profile
    instances: int
    threshold: int
    gpus: int = 1
    overhead_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot serve."""
        engine = self.engine
        if min(self.instances, self.threshold, self.gpus) < 1 or self.overhead_s < 0:
            raise ValueError(f"{self.name}: instances, threshold and gpus are at least 1")
        if engine.num_blocks * engine.block_size < engine.max_model_len:
            raise ValueError(f"{self.name}: the KV cache must hold max_model_len tokens")

    @property
    def slots(self) -> int:
        """Sequences that all instances together may run at once."""
        return self.instances * self.engine.max_num_seqs


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """All pools. Raises ValueError where there is none, or they are out of order."""

    pools: tuple[PoolSpec, ...]

    def __post_init__(self) -> None:
        """Refuse what the routing rule does not know."""
        windows = [pool.engine.max_model_len for pool in self.pools]
        if not windows or windows != sorted(set(windows)):
            raise ValueError("a fleet has pools of different windows, the smallest first")

    @property
    def gpus(self) -> int:
        """GPUs of all pools."""
        return sum(pool.instances * pool.gpus for pool in self.pools)

    def routing(self) -> tuple[Pool, ...]:
        """Return the pools as the service knows them."""
        return tuple(
            Pool(pool.name, pool.engine.max_model_len, pool.threshold) for pool in self.pools
        )

    def homogeneous(self) -> "FleetSpec":
        """Return the fleet that has the largest pool alone, on as many of the GPUs as it can."""
        largest = self.pools[-1]
        instances = max(1, self.gpus // largest.gpus)
        window = largest.engine.max_model_len
        return FleetSpec((replace(largest, instances=instances, threshold=window),))
