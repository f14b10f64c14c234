"""The checks of sampling parameters; the words are those of a running vLLM."""

import json
from types import SimpleNamespace

import pytest

from extproc.simulator.pool.refusal import RefusedError
from extproc.simulator.pool.sampling import check_limits, check_sampling

NAN, INF = float("nan"), float("inf")
NONE = dict.fromkeys(
    (
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
    )
)


def message(check, *arguments) -> str:
    with pytest.raises(RefusedError) as caught:
        check(*arguments)
    assert caught.value.status == 400
    return json.loads(caught.value.body)["error"]["message"]


def body(**fields):
    return SimpleNamespace(**NONE | fields)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("temperature", NAN, "temperature must be a finite number, got nan."),
        ("temperature", -1.0, "temperature must be non-negative, got -1.0."),
        ("temperature", 3.0, "temperature must be in [0, 2], got 3.0."),
        ("repetition_penalty", INF, "repetition_penalty must be a finite number, got inf."),
        ("repetition_penalty", 0.0, "repetition_penalty must be greater than zero, got 0.0."),
        ("presence_penalty", NAN, "presence_penalty must be in [-2, 2], got nan."),
        ("frequency_penalty", 3.0, "frequency_penalty must be in [-2, 2], got 3.0."),
        ("top_p", NAN, "top_p must be in (0, 1], got nan."),
        ("top_k", -5, "top_k must be 0 (disable), or at least 1, got -5."),
        ("min_p", 2.0, "min_p must be in [0, 1], got 2.0."),
    ],
)
def test_a_parameter_out_of_range_is_refused(name, value, words):
    found = message(check_sampling, body(**{name: value}), 1)
    named = f" (parameter={name}, value={value})" if name in ("temperature", "top_p") else ""
    assert found == words + named


def test_values_in_range_and_absent_ones_pass():
    check_sampling(body(), 1)
    check_sampling(
        body(temperature=0.0, top_p=1.0, top_k=-1, min_p=0.0, repetition_penalty=1.1), 16_384
    )


def test_penalties_are_checked_before_the_temperature():
    wrong = body(temperature=NAN, presence_penalty=3.0)
    assert message(check_sampling, wrong, 1).startswith("presence_penalty")


@pytest.mark.parametrize("count", [0, 16_385])
def test_the_number_of_sequences_is_checked_first(count):
    assert message(check_sampling, body(temperature=NAN), count).startswith("n must be at")


def test_limits_of_the_output_are_checked():
    check_limits(1, 1)
    assert message(check_limits, 0, 0).startswith("max_tokens must be at least 1, got 0.")
    assert message(check_limits, 5, -1).startswith("min_tokens must be greater than or equal to 0")
    assert message(check_limits, 3, 5).startswith("min_tokens must be less than or equal to max_")
