"""The simulated pool's metrics."""

import pytest

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
