"""The options of `dualpool evaluate`, and their validation."""

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from extproc.config.errors import UserError
from extproc.names import install_hint
from extproc.planner.traffic.texts import STATED

THRESHOLDS: Final = (2048, 8192, 32768)
REQUESTS: Final = 6000
WARM_UP: Final = 500
"""The first requests of --outputs, which are not counted."""
LONG: Final = 1 << 20
"""max_model_len of the long pool, in tokens: every case fits."""


class EvaluationError(UserError):
    """The evaluation cannot run; the text says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """The options of `dualpool evaluate`.

    config: the service's settings file; None: its defaults. texts: a folder of UTF-8 texts, one
    class per file or subfolder, or a JSONL file of OpenAI requests; None: built-in texts.
    tokenizers: files tokenizer.json; none: o200k_base and cl100k_base. thresholds: none: the limits
    of the settings file's pools, or THRESHOLDS without a file. lengths: traces to draw lengths
    from; none: the Azure 2023 distribution with a heavier tail. stated: share of requests that
    state an output limit. requests: per tokenizer; None: REQUESTS, or the scenario's own. by_class:
    print a row per class of text. poison: run the attacks instead of the comparison. scenarios: run
    those whose name contains this text instead, with their own lengths, limits and thresholds;
    None: run none. outputs: compare what predicts completion tokens instead. json, plot: files for
    the figures and for a PNG.
    """

    config: Path | None = None
    texts: Path | None = None
    tokenizers: tuple[Path, ...] = ()
    thresholds: tuple[int, ...] = ()
    lengths: tuple[Path, ...] = ()
    stated: float = STATED
    requests: int | None = None
    seed: int = 0
    by_class: bool = False
    poison: bool = False
    scenarios: str | None = None
    outputs: bool = False
    json: Path | None = None
    plot: Path | None = None


def check_options(options: EvaluateOptions) -> None:
    """Raise EvaluationError for the first wrong option."""
    if fault := next(_faults(options), ""):
        raise EvaluationError(fault)


def check_packages(options: EvaluateOptions) -> None:
    """Raise EvaluationError if a package that these options need is not installed."""
    needed = [] if options.outputs else ["tokenizers" if options.tokenizers else "bpe_openai"]
    needed += ["matplotlib"] if options.plot else []
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    if absent:
        raise EvaluationError(
            f"dualpool evaluate needs {' and '.join(absent)}: {install_hint('evaluate')}"
        )


def _faults(options: EvaluateOptions) -> Iterator[str]:
    for threshold in options.thresholds:
        if not 0 < threshold < LONG:
            yield f"--threshold: {threshold} is not allowed: from 1 to {LONG - 1} tokens"
    if len(set(options.thresholds)) < len(options.thresholds):
        yield "--threshold: the same number is given twice"
    if options.requests is not None and options.requests < 1:
        yield f"--requests: {options.requests} is not allowed: a whole number from 1"
    if not 0 <= options.stated <= 1:
        yield f"--stated: {options.stated} is not allowed: a share from 0 to 1"
    given: dict[str, object] = {
        "--by-class": options.by_class,
        "--poison": options.poison,
        "--plot": options.plot,
        "--stated": options.stated != STATED,
    }
    if options.scenarios is not None:
        given |= {"--threshold": options.thresholds, "--lengths": options.lengths}
        yield from _unused("--scenarios", given | {"--outputs": options.outputs})
        if options.texts and options.texts.is_file():
            yield "--texts: --scenarios needs a folder of texts, not a file of requests"
    elif options.outputs:
        given |= {"--texts": options.texts, "--tokenizer": options.tokenizers}
        yield from _unused("--outputs", given)
    if options.outputs and options.requests is not None and options.requests <= WARM_UP:
        yield f"--requests: --outputs needs more than {WARM_UP}, which are not counted"


def _unused(by: str, given: Mapping[str, object]) -> Iterator[str]:
    for name in (name for name, value in given.items() if value):
        yield f"{name}: has no effect on {by}; leave one of them out"
