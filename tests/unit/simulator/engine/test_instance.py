"""The time of an iteration, by the formula of a profile."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.simulator.engine.instance import A100_80GB, EngineConfig, Profile

MS = 1_000_000
FULL = Profile(
    weights_ms=8.0,
    sequence_ms=0.5,
    chunk_tokens=100,
    prefill_token_ms=0.01,
    prefill_pair_ms=0.001,
    kv_token_ms=0.002,
)
PROFILES = st.builds(
    Profile,
    weights_ms=st.floats(0, 20),
    sequence_ms=st.floats(0, 2),
    chunk_tokens=st.integers(1, 1024),
    speed=st.floats(0.1, 100),
    prefill_token_ms=st.floats(0, 1),
    prefill_pair_ms=st.floats(0, 0.01),
)
SIZES = {"max_model_len": 64, "max_num_seqs": 4, "max_num_batched_tokens": 8, "num_blocks": 16}


def test_an_iteration_that_only_decodes_reads_the_weights_once():
    assert FULL.iteration_ns(4, 0) == (8 + 4 * 0.5) * MS


@pytest.mark.parametrize(("tokens", "chunks"), [(1, 1), (100, 1), (101, 2), (200, 2), (201, 3)])
def test_each_chunk_of_a_prefill_reads_the_weights(tokens, chunks):
    assert FULL.iteration_ns(1, tokens) == round((8 * chunks + 0.5 + 0.01 * tokens) * MS)


def test_a_prefill_takes_time_for_its_tokens_and_its_pairs():
    # 100 tokens attend to 5,000 pairs: 8 + 0.5 + 1 + 5 ms.
    assert FULL.iteration_ns(1, 100, 5000.0) == round(14.5 * MS)


def test_reading_a_kv_entry_takes_whole_nanoseconds():
    assert FULL.kv_token_ns == 2000
    assert A100_80GB.kv_token_ns == 0


def test_the_papers_a100_decodes_128_sequences_in_91_ms():
    assert A100_80GB.iteration_ns(128, 0) == round((8.0 + 128 * 0.65) * MS)


def test_speed_divides_all_times():
    fast = Profile(weights_ms=8.0, sequence_ms=0.5, chunk_tokens=100, speed=4.0, kv_token_ms=0.002)
    assert fast.iteration_ns(4, 0) == 2.5 * MS
    assert fast.kv_token_ns == 500


@given(PROFILES, st.integers(1, 256), st.integers(0, 4096))
def test_no_iteration_is_free_and_more_work_takes_no_less(profile, sequences, tokens):
    time_ns = profile.iteration_ns(sequences, tokens)
    assert time_ns >= 1
    assert profile.iteration_ns(sequences + 1, tokens) >= time_ns
    assert profile.iteration_ns(sequences, tokens + 1) >= time_ns


@pytest.mark.parametrize("fields", [{"chunk_tokens": 0}, {"speed": 0.0}, {"speed": -1.0}])
def test_a_profile_without_a_duration_is_refused(fields):
    with pytest.raises(ValueError, match="chunk_tokens must be at least 1 and speed above 0"):
        Profile(**{"weights_ms": 1.0, "sequence_ms": 0.1, "chunk_tokens": 8} | fields)


@pytest.mark.parametrize("name", ["max_model_len", "max_num_seqs", "num_blocks", "block_size"])
def test_no_size_of_an_engine_may_be_0(name):
    with pytest.raises(ValueError, match="all sizes of an engine must be at least 1"):
        EngineConfig(**SIZES | {name: 0})


def test_every_sequence_must_get_a_token_in_an_iteration():
    with pytest.raises(ValueError, match="max_num_batched_tokens must be at least max_num_seqs"):
        EngineConfig(**SIZES | {"max_num_batched_tokens": 3})


def test_an_engine_has_blocks_of_16_tokens_and_no_prefix_cache_unless_it_is_told():
    config = EngineConfig(**SIZES)
    assert (config.block_size, config.enable_prefix_caching) == (16, False)


GPU = Profile(
    weights_ms=7.0,
    sequence_ms=0.0,
    chunk_tokens=8192,
    prefill_token_ms=0.02,
    overlap=True,
    graph_sequences=512,
    eager_ms=14.0,
)


@pytest.mark.parametrize(
    ("sequences", "prefill", "ms"),
    [
        (1, 0, 7),
        (1, 99, 7),
        (1, 999, 20),
        (500, 0, 10),
        (512, 0, 10.24),
        (600, 0, 26),
        (600, 400, 20),
    ],
)
def test_a_gpu_reads_weights_while_it_computes_and_has_no_graphs_beyond_512(sequences, prefill, ms):
    assert GPU.iteration_ns(sequences, prefill) == ms * 1e6


@pytest.mark.parametrize("name", ["launch_ms", "eager_ms", "graph_sequences"])
def test_no_term_of_a_launch_is_below_0(name):
    with pytest.raises(ValueError, match="must not be below 0"):
        Profile(**{"weights_ms": 1.0, "sequence_ms": 0.0, "chunk_tokens": 1, name: -1})
