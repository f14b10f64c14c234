"""Profiles: the papers' figures, first principles and files."""

from dataclasses import replace

import pytest

from extproc.simulator.engine.profiles import (
    MI300X_QWEN3_235B,
    NAMED,
    QWEN3_235B_FP8,
    Accelerator,
    Build,
    ModelShape,
    ProfileError,
    from_first_principles,
    kv_cache_bytes,
    named_profile,
    read_profile,
    write_profile,
)

A100_80GB = Accelerator(
    name="A100-80GB", hbm_gib=80, bandwidth_gb_s=2039, tflops=312, price_per_h=2.21
)
LLAMA_3_70B = ModelShape(
    name="Llama-3-70B", parameters=70.6e9, layers=80, heads=64, kv_heads=8, head_size=128
)


def test_a_token_of_llama_70b_takes_320_kib():
    assert LLAMA_3_70B.kv_token_bytes(1) == 320 * 1024


def test_a_token_of_qwen3_235b_takes_24064_bytes_of_each_gpu():
    assert QWEN3_235B_FP8.kv_token_bytes(8) == 24_064


def test_a_head_that_is_shared_by_two_gpus_is_kept_twice():
    assert QWEN3_235B_FP8.kv_token_bytes(4) == QWEN3_235B_FP8.kv_token_bytes(8)


def test_an_mi300x_keeps_133_gb_for_the_kv_cache():
    assert kv_cache_bytes(MI300X_QWEN3_235B) == pytest.approx(133.4e9, rel=1e-3)


@pytest.mark.parametrize(("window", "sequences"), [(8192, 676), (32_768, 169)])
def test_an_mi300x_holds_676_and_169_sequences(window, sequences):
    assert NAMED["mi300x-qwen235b"].window_slots(window) == sequences


@pytest.mark.parametrize(("window", "sequences"), [(8192, 128), (65_536, 16)])
def test_the_papers_a100_holds_128_and_16_sequences(window, sequences):
    assert NAMED["a100-llama70b"].window_slots(window) == sequences


def test_an_iteration_reads_the_weights_at_the_bandwidth_of_all_gpus():
    build = Build(
        accelerator=replace(A100_80GB, read_share=1), model=LLAMA_3_70B, tensor_parallel=8
    )
    profile = from_first_principles(build)
    assert profile.pace.weights_ms == pytest.approx(141.2e9 / (8 * 2.039e12) * 1e3)


def test_a_prompt_token_costs_two_flop_for_each_active_parameter():
    pace = NAMED["mi300x-qwen235b"].pace
    assert pace.prefill_token_ms == pytest.approx(2 * 22e9 / (8 * 2615e12 * 0.5) * 1e3)


def test_a_model_that_leaves_no_kv_cache_is_refused():
    build = Build(accelerator=A100_80GB, model=LLAMA_3_70B, tensor_parallel=1)
    with pytest.raises(ProfileError, match="leaves no KV cache on 1 x A100-80GB"):
        from_first_principles(build)


@pytest.mark.parametrize("name", NAMED)
def test_a_profile_survives_its_file(name):
    assert read_profile(write_profile(NAMED[name])) == NAMED[name]


def test_a_file_may_name_an_accelerator_and_a_model():
    text = """{"accelerator": {"name": "A100-80GB", "hbm_gib": 80, "bandwidth_gb_s": 2039,
        "tflops": 312, "price_per_h": 2.21}, "tensor_parallel": 8, "model": {"name": "Llama-3-70B",
        "parameters": 70.6e9, "layers": 80, "heads": 64, "kv_heads": 8, "head_size": 128}}"""
    build = Build(accelerator=A100_80GB, model=LLAMA_3_70B, tensor_parallel=8)
    assert read_profile(text) == from_first_principles(build)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "missing required field `name`"),
        ("[]", "Expected `object`"),
        ('{"accelerator": {}}', "missing required field `name` - at `\\$.accelerator`"),
        (write_profile(NAMED["a10g"]).replace("524288", "8"), "kv_tokens must be at least"),
    ],
)
def test_a_broken_file_is_refused_with_its_fault(text, says):
    with pytest.raises(ProfileError, match=says):
        read_profile(text)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ProfileError, match="allowed: a100-llama70b, h100"):
        named_profile("a1000")


def test_a_profile_gives_the_settings_of_an_engine():
    engine = NAMED["a10g"].engine(8192, 64, 2048)
    assert (engine.num_blocks, engine.block_size, engine.max_num_seqs) == (32_768, 16, 64)
