"""The settings and the speed of one inference instance."""

from dataclasses import dataclass

NS_PER_MS = 1_000_000
GRAPH_SEQUENCES = 512
"""The largest batch that vLLM captures as a CUDA graph, by default (max_cudagraph_capture_size)."""
# Llama-3-8B on an H100 decodes 768 and 1,024 sequences 14 ms slower than the terms of up to 512
# give, twice its weights. Assumed where nothing was measured beyond 512.
EAGER_WEIGHTS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How long one iteration takes on an accelerator.

    An iteration with n sequences that prefills p tokens computes for `(weights_ms * c + sequence_ms
    * n + prefill_token_ms * p + prefill_pair_ms * q + kv_token_ms * k) / speed`. c is the number of
    chunks of chunk_tokens in p, at least 1: each chunk reads the weights once, and the first one
    shares that read with the decoding sequences. q counts pairs of a prefilled token and an earlier
    one, k the KV entries of the decoding sequences; attention reads both.

    overlap: a GPU reads weights while it multiplies, so the first and third term become
    `max(weights_ms * c, prefill_token_ms * (p + n))`. launch_ms: the CPU needs at least so long to
    launch an iteration with a prefill, which runs outside CUDA graphs. Above graph_sequences (0:
    no limit) decoding does so too and takes eager_ms longer.
    """

    weights_ms: float
    sequence_ms: float
    chunk_tokens: int
    speed: float = 1.0
    prefill_token_ms: float = 0.0
    prefill_pair_ms: float = 0.0
    kv_token_ms: float = 0.0
    overlap: bool = False
    launch_ms: float = 0.0
    graph_sequences: int = 0
    eager_ms: float = 0.0

    def __post_init__(self) -> None:
        """Validate."""
        if self.chunk_tokens < 1 or self.speed <= 0:
            raise ValueError("chunk_tokens must be at least 1 and speed above 0")
        if min(self.launch_ms, self.eager_ms, self.graph_sequences) < 0:
            raise ValueError("launch_ms, eager_ms and graph_sequences must not be below 0")

    def iteration_ns(self, sequences: int, prefill_tokens: int, prefill_pairs: float = 0.0) -> int:
        """Return the nanoseconds that an iteration computes, without the time to read KV entries.

        Its launch is not included: the scheduler decides what it overlaps with (Engine).
        """
        # A100_80GB with 10 sequences: 8 + 6.5 = 14.5 ms; with 1,000 tokens of prefill beside them,
        # 2 chunks, 22.5 ms.
        ms = self.dense_ms(sequences, prefill_tokens)
        ms += self.sequence_ms * sequences + self.prefill_pair_ms * prefill_pairs
        if self.graph_sequences and not prefill_tokens and sequences > self.graph_sequences:
            ms += self.eager_ms
        # At least 1: time that stands still would keep Engine.advance in its loop for ever.
        return max(1, round(ms / self.speed * NS_PER_MS))

    def dense_ms(self, sequences: int, prefill_tokens: int) -> float:
        """Return the milliseconds of the weights: to read them, and to multiply tokens by them."""
        read_ms = self.weights_ms * max(1, -(-prefill_tokens // self.chunk_tokens))
        if self.overlap:
            return max(read_ms, self.prefill_token_ms * (prefill_tokens + sequences))
        return read_ms + self.prefill_token_ms * prefill_tokens

    @property
    def launch_ns(self) -> int:
        """Nanoseconds to launch an iteration with a prefill."""
        return round(self.launch_ms / self.speed * NS_PER_MS)

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
    allocated. async_scheduling: vLLM's default on GPUs; it has none on CPUs.
    long_prefill_token_threshold: the most tokens that one prefill computes in an iteration beside
    other sequences; 0: no limit. Raises ValueError if vLLM would not start.
    """

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    num_blocks: int
    block_size: int = 16
    enable_prefix_caching: bool = False
    async_scheduling: bool = False
    long_prefill_token_threshold: int = 0

    def __post_init__(self) -> None:
        """Validate as vLLM does when it starts."""
        if min(self.max_model_len, self.max_num_seqs, self.num_blocks, self.block_size) < 1:
            raise ValueError("all sizes of an engine must be at least 1")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError("max_num_batched_tokens must be at least max_num_seqs")
        if not 0 <= self.long_prefill_token_threshold <= self.max_model_len:
            raise ValueError("long_prefill_token_threshold must be from 0 to max_model_len")
