"""Draw the lengths of prompts and outputs, from a distribution or from traces."""

import math
import random
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

from extproc.evaluation.options import EvaluationError
from extproc.local.traffic import AZURE_2023, quantile
from extproc.output import report_console
from extproc.planner.traffic.lengths import Trace
from extproc.planner.traffic.opened import read_opened
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
    """Return a function that draws from these files equally, or from Azure 2023 with a tail.

    A file has any format that the planner reads. Raises UserError if it has none.
    """
    if not files:
        return draw_azure
    draws = [_read(file) for file in files]
    return lambda rng: rng.choice(draws)(rng)


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


def _read(file: Path) -> Draw:
    try:
        with file.open("rb") as opened:
            reading = read_opened(opened, str(file))
    except OSError as error:
        raise EvaluationError(f"--lengths: {file}: {error.strerror}") from None
    for note in reading.notes:
        report_console(stderr=True).print(f"note: {note}", highlight=False, soft_wrap=True)
    found = reading.requests
    lengths = found.workload() if isinstance(found, Trace) else found
    prompts = lengths.prompt.clip(max=_MOST_PROMPT).tolist()
    rows = [DrawnLength(*row) for row in zip(prompts, lengths.output.tolist(), strict=True)]
    weights = list(accumulate(lengths.weights.tolist()))
    return lambda rng: rng.choices(rows, cum_weights=weights)[0]
