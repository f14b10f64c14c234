"""Profiles: the papers' figures, first principles and files."""

import re
from dataclasses import replace

import pytest

from extproc.simulator.engine.profiles import (
    H100,
    LLAMA_3_70B,
    MI300X_QWEN3_235B,
    NAMED,
    QWEN3_235B_FP8,
    Accelerator,
    Build,
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
        accelerator=replace(A100_80GB, weights_share=1), model=LLAMA_3_70B, tensor_parallel=8
    )
    profile = from_first_principles(build)
    assert profile.pace.weights_ms == pytest.approx(141.2e9 / (8 * 2.039e12) * 1e3)


def test_a_prompt_token_costs_two_flop_for_each_active_parameter():
    pace = NAMED["mi300x-qwen235b"].pace
    assert pace.prefill_token_ms == pytest.approx(2 * 22e9 / (8 * 2615e12 * 0.69) * 1e3)


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


def test_no_named_profile_is_faster_than_its_gpus_unless_it_says_so():
    honest = {name for name, profile in NAMED.items() if not profile.caution}
    assert honest == {"h100-llama70b", "h100-llama8b", "mi300x-qwen235b"}
    flop_per_s = 2 * LLAMA_3_70B.parameters / NAMED["h100-llama70b"].pace.prefill_token_ms * 1e3
    assert flop_per_s < 8 * H100.tflops * 1e12


@pytest.mark.parametrize("name", ["a100-llama70b", "a10g"])
def test_a_profile_of_the_papers_is_marked_in_every_output(name):
    assert any("the papers' table" in note for note in NAMED[name].notes(16, 2048))


@pytest.mark.parametrize(
    ("name", "gib", "defaults"),
    [
        ("H100-80GB", 80, (8192, 1024)),
        ("A100-80GB", 80, (2048, 256)),
        ("L4", 24, (2048, 256)),
        ("MI300X", 178, (8192, 1024)),
    ],
)
def test_vllms_defaults_follow_from_the_accelerator(name, gib, defaults):
    assert replace(H100, name=name, hbm_gib=gib).batch_defaults == defaults


def test_the_defaults_are_said_with_every_output():
    [note] = NAMED["h100-llama70b"].notes(256, 4096)
    assert note == (
        "max_num_batched_tokens 4096; vLLM's defaults on h100-llama70b are 8192, and 1024 for"
        " max_num_seqs"
    )


def test_what_a_server_was_measured_with_is_not_called_vllms_default():
    measured = replace(NAMED["h100-llama8b"], max_num_seqs=128, measured_sequences=128)
    assert measured.notes(128, 8192)[0].endswith(
        "h100-llama8b was measured with 8192, and 128 for max_num_seqs"
    )
    assert measured.whose_default == "as measured"
    assert NAMED["h100-llama8b"].whose_default == "vLLM's default"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("h100", "did you mean h100-llama70b or h100-llama8b?; allowed: "),
        ("a100-lama70b", "did you mean a100-llama70b"),
        ("zzz", "no such profile; allowed: a100"),
    ],
)
def test_an_unknown_profile_is_answered_with_the_nearest(name, hint):
    with pytest.raises(ProfileError, match=re.escape(hint)):
        named_profile(name)


def test_a_profile_says_where_it_was_not_measured():
    narrow = replace(NAMED["h100-llama8b"], measured_sequences=512, measured_kv_tokens=134_001)
    notes = narrow.notes(1024, 8192)
    assert notes[1].endswith(
        "up to 512 sequences at once; the times of up to 1024 are extrapolated"
    )
    assert "134001 KV tokens in use" in notes[2]
    assert len(narrow.notes(512, 8192)) == 2


def test_an_h100_at_the_measured_shares_is_the_measured_h100():
    # Llama-3-8B: 8.03e9 parameters, 32 layers of 32 heads, 8 of them for keys and values.
    llama = replace(LLAMA_3_70B, parameters=8.03e9, layers=32, heads=32)
    derived = from_first_principles(Build(accelerator=H100, model=llama, tensor_parallel=1)).pace
    measured = NAMED["h100-llama8b"].pace
    for name in ("weights_ms", "prefill_token_ms", "prefill_pair_ms", "kv_token_ms"):
        assert getattr(derived, name) == pytest.approx(getattr(measured, name), rel=0.08)


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(ProfileError, match="allowed: a100-llama70b, h100"):
        named_profile("a1000")


def test_a_profile_gives_the_settings_of_an_engine():
    engine = NAMED["a10g"].engine(8192, 64, 2048)
    assert (engine.num_blocks, engine.block_size, engine.max_num_seqs) == (32_768, 16, 64)
