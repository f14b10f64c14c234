"""Small fleets and arrivals for tests of the simulator."""

from collections.abc import Sequence

import numpy as np

from extproc.planner.simulation.fleet import FleetSpec, PoolSpec
from extproc.planner.traffic.arrivals import Incoming, arrive
from extproc.planner.traffic.lengths import Trace
from extproc.simulator.engine.instance import EngineConfig, Profile

QUICK = Profile(weights_ms=8.0, sequence_ms=0.65, chunk_tokens=16)


def pool(name: str, window: int, *, instances: int = 1, blocks: int = 0, seqs: int = 4) -> PoolSpec:
    engine = EngineConfig(
        max_model_len=window,
        max_num_seqs=seqs,
        max_num_batched_tokens=32,
        num_blocks=blocks or window // 4,
        block_size=4,
    )
    return PoolSpec(name=name, engine=engine, profile=QUICK, instances=instances, threshold=window)


TWO = FleetSpec((pool("short", 64, instances=2), pool("long", 256, instances=2)))


def trace(rows: Sequence[tuple[float, int, int]]) -> Trace:
    """Make a trace of (seconds from the arrival before, prompt tokens, output tokens)."""
    gaps, prompt, output = (np.array(column) for column in zip(*rows, strict=True))
    return Trace(name="test", at_s=np.cumsum(gaps), prompt=prompt, output=output)


def incoming(rows: Sequence[tuple[float, int, int]], max_tokens: int = 0) -> list[Incoming]:
    made = trace(rows)
    return list(arrive(made, np.full(len(made), max_tokens), 0))
