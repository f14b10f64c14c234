"""Checks the sampling parameters of a request, as vLLM's SamplingParams does.

Order and words are those of vLLM's sampling_params.py; an absent field passes.
"""

import math
from typing import Protocol

from extproc.simulator.pool.refusal import RefusedError, refused

MAX_SEQUENCES = 16_384  # VLLM_MAX_N_SEQUENCES


class Sampled(Protocol):
    """The body of a request that generates."""

    frequency_penalty: float | None
    presence_penalty: float | None
    repetition_penalty: float | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None


def check_sampling(body: Sampled, sequences: int) -> None:
    """Check all parameters but the limits of the output; raises RefusedError."""
    _check_sequences(sequences)
    _check_penalty("presence_penalty", body.presence_penalty)
    _check_penalty("frequency_penalty", body.frequency_penalty)
    _check_repetition(body.repetition_penalty)
    if body.temperature is not None:
        _check_temperature(body.temperature)
    if body.top_p is not None and not 0 < body.top_p <= 1:
        raise _named("top_p", f"must be in (0, 1], got {body.top_p}.", body.top_p)
    if body.top_k is not None and body.top_k < -1:
        raise refused(f"top_k must be 0 (disable), or at least 1, got {body.top_k}.")
    if body.min_p is not None and not 0 <= body.min_p <= 1:
        raise refused(f"min_p must be in [0, 1], got {body.min_p}.")


def check_limits(max_tokens: int, min_tokens: int) -> None:
    """Check the limits of the output, in tokens; raises RefusedError."""
    if max_tokens < 1:
        raise _named("max_tokens", f"must be at least 1, got {max_tokens}.", max_tokens)
    if min_tokens < 0:
        raise refused(f"min_tokens must be greater than or equal to 0, got {min_tokens}.")
    if min_tokens > max_tokens:
        raise refused(
            f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {min_tokens}."
        )


def _check_sequences(count: int) -> None:
    if count < 1:
        raise refused(f"n must be at least 1, got {count}.")
    if count > MAX_SEQUENCES:
        raise refused(
            f"n must be at most {MAX_SEQUENCES}, got {count}. To increase this limit, set the "
            "VLLM_MAX_N_SEQUENCES environment variable."
        )


def _check_penalty(name: str, value: float | None) -> None:
    if value is not None and not -2 <= value <= 2:
        raise refused(f"{name} must be in [-2, 2], got {value}.")


def _check_repetition(value: float | None) -> None:
    if value is None:
        return
    if not math.isfinite(value):
        raise refused(f"repetition_penalty must be a finite number, got {value}.")
    if value <= 0:
        raise refused(f"repetition_penalty must be greater than zero, got {value}.")


def _check_temperature(value: float) -> None:
    if not math.isfinite(value):
        raise _named("temperature", f"must be a finite number, got {value}.", value)
    if value < 0:
        raise _named("temperature", f"must be non-negative, got {value}.", value)
    if value > 2:
        raise _named("temperature", f"must be in [0, 2], got {value}.", value)


def _named(name: str, fault: str, value: float) -> RefusedError:
    return refused(f"{name} {fault}", param=name, value=value)
