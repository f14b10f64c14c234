"""The fleet to simulate: pools of equal instances, in ascending order of their windows."""

from dataclasses import dataclass, replace

from extproc.routing.pools import Pool
from extproc.simulator.engine.instance import EngineConfig, Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSpec:
    """One pool.

    threshold: the largest budget, in tokens, that is routed to the pool. gpus: of one instance.
    overhead_s: seconds that a request spends outside the engine before its first token. notes:
    sentences on its profile that every output must carry. Raises ValueError if vLLM would not
    start.
    """

    name: str
    engine: EngineConfig
    profile: Profile
    instances: int
    threshold: int
    gpus: int = 1
    overhead_s: float = 0.0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validate."""
        engine = self.engine
        if min(self.instances, self.threshold, self.gpus) < 1 or self.overhead_s < 0:
            raise ValueError(f"{self.name}: instances, threshold and gpus are at least 1")
        if engine.num_blocks * engine.block_size < engine.max_model_len:
            raise ValueError(f"{self.name}: the KV cache must hold max_model_len tokens")

    @property
    def slots(self) -> int:
        """Sequences that all instances together can run at once."""
        return self.instances * self.engine.max_num_seqs


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """All pools. Raises ValueError if there is none, or if their windows do not ascend."""

    pools: tuple[PoolSpec, ...]

    def __post_init__(self) -> None:
        """Validate."""
        windows = [pool.engine.max_model_len for pool in self.pools]
        if not windows or windows != sorted(set(windows)):
            raise ValueError("a fleet has pools of different windows, the smallest first")

    @property
    def gpus(self) -> int:
        """GPUs of all pools."""
        return sum(pool.instances * pool.gpus for pool in self.pools)

    @property
    def notes(self) -> tuple[str, ...]:
        """What every output must say about the pools' profiles, each once."""
        return tuple(dict.fromkeys(note for pool in self.pools for note in pool.notes))

    def routing(self) -> tuple[Pool, ...]:
        """Return the pools as the routing rule takes them."""
        return tuple(
            Pool(pool.name, pool.engine.max_model_len, pool.threshold) for pool in self.pools
        )

    def one_pool(self, max_num_seqs: int) -> "FleetSpec":
        """Return a fleet of the largest pool alone, on all GPUs, with this max_num_seqs."""
        largest = self.pools[-1]
        batched = max(largest.engine.max_num_batched_tokens, max_num_seqs)
        engine = replace(largest.engine, max_num_seqs=max_num_seqs, max_num_batched_tokens=batched)
        instances = max(1, self.gpus // largest.gpus)
        pool = replace(largest, engine=engine, instances=instances, threshold=engine.max_model_len)
        return FleetSpec((pool,))
