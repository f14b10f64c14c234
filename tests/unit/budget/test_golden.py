"""What a fixed sequence of answers teaches, to the last digit.

No number of the estimator may change unnoticed: each was chosen by `dualpool evaluate`. After a
change that its figures justify, `python -m tests.unit.budget.test_golden` writes the file anew.
"""

import json
import random

import msgspec
import pytest

from extproc.budget.calibrated import Calibrated
from extproc.budget.category import content_class
from extproc.budget.measure import measure, with_optional
from extproc.budget.prior import MEASURED
from extproc.budget.values import Asked, Observation, Outcome
from tests.support.paths import DATA

FILE = DATA / "budgets.json"
LIMITS = (2048, 8192)
TEXTS = (
    "The owl sat still in the old barn, as owls do; nobody had noticed it. ",
    "def run(self, x: int) -> None:\n    self._x = [y for y in x if y > 3]\n",
    '{"id": 17, "price": 25.5, "ok": true, "tags": ["a", "b"]}, ',
    "猫头鹰在谷仓里一动不动，没有人注意到它。",
    "Сова сидела неподвижно, и никто в амбаре её не заметил. ",
)
TOKENS_PER_BYTE = (0.22, 0.31, 0.42, 0.25, 0.19)


def request(draw: random.Random) -> tuple[Asked, int]:
    """A request, and the tokens of its prompt."""
    kind = draw.randrange(len(TEXTS))
    size = int(draw.lognormvariate(7.5, 1.1))
    text = (TEXTS[kind].encode() * (size // 40 + 1))[:size]
    tools, messages = draw.choice((0, 0, 0, 3)), draw.randint(1, 6)
    dropped = draw.choice((0.0, 0.0, 400.0))
    found = measure(text[:4000], size, messages=messages, tools=tools)
    asked = Asked(
        f"model-{draw.randrange(3)}",
        content_class(found.features).value,
        with_optional(found, {"past_reasoning": dropped} if dropped else {}),
        draw.choice((None, None, 16, 256, 1024)),
        sequences=draw.choice((1, 1, 1, 4)),
    )
    template = 12 + 5 * messages + 60 * tools
    return asked, max(1, round(size * TOKENS_PER_BYTE[kind] * draw.gauss(1.0, 0.03)) + template)


def observation(asked: Asked, tokens: int, draw: random.Random) -> Observation:
    output = max(1, int(draw.lognormvariate(5.3, 1.0)))
    total = tokens + min(output, asked.output_limit or output)
    if total > LIMITS[-1]:
        return Observation(asked, Outcome.REFUSED, LIMITS[-1])
    cut = asked.output_limit is not None and output >= asked.output_limit
    used = min(output, asked.output_limit or output) * asked.sequences
    return Observation(asked, Outcome.CUT if cut else Outcome.COMPLETE, LIMITS[0], tokens, used)


def figures() -> list[dict[str, object]]:
    """Budgets along 1,200 answers, and what was learnt at the end."""
    draw, rows = random.Random(20260408), []
    calibrated = Calibrated(MEASURED, LIMITS, target=0.001, categories=8)
    for number in range(1200):
        asked, tokens = request(draw)
        if number % 40 == 0:
            rows.append({str(number): msgspec.to_builtins(calibrated.budget(asked))})
        calibrated.observe(observation(asked, tokens, draw))
    learnt = calibrated.learnt()
    return [*rows, learnt.categories, learnt.models, learnt.limits]


def plain(figures: object) -> object:
    """The figures with numbers that may differ in the last digits between machines."""
    match figures:
        case dict():
            return {name: plain(value) for name, value in figures.items()}
        case list():
            return [plain(value) for value in figures]
        case int():
            return pytest.approx(figures, abs=1)
        case float():
            return pytest.approx(figures, rel=1e-6, abs=1e-9)
        case _:
            return figures


def test_a_fixed_sequence_of_answers_teaches_the_same_figures():
    assert figures() == plain(json.loads(FILE.read_text()))


if __name__ == "__main__":
    FILE.write_text(json.dumps(figures(), indent=1) + "\n")
