"""What `dualpool evaluate` refuses before it starts."""

import importlib.util
from pathlib import Path

import pytest

from extproc.evaluation.options import (
    EvaluateOptions,
    EvaluationError,
    check_options,
    check_packages,
)
from extproc.names import install_hint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EvaluateOptions(thresholds=(0,)), "--threshold: 0 is not allowed"),
        (EvaluateOptions(thresholds=(1 << 20,)), "--threshold: 1048576 is not allowed"),
        (EvaluateOptions(thresholds=(2048, 2048)), "--threshold: the same number is given twice"),
        (EvaluateOptions(requests=0), "--requests: 0 is not allowed"),
        (EvaluateOptions(stated=1.5), "--stated: 1.5 is not allowed"),
        (
            EvaluateOptions(scenarios="", thresholds=(2048,)),
            "--threshold: has no effect on --scenarios",
        ),
        (EvaluateOptions(scenarios="", outputs=True), "--outputs: has no effect on --scenarios"),
        (EvaluateOptions(outputs=True, poison=True), "--poison: has no effect on --outputs"),
        (EvaluateOptions(outputs=True, texts=Path("t")), "--texts: has no effect on --outputs"),
        (EvaluateOptions(outputs=True, requests=500), "--outputs needs more than 500"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(EvaluationError, match=message):
        check_options(options)


def test_the_defaults_are_allowed():
    check_options(EvaluateOptions())


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    options = EvaluateOptions(tokenizers=(Path("tokenizer.json"),), plot=Path("x.png"))
    with pytest.raises(EvaluationError) as error:
        check_packages(options)
    assert str(error.value) == (
        f"dualpool evaluate needs tokenizers and matplotlib: {install_hint('evaluate')}"
    )
