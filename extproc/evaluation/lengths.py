"""Draw the lengths of prompts and outputs, from a distribution or from traces."""

import csv
import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from extproc.evaluation.options import EvaluationError
from extproc.local.traffic import AZURE_2023, quantile
from extproc.planner.traffic.texts import LADDER

# Azure 2023 alone has no request above 16,384 tokens, so none near the threshold of 32,768.
_TAIL: Final = 0.35
_TAIL_TOKENS: Final = (1000, 100_000)
_USUAL_OUTPUT: Final = 150
_OUTPUT_SPREAD: Final = 1.0
_MOST_PROMPT: Final = 120_000


class DrawnLength(NamedTuple):
    """Tokens of one request."""

    prompt: int
    output: int


Draw = Callable[[random.Random], DrawnLength]


def read_lengths(files: Sequence[Path]) -> Draw:
    """Return a function that draws from these traces equally, or from Azure 2023 with a tail.

    A trace is CSV with ContextTokens and GeneratedTokens, or JSONL with input_length and
    output_length. Raises EvaluationError if a file is neither.
    """
    if not files:
        return draw_azure
    traces = [_read_trace(file) for file in files]
    return lambda rng: rng.choice(rng.choice(traces))


def draw_azure(rng: random.Random) -> DrawnLength:
    """Draw from Azure 2023; a share of .35 is log-uniform up to 100,000 tokens."""
    if rng.random() < _TAIL:
        total = math.exp(rng.uniform(*map(math.log, _TAIL_TOKENS)))
    else:
        total = quantile(rng.random(), AZURE_2023)
    # Median 150 tokens, mean 247; at most half of the total, or a short total would have no prompt
    # left.
    output = min(rng.lognormvariate(math.log(_USUAL_OUTPUT), _OUTPUT_SPREAD), total / 2, LADDER[-1])
    return DrawnLength(int(total - output), max(1, int(output)))


def stated_limit(output: int) -> int:
    """Return the limit that a client would state for an answer of `output` tokens."""
    return next((limit for limit in LADDER if limit >= output), output)


def _read_trace(file: Path) -> list[DrawnLength]:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            found = list(_csv(opened) if file.suffix == ".csv" else _jsonl(opened))
    except OSError as error:
        raise EvaluationError(f"--lengths: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"--lengths: {file} is not a trace: {error!r}") from None
    if not found:
        raise EvaluationError(f"--lengths: {file} is empty")
    return found


def _csv(lines: Iterable[str]) -> Iterable[DrawnLength]:
    for row in csv.DictReader(lines):
        yield _length(row["ContextTokens"], row["GeneratedTokens"])


def _jsonl(lines: Iterable[str]) -> Iterable[DrawnLength]:
    for line in lines:
        row = json.loads(line)
        yield _length(row["input_length"], row["output_length"])


def _length(prompt: str | int, output: str | int) -> DrawnLength:
    return DrawnLength(min(int(prompt), _MOST_PROMPT), max(1, int(output)))
