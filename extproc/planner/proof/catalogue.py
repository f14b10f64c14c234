"""Accelerators and models from which profiles are derived, with the sources of their figures.

Memory is what nvidia-smi reports; bandwidth and dense BF16 TFLOP/s are from NVIDIA's data sheets.
Prices are of AWS on demand in us-east-1, USD per GPU and hour, November 2026: p5, p4de, g6e, g6 and
g5. Prices differ threefold between vendors: put your own into a profile file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from extproc.simulator.engine.profiles import (
    Accelerator,
    Build,
    InstanceProfile,
    ModelShape,
    ProfileError,
    from_first_principles,
)

# With it, an H100 has 448,000 tokens of KV cache for Llama-3-8B; vLLM 0.26 reported 451,824.
_RESERVE_GIB: Final = 2.0
_NAME: Final = re.compile(r"(?P<gpu>[a-z0-9]+?)(?:x(?P<count>[1-9][0-9]?))?")


@dataclass(frozen=True, slots=True)
class Machine:
    """What an instance runs on: a name for the report, and its profile.

    max_num_batched_tokens: None: vLLM's default on the accelerator.
    """

    name: str
    profile: InstanceProfile
    max_num_batched_tokens: int | None = None


ACCELERATORS: Final[Mapping[str, Accelerator]] = MappingProxyType(
    {
        "l4": Accelerator(
            name="L4",
            hbm_gib=22.5,
            bandwidth_gb_s=300,
            tflops=121,
            price_per_h=0.81,
        ),
        "a10g": Accelerator(
            name="A10G",
            hbm_gib=22.5,
            bandwidth_gb_s=600,
            tflops=70,
            price_per_h=1.01,
        ),
        "l40s": Accelerator(
            name="L40S",
            hbm_gib=45.0,
            bandwidth_gb_s=864,
            tflops=362,
            price_per_h=1.86,
        ),
        "a100": Accelerator(
            name="A100-80GB",
            hbm_gib=80.0,
            bandwidth_gb_s=2039,
            tflops=312,
            price_per_h=3.43,
        ),
        # Prefill reached .67 of the peak on an H100; the .5 of the others is an assumption.
        "h100": Accelerator(
            name="H100-80GB",
            hbm_gib=79.6,
            bandwidth_gb_s=3350,
            tflops=989,
            price_per_h=6.88,
            compute_share=0.67,
        ),
    }
)
MODELS: Final[Mapping[str, ModelShape]] = MappingProxyType(
    {
        "llama-2-7b": ModelShape(
            name="Llama-2-7B", parameters=6.74e9, layers=32, heads=32, kv_heads=32, head_size=128
        ),
        "llama-3-8b": ModelShape(
            name="Llama-3-8B", parameters=8.03e9, layers=32, heads=32, kv_heads=8, head_size=128
        ),
        "llama-3-70b": ModelShape(
            name="Llama-3-70B", parameters=70.6e9, layers=80, heads=64, kv_heads=8, head_size=128
        ),
    }
)


def machine(name: str, model: str) -> Machine | None:
    """Return the machine of a name such as h100 or h100x8; None if it is not in the catalogue.

    Raises ProfileError if the model is unknown or does not fit.
    """
    found = _NAME.fullmatch(name)
    if not found or found["gpu"] not in ACCELERATORS:
        return None
    if model not in MODELS:
        raise ProfileError(f"--model: {model} is not allowed: {', '.join(MODELS)}")
    build = Build(
        accelerator=ACCELERATORS[found["gpu"]],
        model=MODELS[model],
        tensor_parallel=int(found["count"] or 1),
        reserve_gib=_RESERVE_GIB,
    )
    return Machine(name, from_first_principles(build))
