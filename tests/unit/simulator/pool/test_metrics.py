"""The simulated pool's metrics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.samples import Sample

from extproc.simulator.engine import A100_80GB, Engine, EngineConfig, Sequence
from extproc.simulator.pool.metrics import PoolMetrics, token_buckets

CONFIG = EngineConfig(
    max_model_len=2048, max_num_seqs=8, max_num_batched_tokens=512, num_blocks=1024, block_size=32
)
LABELS = {"model_name": "m", "engine": "0"}


@pytest.mark.parametrize(
    ("limit", "buckets"),
    [
        (100, [1, 2, 5, 10, 20, 50, 100]),
        (8192, [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]),
    ],
)
def test_token_buckets_are_vllms(limit, buckets):
    assert token_buckets(limit) == buckets


def test_the_gauges_read_the_engine():
    engine, metrics = Engine(CONFIG, A100_80GB), PoolMetrics("m", CONFIG)
    metrics.watch(engine)
    engine.submit(Sequence(320, 10))
    assert metrics.registry.get_sample_value("vllm:num_requests_waiting", LABELS) == 1
    engine.advance(1)
    assert metrics.registry.get_sample_value("vllm:num_requests_running", LABELS) == 1
    usage = metrics.registry.get_sample_value("vllm:kv_cache_usage_perc", LABELS)
    assert usage == pytest.approx(10 / 1024)


def test_the_cache_config_counts_the_null_block():
    (info,) = (f for f in PoolMetrics("m", CONFIG).registry.collect() if "config" in f.name)
    labels = info.samples[0].labels
    assert (labels["num_gpu_blocks"], labels["block_size"]) == ("1025", "32")


# The names of vLLM 0.32 that dashboards read, with the kind of each.
FAMILIES = {
    "vllm:cache_config_info": "gauge",
    "vllm:num_requests_running": "gauge",
    "vllm:num_requests_waiting": "gauge",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:num_preemptions": "counter",
    "vllm:prompt_tokens": "counter",
    "vllm:generation_tokens": "counter",
    "vllm:request_success": "counter",
    "vllm:request_prompt_tokens": "histogram",
    "vllm:request_generation_tokens": "histogram",
    "vllm:time_to_first_token_seconds": "histogram",
    "vllm:inter_token_latency_seconds": "histogram",
    "vllm:request_time_per_output_token_seconds": "histogram",
    "vllm:e2e_request_latency_seconds": "histogram",
    "vllm:request_queue_time_seconds": "histogram",
    "vllm:request_num_preemptions": "histogram",
}


@pytest.fixture
def metrics() -> PoolMetrics:
    made = PoolMetrics("m", CONFIG)
    made.watch(Engine(CONFIG, A100_80GB))
    return made


def samples(metrics: PoolMetrics) -> list[Sample]:
    return [sample for family in metrics.registry.collect() for sample in family.samples]


def test_every_family_has_vllms_name_and_kind(metrics):
    assert {family.name: family.type for family in metrics.registry.collect()} == FAMILIES


def test_every_family_has_a_help_text(metrics):
    assert all(family.documentation for family in metrics.registry.collect())


def test_every_sample_names_the_model_and_the_engine(metrics):
    for sample in samples(metrics):
        if sample.name != "vllm:cache_config_info":
            assert sample.labels.items() >= LABELS.items()


def test_every_series_exists_before_the_first_request(metrics):
    found = [s for s in samples(metrics) if s.name == "vllm:request_success_total"]
    reasons = {sample.labels["finished_reason"]: sample.value for sample in found}
    assert reasons == dict.fromkeys(("stop", "length", "abort", "error", "repetition"), 0)


def test_token_histograms_end_at_the_window(metrics):
    bounds = [
        float(sample.labels["le"])
        for sample in samples(metrics)
        if sample.name == "vllm:request_prompt_tokens_bucket"
    ]
    assert bounds == [*token_buckets(CONFIG.max_model_len), float("inf")]


@given(st.integers(1, 10**6))
def test_token_buckets_rise_and_stay_within_the_limit(limit):
    buckets = token_buckets(limit)
    assert buckets == sorted(set(buckets))
    assert 1 <= buckets[0] <= buckets[-1] <= limit < 2.5 * buckets[-1]


def test_two_pools_count_apart():
    one, other = PoolMetrics("m", CONFIG), PoolMetrics("m", CONFIG)
    one.preemptions.inc()
    name = "vllm:num_preemptions_total"
    assert one.registry.get_sample_value(name, LABELS) == 1
    assert other.registry.get_sample_value(name, LABELS) == 0


def test_an_idle_engine_occupies_nothing(metrics):
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert metrics.registry.get_sample_value(f"vllm:{name}", LABELS) == 0
