"""The settings and the speed of one inference instance."""

from dataclasses import dataclass

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How long one iteration takes on an accelerator.

    An iteration with n sequences that prefills p tokens lasts `(weights_ms * c + sequence_ms * n +
    prefill_token_ms * p + prefill_pair_ms * q + kv_token_ms * k) / speed`. c is the number of
    chunks of chunk_tokens in p, at least 1: each chunk reads the weights once, and the first one
    shares that read with the decoding sequences. q counts pairs of a prefilled token and an earlier
    one, k the KV entries of the decoding sequences; attention reads both.
    """

    weights_ms: float
    sequence_ms: float
    chunk_tokens: int
    speed: float = 1.0
    prefill_token_ms: float = 0.0
    prefill_pair_ms: float = 0.0
    kv_token_ms: float = 0.0

    def __post_init__(self) -> None:
        """Validate."""
        if self.chunk_tokens < 1 or self.speed <= 0:
            raise ValueError("chunk_tokens must be at least 1 and speed above 0")

    def iteration_ns(self, sequences: int, prefill_tokens: int, prefill_pairs: float = 0.0) -> int:
        """Return the nanoseconds of an iteration, without the time to read KV entries."""
        # A100_80GB with 10 sequences: 8 + 6.5 = 14.5 ms; with 1,000 tokens of prefill beside them,
        # 2 chunks, 22.5 ms.
        chunks = max(1, -(-prefill_tokens // self.chunk_tokens))
        ms = self.weights_ms * chunks + self.sequence_ms * sequences
        ms += self.prefill_token_ms * prefill_tokens + self.prefill_pair_ms * prefill_pairs
        # At least 1: time that stands still would keep Engine.advance in its loop for ever.
        return max(1, round(ms / self.speed * NS_PER_MS))

    @property
    def kv_token_ns(self) -> int:
        """Nanoseconds that an iteration takes to read one KV entry, rounded."""
        # An integer, so that a jump over n iterations takes the same time as n single ones. For
        # a100-llama70b 79.3 becomes 79 ns, 0.4 % too fast.
        return round(self.kv_token_ms / self.speed * NS_PER_MS)


# arXiv 2603.16514: Llama-3-70B in BF16 on eight A100-80GB.
A100_80GB = Profile(weights_ms=8.0, sequence_ms=0.65, chunk_tokens=512)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The settings that determine the schedule of an instance; the names are vLLM's.

    num_blocks counts usable blocks: vLLM's num_gpu_blocks minus the null block, which is never
    allocated. Raises ValueError if vLLM would not start.
    """

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    num_blocks: int
    block_size: int = 16
    enable_prefix_caching: bool = False

    def __post_init__(self) -> None:
        """Validate as vLLM does when it starts."""
        if min(self.max_model_len, self.max_num_seqs, self.num_blocks, self.block_size) < 1:
            raise ValueError("all sizes of an engine must be at least 1")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError("max_num_batched_tokens must be at least max_num_seqs")
