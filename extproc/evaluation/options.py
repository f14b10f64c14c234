"""What `dualpool evaluate` is asked for, and what may be wrong with it."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

THRESHOLDS: Final = (2048, 8192, 32768)
LONG: Final = 1 << 20
"""max_model_len of the long pool, in tokens: nothing is larger."""


class EvaluationError(Exception):
    """The evaluation cannot be run; the text says what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """What `dualpool evaluate` is asked for.

    texts: a folder of UTF-8 texts, one class for each file or subfolder, or a JSONL file of OpenAI
    requests; None: built-in ones. tokenizers: files tokenizer.json; none: o200k_base and
    cl100k_base. lengths: traces that prompts and outputs take their lengths from; none: the Azure
    2023 distribution with a heavier tail. stated: the share of requests that state an output limit.
    requests: for each tokenizer. by_class: a row for each class of text. poison: the attacks
    instead of the comparison. json, plot: files for the figures and for a PNG.
    """

    texts: Path | None = None
    tokenizers: tuple[Path, ...] = ()
    thresholds: tuple[int, ...] = THRESHOLDS
    lengths: tuple[Path, ...] = ()
    stated: float = 0.85
    requests: int = 6000
    seed: int = 0
    by_class: bool = False
    poison: bool = False
    json: Path | None = None
    plot: Path | None = None


def check_options(options: EvaluateOptions) -> None:
    """Raise EvaluationError for the first fault."""
    if fault := next(_faults(options), ""):
        raise EvaluationError(fault)


def check_packages(options: EvaluateOptions) -> None:
    """Raise EvaluationError where a package that these options need is not installed."""
    needed = ["tokenizers" if options.tokenizers else "bpe_openai"]
    needed += ["matplotlib"] if options.plot else []
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    if absent:
        raise EvaluationError(
            f"dualpool evaluate needs {' and '.join(absent)}: pip install 'dualpool[evaluate]'"
        )


def _faults(options: EvaluateOptions) -> Iterator[str]:
    for threshold in options.thresholds:
        if not 0 < threshold < LONG:
            yield f"--threshold: {threshold} is not allowed: from 1 to {LONG - 1} tokens"
    if len(set(options.thresholds)) < len(options.thresholds):
        yield "--threshold: the same number twice"
    if options.requests < 1:
        yield f"--requests: {options.requests} is not allowed: a whole number from 1"
    if not 0 <= options.stated <= 1:
        yield f"--stated: {options.stated} is not allowed: a share from 0 to 1"
