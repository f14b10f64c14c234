"""A profile fitted to times: what was put in comes out."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.profiling.fitting import (
    Decode,
    FirstToken,
    FitError,
    Measurement,
    fit,
)
from extproc.simulator.engine.instance import Profile
from tests.support.gpu_times import LOADS, gpu_times

BATCH = 2048
TRUE = Profile(
    weights_ms=7.0,
    sequence_ms=0.9,
    chunk_tokens=BATCH,
    prefill_token_ms=0.005,
    prefill_pair_ms=8e-6,
    kv_token_ms=0.0004,
)


def decode(sequences: int, kv_tokens: float, profile: Profile = TRUE) -> Decode:
    """What an iteration takes by the engine's own sum."""
    ns = profile.iteration_ns(sequences, 0) + profile.kv_token_ns * kv_tokens
    return Decode(sequences=sequences, kv_tokens=kv_tokens, measured_ms=ns / 1e6)


def first_token(prompt: int, overhead_ms: float = 6.0, profile: Profile = TRUE) -> FirstToken:
    """What an idle engine takes for a prompt, in chunks of at most BATCH tokens."""
    ns, start = 0, 0
    while start < prompt:
        end = min(prompt, start + BATCH)
        ns += profile.iteration_ns(1, end - start, (end - start) * (end + start) / 2)
        start = end
    return FirstToken(prompt_tokens=prompt, measured_ms=overhead_ms + ns / 1e6)


def measured(profile: Profile = TRUE) -> list[Measurement]:
    decodes = [decode(n, n * kv, profile) for n in (1, 2, 4, 8, 16) for kv in (50, 800)]
    firsts = [first_token(p, profile=profile) for p in (16, 128, 512, 1024, 2048, 4000)]
    return [*decodes, *firsts]


def test_the_terms_that_made_the_times_are_found():
    fitted = fit(measured(), BATCH)
    assert fitted.overhead_ms == pytest.approx(6.0, rel=1e-3)
    for name in ("weights_ms", "sequence_ms", "prefill_token_ms", "prefill_pair_ms", "kv_token_ms"):
        assert getattr(fitted.profile, name) == pytest.approx(getattr(TRUE, name), rel=1e-2)


def test_the_fitted_times_are_those_that_were_measured():
    times = measured()
    for measurement, fitted_ms in zip(times, fit(times, BATCH).fitted_ms, strict=True):
        assert fitted_ms == pytest.approx(measurement.measured_ms, rel=1e-3)


@given(st.lists(st.floats(0.7, 1.4), min_size=16, max_size=16))
def test_no_term_is_below_zero_whatever_the_noise(noise):
    times = [
        Decode(sequences=m.sequences, kv_tokens=m.kv_tokens, measured_ms=m.measured_ms * factor)
        if isinstance(m, Decode)
        else FirstToken(prompt_tokens=m.prompt_tokens, measured_ms=m.measured_ms * factor)
        for m, factor in zip(measured(), noise, strict=True)
    ]
    found = fit(times, BATCH)
    pace = found.profile
    assert min(pace.weights_ms, pace.sequence_ms, pace.kv_token_ms, found.overhead_ms) >= 0
    assert min(pace.prefill_token_ms, pace.prefill_pair_ms) >= 0


def test_too_few_measurements_are_refused():
    with pytest.raises(FitError, match="5 measurements cannot determine the 6 terms"):
        fit(measured()[:5], BATCH)


def test_loads_of_one_sequence_do_not_tell_its_time_from_that_of_the_weights():
    alone = [m for m in measured() if isinstance(m, FirstToken) or m.sequences == 1]
    with pytest.raises(FitError, match="do not tell these terms apart: weights, per sequence;"):
        fit(alone, BATCH)


def test_prompts_of_one_length_are_refused():
    same = [first_token(512) for _ in range(6)]
    decodes = [m for m in measured() if isinstance(m, Decode)]
    with pytest.raises(FitError, match=r"do not tell these terms apart: .*per prefill token"):
        fit([*decodes, *same], BATCH)


@pytest.mark.parametrize(("kind", "term"), [(Decode, "outside the engine"), (FirstToken, "per KV")])
def test_a_term_that_no_measurement_shows_is_named(kind, term):
    only = [m for m in 2 * measured() if isinstance(m, kind)]
    with pytest.raises(FitError, match=f"no measurement shows these terms: .*{term}"):
        fit(only, BATCH)


def test_times_that_no_profile_describes_are_refused():
    times = measured()
    wild = [
        replace(m, measured_ms=m.measured_ms * (0.3 if index % 2 else 3))
        for index, m in enumerate(times)
    ]
    with pytest.raises(FitError, match=r"half of them are off by more than [5-9]\d%"):
        fit(wild, BATCH)


def test_an_iteration_of_no_time_is_refused():
    # Decoding takes no time of its own here: only KV entries do.
    idle = replace(TRUE, weights_ms=0.0, sequence_ms=0.0, kv_token_ms=0.01)
    with pytest.raises(FitError, match="an iteration came out to take no time"):
        fit(measured(idle), BATCH)


def test_the_launch_of_small_prompts_is_told_from_the_computation_of_large_ones():
    found = fit(gpu_times(), 8192)
    assert found.profile.overlap
    assert found.profile.prefill_token_ms == pytest.approx(0.023, rel=0.01)
    assert found.profile.launch_ms + found.overhead_ms == pytest.approx(15.0, rel=0.01)
    assert found.most_off < 0.01


def test_what_decoding_costs_beyond_cuda_graphs_is_measured():
    found = fit(gpu_times(loads=(*LOADS, (1024, 5e4))), 8192)
    assert found.profile.eager_ms == pytest.approx(14.0, rel=0.02)


def test_decoding_beyond_cuda_graphs_is_assumed_to_be_slow_if_it_was_not_measured():
    pace = fit(gpu_times(), 8192).profile
    assert pace.eager_ms == 2 * pace.weights_ms
    assert pace.iteration_ns(513, 0) > 1.5 * pace.iteration_ns(512, 0)


def test_the_residuals_of_half_and_of_all_times_are_reported():
    times = gpu_times()
    times[0] = replace(times[0], measured_ms=1.5 * times[0].measured_ms)
    found = fit(times, 8192)
    assert found.median_off < 0.05 < 0.25 < found.most_off
