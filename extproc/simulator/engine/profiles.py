"""Profiles of vLLM servers: their speed, the size of their KV cache, and their price.

A profile is a named one, is derived from data sheets (an accelerator and a model), or is read from
a file, such as one that `dualpool profile` fitted to a running vLLM.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import msgspec

from extproc.config.errors import UserError
from extproc.simulator.engine.instance import EngineConfig, Profile

_GIB: Final = 2**30


class ProfileError(UserError):
    """A profile is invalid or unknown; the message says why and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One GPU: memory bandwidth in GB/s (10**9), dense TFLOP/s at the model's precision.

    memory_share is vLLM's gpu_memory_utilization. read_share, compute_share: the shares of the two
    peaks that decoding and prefill reach; the defaults are assumptions until they are measured.
    """

    name: str
    hbm_gib: float
    bandwidth_gb_s: float
    tflops: float
    price_per_h: float
    memory_share: float = 0.9
    read_share: float = 0.8
    compute_share: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The shape of a decoder model; active_parameters are those that one token uses (0: all)."""

    name: str
    parameters: float
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    weight_bytes: float = 2.0
    kv_bytes: float = 2.0
    active_parameters: float = 0.0

    def kv_token_bytes(self, tensor_parallel: int) -> int:
        """Return the bytes of keys and values that one token takes on each GPU.

        With more GPUs than KV heads, vLLM replicates heads.
        """
        heads = math.ceil(self.kv_heads / tensor_parallel)
        # 2 for keys and values. Qwen3-235B in FP8 on 8 GPUs: 2 x 94 layers x 1 head x 128 = 24,064
        # bytes, of which 133.4 GB hold 676 windows of 8,192 tokens, as arXiv 2604.08075 prints.
        return round(2 * self.layers * heads * self.head_size * self.kv_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceProfile:
    """One vLLM server, as the planner and the simulator see it.

    kv_tokens: capacity of its KV cache in tokens. price_per_gpu_h: USD per GPU and hour.
    overhead_s: seconds that a client waits for its first token outside the engine.
    """

    name: str
    pace: Profile
    kv_tokens: int
    gpus: int
    price_per_gpu_h: float
    block_size: int = 16
    overhead_s: float = 0.0

    def __post_init__(self) -> None:
        """Validate."""
        if self.kv_tokens < self.block_size or min(self.gpus, self.block_size) < 1:
            raise ValueError("kv_tokens must be at least block_size, and gpus at least 1")
        if min(self.price_per_gpu_h, self.overhead_s) < 0:
            raise ValueError("price_per_gpu_h and overhead_s must not be below 0")

    def engine(
        self, max_model_len: int, max_num_seqs: int, max_num_batched_tokens: int
    ) -> EngineConfig:
        """Return the engine settings of such a server in a pool."""
        return EngineConfig(
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            num_blocks=self.kv_tokens // self.block_size,
            block_size=self.block_size,
        )

    def window_slots(self, max_model_len: int) -> int:
        """Return how many full windows fit into the KV cache at once."""
        blocks = math.ceil(max_model_len / self.block_size)
        # 65,536 blocks of 16 tokens hold 128 windows of 8,192 tokens, or 16 of 65,536.
        return self.kv_tokens // self.block_size // blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A server described by data sheets; reserve_gib: memory per GPU for activations and graphs."""

    accelerator: Accelerator
    model: ModelShape
    tensor_parallel: int
    reserve_gib: float = 4.0


def kv_cache_bytes(build: Build) -> float:
    """Return the bytes per GPU that remain for the KV cache; negative if the model does not fit."""
    usable = (build.accelerator.hbm_gib * build.accelerator.memory_share - build.reserve_gib) * _GIB
    return usable - build.model.parameters * build.model.weight_bytes / build.tensor_parallel


def from_first_principles(build: Build) -> InstanceProfile:
    """Return the profile of a roofline model: reads limit decoding, products limit prefill.

    Each iteration reads all weights (a batch touches every expert of a mixture) and every KV entry
    of the decoding sequences; a prompt token costs 2 FLOP per active parameter, and a pair of
    tokens 4 FLOP per layer, head and element of a head (Pope et al., arXiv 2211.05102). The
    accelerator's two shares include communication between GPUs. Raises ProfileError if the model
    does not fit.
    """
    gpu, model, tp = build.accelerator, build.model, build.tensor_parallel
    room = kv_cache_bytes(build)
    kv_bytes = model.kv_token_bytes(tp)
    # Less than one block.
    if room < kv_bytes * 16:
        raise ProfileError(f"{model.name} leaves no KV cache on {tp} x {gpu.name}: use more GPUs")
    # A GB/s is 1e6 bytes per ms, a TFLOP/s 1e9 FLOP per ms.
    bytes_per_ms = gpu.bandwidth_gb_s * 1e6 * gpu.read_share
    flop_per_ms = gpu.tflops * 1e9 * gpu.compute_share * tp
    return InstanceProfile(
        name=f"{model.name} on {tp} x {gpu.name}",
        pace=Profile(
            weights_ms=model.parameters * model.weight_bytes / tp / bytes_per_ms,
            sequence_ms=0.0,
            chunk_tokens=1 << 30,  # the weights are read once; prompts cost what they compute
            prefill_token_ms=2 * (model.active_parameters or model.parameters) / flop_per_ms,
            prefill_pair_ms=4 * model.layers * model.heads * model.head_size / flop_per_ms,
            kv_token_ms=kv_bytes / bytes_per_ms,
        ),
        kv_tokens=int(room // kv_bytes),
        gpus=tp,
        price_per_gpu_h=gpu.price_per_h,
    )


MI300X: Final = Accelerator(
    name="MI300X", hbm_gib=192e9 / _GIB, bandwidth_gb_s=5300, tflops=2615, price_per_h=3.67
)
QWEN3_235B_FP8: Final = ModelShape(
    name="Qwen3-235B-FP8",
    parameters=235e9,
    active_parameters=22e9,
    layers=94,
    heads=64,
    kv_heads=4,
    head_size=128,
    weight_bytes=1.0,
    kv_bytes=1.0,
)
MI300X_QWEN3_235B: Final = Build(
    # 10 GB of reserve and 0.9 of 192 GB give the 133.4 GB of arXiv 2604.08075.
    accelerator=MI300X,
    model=QWEN3_235B_FP8,
    tensor_parallel=8,
    reserve_gib=10e9 / _GIB,
)


def _published(name: str, pace: Profile, blocks: int, price: float, gpus: int) -> InstanceProfile:
    return InstanceProfile(
        name=name, pace=pace, kv_tokens=16 * blocks, gpus=gpus, price_per_gpu_h=price
    )


def _pace(weights_ms: float, sequence_ms: float, chunk_tokens: int) -> Profile:
    # The table is for sequences of 8192 tokens; the papers' planner scales it by the length.
    return Profile(
        weights_ms=weights_ms,
        sequence_ms=0.0,
        chunk_tokens=chunk_tokens,
        kv_token_ms=sequence_ms / 8192,
    )


NAMED: Final[Mapping[str, InstanceProfile]] = MappingProxyType(
    {
        # arXiv 2603.16054, Llama-3-70B; the papers count and price such an instance as one GPU.
        "a100-llama70b": _published("a100-llama70b", _pace(8.0, 0.65, 512), 65_536, 2.21, 8),
        "h100-llama70b": _published("h100-llama70b", _pace(4.0, 0.32, 1024), 65_536, 4.02, 8),
        # From the same table, which names neither the model nor the number of GPUs.
        "a10g": _published("a10g", _pace(12.0, 0.90, 256), 32_768, 1.01, 1),
        "mi300x-qwen235b": replace(
            from_first_principles(MI300X_QWEN3_235B), name="mi300x-qwen235b"
        ),
    }
)


def named_profile(name: str) -> InstanceProfile:
    """Return one of NAMED. Raises ProfileError for any other name."""
    if name not in NAMED:
        raise ProfileError(f"{name}: no such profile; allowed: {', '.join(NAMED)}, or a file")
    return NAMED[name]


def read_profile(text: str | bytes) -> InstanceProfile:
    """Read the JSON of an InstanceProfile, or of a Build. Raises ProfileError."""
    try:
        if "accelerator" in msgspec.json.decode(text, type=dict[str, Any]):
            return from_first_principles(msgspec.json.decode(text, type=Build))
        return msgspec.json.decode(text, type=InstanceProfile)
    except (msgspec.DecodeError, ValueError) as error:
        raise ProfileError(f"{error}") from error


def write_profile(profile: InstanceProfile) -> str:
    """Return the JSON that read_profile reads."""
    return msgspec.json.format(msgspec.json.encode(asdict(profile)), indent=2).decode()
