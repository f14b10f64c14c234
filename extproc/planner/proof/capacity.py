"""How near a simulated fleet is to its capacity, and what a profile's error would change.

A measured profile is right to some percent; near saturation waits grow so fast with the load that
those percents decide.
"""

from dataclasses import replace

import numpy as np

from extproc.planner.simulation.fleet import FleetSpec, PoolSpec
from extproc.planner.simulation.records import Records
from extproc.planner.simulation.results import Mask
from extproc.planner.sizing.pool_model import PoolModel, requests_of
from extproc.planner.sizing.pool_sizing import occupancy_slots
from extproc.planner.traffic.lengths import equally_weighted
from extproc.simulator.engine.profiles import InstanceProfile


def load_of(records: Records) -> float:
    """Return the highest load of a pool: its answers over those that it gives with full slots.

    Infinite if all requests arrived at once.
    """
    span_s = float(records.at_s[-1] - records.at_s[0])
    if not span_s:
        return np.inf
    answered = records.tokens > 0
    loads = [
        float(which.sum()) / span_s / _rate_per_s(spec, records, which)
        for index, spec in enumerate(records.fleet.pools)
        if (which := answered & (records.pool == index)).any()
    ]
    return max(loads, default=0.0)


def with_capacity(fleet: FleetSpec, times: float) -> FleetSpec:
    """Return the fleet on instances that compute so many times as fast."""
    return FleetSpec(
        tuple(
            replace(pool, profile=replace(pool.profile, speed=pool.profile.speed * times))
            for pool in fleet.pools
        )
    )


def _rate_per_s(spec: PoolSpec, records: Records, which: Mask) -> float:
    engine = spec.engine
    profile = InstanceProfile(
        name=spec.name,
        pace=spec.profile,
        kv_tokens=engine.num_blocks * engine.block_size,
        gpus=spec.gpus,
        price_per_gpu_h=0.0,
        block_size=engine.block_size,
    )
    lengths = equally_weighted(spec.name, records.prompt[which], records.tokens[which])
    requests = requests_of(lengths, profile, engine.max_num_batched_tokens)
    held = max(1, occupancy_slots(requests, profile.kv_tokens))
    model = PoolModel(requests=requests, profile=profile, slots=min(engine.max_num_seqs, held))
    return model.rate_per_s * spec.instances
