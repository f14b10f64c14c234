"""The metrics of a simulated pool: names, help texts, labels and buckets of vLLM 0.32.

Metrics that do not apply to a simulation (prefix cache, multi-modal cache, FLOPs, HTTP) are left
out.
"""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from extproc.simulator.engine import Engine, EngineConfig

_LABELS = ("model_name", "engine")
_ENGINE = "0"
_REASONS = ("stop", "length", "abort", "error", "repetition")

# vllm/v1/metrics/buckets.py
_FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_TOKEN_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
_REQUEST_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0),
    *(240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_PREEMPTIONS = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)


class PoolMetrics:
    """The metrics of one pool, on a registry of its own; times are in seconds."""

    def __init__(self, model: str, config: EngineConfig) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        tokens = token_buckets(config.max_model_len)
        self._cache_config(config)
        self.preemptions = self._counter(
            "num_preemptions", "Cumulative number of preemption from the engine."
        )
        self.prompt_tokens = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        self.generation_tokens = self._counter(
            "generation_tokens", "Number of generation tokens processed."
        )
        success = Counter(
            "vllm:request_success",
            "Count of successfully processed requests.",
            (*_LABELS, "finished_reason"),
            registry=self.registry,
        )
        self.success = {reason: success.labels(model, _ENGINE, reason) for reason in _REASONS}
        self.request_prompt_tokens = self._histogram(
            "request_prompt_tokens", "Number of prefill tokens processed.", tokens
        )
        self.request_generation_tokens = self._histogram(
            "request_generation_tokens", "Number of generation tokens processed.", tokens
        )
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds",
            "Histogram of time to first token in seconds.",
            _FIRST_TOKEN_S,
        )
        self.inter_token_latency = self._histogram(
            "inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", _TOKEN_S
        )
        self.time_per_output_token = self._histogram(
            "request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            _TOKEN_S,
        )
        self.e2e_latency = self._histogram(
            "e2e_request_latency_seconds",
            "Histogram of e2e request latency in seconds.",
            _REQUEST_S,
        )
        self.queue_time = self._histogram(
            "request_queue_time_seconds",
            "Histogram of time spent in WAITING phase for request.",
            _REQUEST_S,
        )
        self.request_preemptions = self._histogram(
            "request_num_preemptions",
            "Histogram of the number of times a request was preempted.",
            _PREEMPTIONS,
        )

    def watch(self, engine: Engine) -> None:
        """Read the gauges from an engine at every scrape."""
        running = "Number of requests in model execution batches."
        self._gauge("num_requests_running", running, lambda: engine.running)
        waiting = "Number of requests waiting to be processed."
        self._gauge("num_requests_waiting", waiting, lambda: engine.waiting)
        usage = "KV-cache usage. 1 means 100 percent usage."
        self._gauge("kv_cache_usage_perc", usage, lambda: engine.usage)

    def _cache_config(self, config: EngineConfig) -> None:
        blocks = config.num_blocks + 1  # vLLM includes the null block, which is never allocated
        labels = {
            "block_size": config.block_size,
            "cache_dtype": "auto",
            "enable_prefix_caching": False,
            "engine": _ENGINE,
            "gpu_memory_utilization": 0.92,
            "kv_cache_size_tokens": blocks * config.block_size,
            "num_cpu_blocks": None,
            "num_gpu_blocks": blocks,
            "num_gpu_blocks_override": None,
            "sliding_window": None,
        }
        info = Gauge(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
            tuple(labels),
            registry=self.registry,
        )
        info.labels(**labels).set(1)

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        gauge = Gauge(f"vllm:{name}", text, _LABELS, registry=self.registry)
        gauge.labels(self._model, _ENGINE).set_function(read)

    def _counter(self, name: str, text: str) -> Counter:
        counter = Counter(f"vllm:{name}", text, _LABELS, registry=self.registry)
        return counter.labels(self._model, _ENGINE)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        histogram = Histogram(
            f"vllm:{name}", text, _LABELS, registry=self.registry, buckets=buckets
        )
        return histogram.labels(self._model, _ENGINE)


def token_buckets(limit: int) -> list[float]:
    """Return the buckets 1, 2, 5, 10, 20, 50, ... up to a limit."""
    series = (float(factor * 10**power) for power in range(len(str(limit))) for factor in (1, 2, 5))
    return [bucket for bucket in series if bucket <= limit]
