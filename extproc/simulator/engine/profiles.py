"""Profiles of vLLM servers: their speed, the size of their KV cache, and their price.

A profile is a named one, is derived from data sheets (an accelerator and a model), or is read from
a file, such as one that `dualpool profile` fitted to a running vLLM.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import msgspec

from extproc.config.errors import UserError
from extproc.simulator.engine.instance import (
    EAGER_WEIGHTS,
    GRAPH_SEQUENCES,
    EngineConfig,
    Profile,
)

_GIB: Final = 2**30
# Llama-3-8B on an H100 (docs/simulation.md): what a running sequence adds to an iteration beyond
# its KV entries (sampling, input), and the launch of one layer of a prefill. Assumed elsewhere.
_SEQUENCE_MS: Final = 0.011
_LAYER_LAUNCH_MS: Final = 0.4
# vLLM's engine/arg_utils.py, get_batch_defaults, for its API server: GPUs of at least 70 GiB other
# than the A100, and all others.
_LARGE_GIB: Final = 70
_BATCH_LARGE: Final = (8192, 1024)
_BATCH_SMALL: Final = (2048, 256)


class ProfileError(UserError):
    """A profile is invalid or unknown; the message says why and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """One GPU: memory bandwidth in GB/s (10**9), dense TFLOP/s at the model's precision.

    memory_share is vLLM's gpu_memory_utilization. The other shares are those of the two peaks that
    are reached when KV entries (read_share) and weights are read, and when prompt tokens
    (compute_share) and their pairs are computed; the defaults are those of an H100 with Llama-3-8B.
    """

    name: str
    hbm_gib: float
    bandwidth_gb_s: float
    tflops: float
    price_per_h: float
    memory_share: float = 0.9
    read_share: float = 0.94
    weights_share: float = 0.72
    compute_share: float = 0.69
    pair_share: float = 0.65

    @property
    def batch_defaults(self) -> tuple[int, int]:
        """Defaults of vLLM: max_num_batched_tokens and max_num_seqs."""
        large = self.hbm_gib >= _LARGE_GIB and "a100" not in self.name.lower()
        return _BATCH_LARGE if large else _BATCH_SMALL


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
    overhead_s: seconds that a client waits for its first token outside the engine. Both max_
    settings: vLLM's defaults on its accelerator, or those of the server that was measured.
    measured_sequences, measured_kv_tokens: the most at which an iteration was measured, 0 if none
    was. caution: a reason to distrust it.
    """

    name: str
    pace: Profile
    kv_tokens: int
    gpus: int
    price_per_gpu_h: float
    block_size: int = 16
    overhead_s: float = 0.0
    async_scheduling: bool = True
    max_num_batched_tokens: int = _BATCH_SMALL[0]
    max_num_seqs: int = _BATCH_SMALL[1]
    measured_sequences: int = 0
    measured_kv_tokens: int = 0
    source: str = ""
    caution: str = ""

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
            async_scheduling=self.async_scheduling,
        )

    def default_num_seqs(self, max_num_batched_tokens: int) -> int:
        """Return max_num_seqs of a server that is started without it."""
        # As in vLLM's engine/arg_utils.py: a sequence takes a token of each iteration.
        return min(self.max_num_seqs, max_num_batched_tokens)

    @property
    def has_vllm_defaults(self) -> bool:
        """Whether both max_ settings are vLLM's defaults, not those of a measured server."""
        both = (self.max_num_batched_tokens, self.max_num_seqs)
        return not self.measured_sequences or both in (_BATCH_LARGE, _BATCH_SMALL)

    @property
    def whose_default(self) -> str:
        """What default_num_seqs is called beside its number."""
        return "vLLM's default" if self.has_vllm_defaults else "as measured"

    def notes(self, max_num_seqs: int, max_num_batched_tokens: int) -> tuple[str, ...]:
        """Return sentences, without a full stop, that every output with this profile must carry."""
        told = (
            f"vLLM's defaults on {self.name} are"
            if self.has_vllm_defaults
            else f"{self.name} was measured with"
        )
        found = [
            f"max_num_batched_tokens {max_num_batched_tokens}; {told}"
            f" {self.max_num_batched_tokens}, and {self.max_num_seqs} for max_num_seqs"
        ]
        if self.caution:
            found.append(f"{self.name}: {self.caution}")
        if 0 < self.measured_sequences < max_num_seqs:
            found.append(
                f"{self.name} was measured with up to {self.measured_sequences} sequences at once;"
                f" the times of up to {max_num_seqs} are extrapolated"
            )
        if 0 < self.measured_kv_tokens < self.kv_tokens / 2:
            found.append(
                f"{self.name} was measured with up to {self.measured_kv_tokens} KV tokens in use;"
                f" the times of up to {self.kv_tokens} are extrapolated"
            )
        return tuple(found)

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
    bytes_per_ms = gpu.bandwidth_gb_s * 1e6
    flop_per_ms = gpu.tflops * 1e9 * tp
    weights_ms = model.parameters * model.weight_bytes / tp / bytes_per_ms / gpu.weights_share
    token_flop = 2 * (model.active_parameters or model.parameters)
    pair_flop = 4 * model.layers * model.heads * model.head_size
    batched_tokens, max_num_seqs = gpu.batch_defaults
    return InstanceProfile(
        name=f"{model.name} on {tp} x {gpu.name}",
        pace=Profile(
            weights_ms=weights_ms,
            sequence_ms=_SEQUENCE_MS,
            chunk_tokens=1 << 30,  # the weights are read once; prompts cost what they compute
            prefill_token_ms=token_flop / flop_per_ms / gpu.compute_share,
            prefill_pair_ms=pair_flop / flop_per_ms / gpu.pair_share,
            kv_token_ms=kv_bytes / bytes_per_ms / gpu.read_share,
            overlap=True,
            launch_ms=_LAYER_LAUNCH_MS * model.layers,
            graph_sequences=GRAPH_SEQUENCES,
            eager_ms=EAGER_WEIGHTS * weights_ms,
        ),
        kv_tokens=int(room // kv_bytes),
        gpus=tp,
        price_per_gpu_h=gpu.price_per_h,
        max_num_batched_tokens=batched_tokens,
        max_num_seqs=max_num_seqs,
        source="first principles",
    )


H100: Final = Accelerator(
    name="H100-80GB", hbm_gib=80, bandwidth_gb_s=3350, tflops=989, price_per_h=4.02
)
LLAMA_3_70B: Final = ModelShape(
    name="Llama-3-70B", parameters=70.6e9, layers=80, heads=64, kv_heads=8, head_size=128
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
        name=name,
        pace=pace,
        kv_tokens=16 * blocks,
        gpus=gpus,
        price_per_gpu_h=price,
        async_scheduling=False,  # the papers' simulators do not have it
        source="arXiv 2603.16054",
        caution=_CAUTIONS[name],
    )


def _pace(weights_ms: float, sequence_ms: float, chunk_tokens: int) -> Profile:
    # The table is for sequences of 8192 tokens; the papers' planner scales it by the length.
    return Profile(
        weights_ms=weights_ms,
        sequence_ms=0.0,
        chunk_tokens=chunk_tokens,
        kv_token_ms=sequence_ms / 8192,
    )


_CAUTIONS: Final = {
    # 512 tokens x 2 FLOP x 70.6e9 in 8 ms are 9.0 PFLOP/s of 8 x 312 TFLOP/s.
    "a100-llama70b": "the papers' table, whose prefill is 3.6 times faster than the peak of eight"
    " A100; plans on it are too small, measure your own",
    "a10g": "the papers' table, which names neither the model nor the GPUs; it cannot be checked,"
    " measure your own",
}


H100_SOURCE: Final = (
    "vLLM 0.26.0, H100 80GB HBM3, Llama-3-8B in bf16, 2026-11-28; vLLM's default compilation, and"
    " from 140,000 KV tokens or above 512 sequences compilation mode 0, whose decoding differs by"
    " 2 % in the median where both were measured"
)
# The fit of extproc/profiling/h100-llama8b.json, which `python -m extproc.profiling.recorded DIR
# --write FILE` writes from the recorded points, and holds them.
H100_LLAMA8B: Final = InstanceProfile(
    name="h100-llama8b",
    pace=Profile(
        weights_ms=6.55416,
        sequence_ms=0.0107052,
        chunk_tokens=8192,
        prefill_token_ms=0.0223775,
        prefill_pair_ms=8.61885e-07,
        kv_token_ms=4.16164e-05,
        overlap=True,
        launch_ms=7.92993,
        graph_sequences=512,
        eager_ms=14.6796,
    ),
    kv_tokens=449_952,
    gpus=1,
    price_per_gpu_h=4.02,
    overhead_s=0.00528,
    max_num_batched_tokens=8192,
    max_num_seqs=1024,
    measured_sequences=1024,
    measured_kv_tokens=367_825,
    source=H100_SOURCE,
)
NAMED: Final[Mapping[str, InstanceProfile]] = MappingProxyType(
    {
        # arXiv 2603.16054, Llama-3-70B; the papers count and price such an instance as one GPU.
        "a100-llama70b": _published("a100-llama70b", _pace(8.0, 0.65, 512), 65_536, 2.21, 8),
        # Not the papers' 4 ms for 1,024 tokens, which are 36 PFLOP/s: 4.6 times the peak of eight.
        "h100-llama70b": replace(
            from_first_principles(Build(accelerator=H100, model=LLAMA_3_70B, tensor_parallel=8)),
            name="h100-llama70b",
        ),
        "h100-llama8b": H100_LLAMA8B,
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
        # The start counts: names share their ends, the models.
        near = [known for known in NAMED if name and known.startswith(name.lower())]
        near = near or difflib.get_close_matches(name[:80].lower(), NAMED, n=2)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ProfileError(f"{name}: no such profile{hint}; allowed: {', '.join(NAMED)}, or a file")
    return NAMED[name]


def read_profile(text: str | bytes) -> InstanceProfile:
    """Read the JSON of an InstanceProfile, or of a Build. Raises ProfileError."""
    try:
        if "accelerator" in msgspec.json.decode(text, type=dict[str, Any]):
            return from_first_principles(msgspec.json.decode(text, type=Build))
        return msgspec.json.decode(text, type=InstanceProfile)
    except (msgspec.DecodeError, ValueError) as error:
        raise ProfileError(f"{error}") from error


def write_profile(
    profile: InstanceProfile, measurements: Sequence[Mapping[str, float]] = ()
) -> str:
    """Return the JSON that read_profile reads; the measurements are kept for the reader."""
    fields = asdict(profile) | ({"measurements": measurements} if measurements else {})
    return msgspec.json.format(msgspec.json.encode(fields), indent=2).decode()
